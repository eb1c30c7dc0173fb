"""One worker process: read the log, place each upload by the pipeline, announce, checkpoint.

A worker owns partitions: always the same on one machine, on Kafka those that the group gives it for now. It
keeps a few uploads in work, one of each SOP Instance UID at a time, and reads ahead within a budget in bytes.
What cannot be placed now (`Unavailable`) is held and tried again while others go on. What a scratch disk has spoiled
ends the process: the next reads it from the log again, for no reader goes back. An error that is nobody's but
ours ends the process without a checkpoint; the upload in hand stays marked, and when it has taken the process with it
often enough it goes on with less done to it.
Questions of storage commitment in the log are for `fences`.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

import structlog

from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.records import Kind, Outcome, Place
from ingest.contract.settings import WorkerSettings
from workers.commits import Commits
from workers.errors import Spoiled, Unavailable
from workers.fences import Fences
from workers.log.checkpoint import CheckpointWriter, Progress
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.fence import Fence
from workers.log.in_hand import Marks
from workers.log.reader import Reader
from workers.log.reassembly import Reassembler
from workers.log.scratch import ScratchFolder
from workers.log.upload import Upload
from workers.partition import OwnedPartition
from workers.pipeline import Tries
from workers.turns import Turns
from workers.unsettled import Unsettled

# The codec, in a process of its own, sets the pace; the others read, prove and write meanwhile.
UPLOADS_AT_ONCE: Final = 4
LONGEST_RETRY: Final = 60.0  # seconds between two tries of one upload
# Seconds, beyond `worker.stop_timeout`; a thread that writes to a disk by then is waited for.
LAST_COMMIT: Final = 5.0
LOOKS: Final = 16  # for uploads that wait in vain, within the time after which one does
RETRY_AFTER: Final = 1.0  # seconds, where the system only says that it cannot now

logger = structlog.get_logger(__name__)


class Placer(Protocol):
    """The pipeline, as the worker sees it."""

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        """Bring an upload to its place, durably.

        Raises:
            Unavailable: not now.
            Spoiled: only if another process reads it from the log anew.
        """
        ...


class _Dropped(NamedTuple):
    """A partition that is gone, and its tasks, which end in a moment."""

    partition: OwnedPartition
    tasks: Sequence[asyncio.Task[bool | None]]


class Worker:
    """The loops of one process; `run` ends after `stop`, or with an error that only a restart can mend."""

    def __init__(
        self,
        settings: WorkerSettings,
        partitions: Sequence[OwnedPartition],
        *,
        checkpoints: CheckpointWriter,
        reader: Reader,
        scratch: ScratchFolder,
        pipeline: Placer,
        fences: Fences,
        expire_after: float = math.inf,
        stray_after: float = math.inf,
    ) -> None:
        """``partitions``: those that it owns from the start; `add` and `drop` change them.

        ``expire_after``, ``stray_after``: see `Reassembler`.
        """
        self._settings = settings
        self._reader = reader
        self._scratch = scratch
        self._pipeline = pipeline
        self._fences = fences
        self._partitions: dict[int, OwnedPartition] = {}
        self._progress: dict[int, Progress] = {}
        # Where each ended when it came; infinite while that is not known.
        self._taken_at: dict[int, float] = {}
        self._expire_after = expire_after
        self._looked = 0.0  # when we last looked for uploads that wait in vain
        self._reassembler = Reassembler(
            self._progress, scratch, settings.memory_limit, expire_after, stray_after
        )
        self._changes: deque[OwnedPartition | _Dropped] = deque()  # to be taken note of before the next entry
        self._turns = Turns(UPLOADS_AT_ONCE)
        self._left = asyncio.Event()  # an upload or fence has gone, or a partition has come or gone
        self.unsettled = Unsettled(self._left)
        self._commits = Commits(self._partitions, self.unsettled, checkpoints, settings.checkpoint_interval)
        self._probing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._blamed: list[tuple[Exception, Upload]] = []  # the error that ends us, and what was in hand then
        for partition in partitions:
            self.add(partition)

    def add(self, partition: OwnedPartition) -> None:
        """Own a partition from now on; its entries may follow at once."""
        assert partition.number not in self._partitions
        self._partitions[partition.number] = partition
        self._progress[partition.number] = partition.progress
        self._changes.append(partition)
        self._left.set()

    def drop(self, number: int) -> None:
        """A partition is another's now: work on it ends, and nothing of it is committed any more."""
        partition = self._partitions.pop(number)
        del self._progress[number]
        self._taken_at.pop(number, None)
        partition.progress.abandon()
        tasks = [*self.unsettled.of(partition), *self._fences.of(partition.progress)]
        for task in tasks:
            task.cancel()
        self._changes.append(_Dropped(partition, tasks))
        self._left.set()

    def stop(self) -> None:
        """Finish what is in work, checkpoint and end."""
        self._stopping.set()

    def blamed(self, error: Exception) -> Upload | None:
        """What was in hand when this error ended us; not all errors can be keys, as Kafka's."""
        return next((upload for ours, upload in self._blamed if ours is error), None)

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            Exception: a defect, or a log that cannot be read or announced to.
        """
        await self._take_note()
        logger.info("worker started", partitions=len(self._partitions))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._commits.run())
            await self._read(group)
            await self._drain()
        with contextlib.suppress(TimeoutError):  # what is not committed is repeated
            async with asyncio.timeout(LAST_COMMIT):
                await self._commits.commit()

    async def _take_note(self) -> None:
        """Make ready for partitions that have come, and clean up after those that have gone, in their order."""
        come: list[OwnedPartition] = []
        while self._changes:
            change = self._changes.popleft()
            if isinstance(change, _Dropped):
                if change.tasks:
                    await asyncio.wait(change.tasks)
                self._reassembler.forget(change.partition.number)
                try:
                    self._scratch.empty(change.partition.number)
                except OSError as error:
                    logger.warning("scratch is unavailable", errno=error.errno)
                continue
            change.progress.attempt(change.in_hand.left)
            while change.in_hand.left and not await self._commits.commit():
                await self._pause(RETRY_AFTER)
                if self._stopping.is_set():
                    return
            change.in_hand.clear_left()  # only now that the attempts are durable
            come.append(change)
        # Together, as a question to Kafka waits for the poller's turn.
        await asyncio.gather(*map(self._note_end, come))

    async def _note_end(self, partition: OwnedPartition) -> None:
        """Until it is known, or where the log does not answer, everything there may have been placed before."""
        try:
            end = await self._reader.end_of(partition.number)
        except Unavailable:
            return
        if self._owns(partition):
            self._taken_at[partition.number] = end

    async def _read(self, group: asyncio.TaskGroup) -> None:
        """Read and reassemble until stopped, no further ahead than the budget allows."""
        while not self._stopping.is_set():
            await self._take_note()
            if self._is_full():
                self._left.clear()
                await self._until_stopping(self._left.wait())
                continue
            entries = [(self._partitions.get(entry.partition), entry) for entry in await self._entries()]
            for owner, entry in entries:
                await self._take_note()
                if owner is None or not self._owns(owner):
                    continue
                uploads = await self._reassembled(entry, owner)
                if uploads is None:
                    return  # so that nothing counts as read that was not
                fences = self._reassembler.take_fences()
                if isinstance(entry, LogRecord) and entry.record.kind is Kind.PART:
                    reach(Failpoint.PART_READ)
                if self._owns(owner):
                    self._begin(group, owner, uploads)
                    self._begin_fences(group, owner, fences)
            for number, partition in self._partitions.items():
                partition.progress.read_up_to(self._reader.read_to(number))
            await self._expire(group)
            self._report_passed_over()
            await asyncio.sleep(0)  # entries in plenty must not keep the others waiting

    async def _expire(self, group: asyncio.TaskGroup) -> None:
        """Where a partition was read to its end, end the uploads that wait in vain."""
        now = time.monotonic()
        if now - self._looked < self._expire_after / LOOKS:
            return
        self._looked = now
        for partition in list(self._partitions.values()):
            number = partition.number
            if now - self._reassembler.waits_since(number) <= self._expire_after:
                continue
            try:
                end = await self._reader.end_of(number)
                if not self._owns(partition) or end > partition.progress.read_to:
                    continue
                uploads = await self._reassembler.expire(number, now)
            except (Unavailable, OSError) as error:
                logger.warning("uploads without an end are left for now", reason=str(error))
                return
            if self._owns(partition):
                self._begin(group, partition, uploads)

    def _owns(self, partition: OwnedPartition) -> bool:
        """Whether it is still this very one, not given back and got again meanwhile."""
        return self._partitions.get(partition.number) is partition

    def _begin(self, group: asyncio.TaskGroup, partition: OwnedPartition, uploads: Sequence[Upload]) -> None:
        taken_at = self._taken_at.get(partition.number, math.inf)
        for found in uploads:
            upload = replace(found, replayed=found.end_position <= taken_at)
            task = group.create_task(self._place(upload, partition))
            self.unsettled.begin(task, upload, partition)

    def _begin_fences(
        self, group: asyncio.TaskGroup, partition: OwnedPartition, fences: Sequence[Fence]
    ) -> None:
        for fence in fences:
            task = self._fences.begin(group, fence, partition.progress, self.unsettled.of(partition))
            task.add_done_callback(lambda _: self._left.set())

    async def _entries(self) -> Sequence[Entry]:
        """What the log has next; after a while nothing."""
        try:
            entries = self._reader.read()
        except OSError as error:
            logger.warning("log cannot be read", errno=error.errno)
            await self._pause(RETRY_AFTER)
            return ()
        if not entries:
            await self._until_stopping(self._reader.wait(self._settings.checkpoint_interval))
        return entries

    def _is_full(self) -> bool:
        settings = self._settings
        return (
            self.unsettled.are_full(
                memory=settings.memory_limit, waiting=settings.waiting_uploads, files=UPLOADS_AT_ONCE
            )
            or self._fences.is_full
            or any(partition.progress.is_full for partition in self._partitions.values())
        )

    async def _reassembled(self, entry: Entry, owner: OwnedPartition) -> list[Upload] | None:
        """The uploads that an entry completes; None when stopped before the scratch folder had room.

        An entry whose partition goes meanwhile is the next owner's: it must not count as read in his account.
        """
        if isinstance(entry, DamagedRecord):
            logger.error("damage in the log", partition=entry.partition, position=entry.position)
        while True:
            try:
                return await self._reassembler.add(entry, time.monotonic())
            except OSError as error:
                logger.warning("scratch is unavailable", errno=error.errno)
            await self._pause(RETRY_AFTER)
            if self._stopping.is_set():
                return None
            if not self._owns(owner):
                return []

    def _report_passed_over(self) -> None:
        if self._reassembler.orphans:
            logger.info("uploads without an end dropped", count=self._reassembler.orphans)
            self._reassembler.orphans = 0
        if self._reassembler.late:
            logger.warning(
                "records of uploads that had been given up passed over", count=self._reassembler.late
            )
            self._reassembler.late = 0
        if self._reassembler.unreadable:
            logger.error(
                "damaged questions of storage commitment passed over", count=self._reassembler.unreadable
            )
            self._reassembler.unreadable = 0

    async def _place(self, upload: Upload, partition: OwnedPartition) -> bool:
        """Take one upload to its place, in its turn; False when stopping, which leaves it to the next start."""
        uid = upload.instance.sop_instance_uid

        async def put_by() -> None:
            nonlocal upload
            upload = await self._put_by_for_now(upload)

        async with self._turns.of(uid, put_by):
            outcome = await self._try(upload, partition)
            retry_after = outcome.retry_after if isinstance(outcome, Unavailable) else 0.0
            if isinstance(outcome, Unavailable):  # said once: thousands may wait, and try again every minute
                logger.warning("upload held", **upload.facts, partition=upload.partition, reason=str(outcome))
                self._turns.stall(uid)
            while isinstance(outcome, Unavailable):
                upload = await self._put_by_for_now(upload)  # from here on nobody holds its bytes
                upload = replace(upload, replayed=True)
                await self._pause(max(retry_after, outcome.retry_after))
                retry_after = min(2 * retry_after, LONGEST_RETRY)
                async with self._probing:  # one at a time, so that those that wait leave room for the others
                    outcome = await self._try(upload, partition)
        if outcome is None:
            return False
        partition.progress.settle(upload.upload_id, outcome)
        if outcome.place in (Place.CONFLICT, Place.QUARANTINED):
            logger.warning(
                "upload set apart",
                **upload.facts,
                place=outcome.place,
                reason=outcome.reason,
                source_digest=outcome.source_digest,
                calling_ae_title=outcome.calling_ae_title,
            )
        await self._reassembler.release(upload)
        self._commits.settled()
        return True

    async def _try(self, upload: Upload, partition: OwnedPartition) -> Outcome | Unavailable | None:
        """One try in a slot; None when stopping."""
        async with self._turns.slot(alone=partition.in_hand.is_suspect(upload.upload_id)):
            if self._stopping.is_set():
                return None
            try:
                with _marked(partition.in_hand, upload) as needs_commit:
                    if needs_commit:
                        await self._commit_mark()
                    return await self._pipeline.place(upload, partition.tries(upload))
            except Unavailable as error:
                # Anew, without the frames that it has come through: they hold the bytes of the upload, which is
                # put by so that they are not held.
                return Unavailable(str(error), error.retry_after)
            except Exception as error:
                self._blamed.append((error, upload))
                if isinstance(error, Spoiled):
                    partition.tries(upload).failed()
                    await self._commits.commit()  # what cannot be committed now may end one more process
                raise

    async def _commit_mark(self) -> None:
        if not await self._commits.commit():
            raise Unavailable("the mark on a suspect cannot be committed", RETRY_AFTER)

    async def _put_by_for_now(self, upload: Upload) -> Upload:
        """The same upload, which is to wait for the world, out of memory and out of the others' way.

        On a disk without room for that, nothing more is read: what the log still holds must not take the
        last bytes of the store before this one, which keeps the log from giving space back.
        """
        task = asyncio.current_task()
        assert task is not None
        try:
            upload = await self._reassembler.put_by(upload)
        except OSError:
            self.unsettled.keep(task)
        else:
            self.unsettled.put_by(task)
        self._commits.await_idleness()
        return upload

    async def _drain(self) -> None:
        """What is in work may end within the deadline; the rest is the next start's, and so are fences."""
        self._fences.leave()
        tasks = self.unsettled.tasks()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._settings.stop_timeout)
            for task in late:
                task.cancel()
        self._commits.end()

    async def _pause(self, seconds: float) -> None:
        """Of thousands that wait at once, so without a task for each."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _until_stopping(self, wait: Coroutine[None, None, object]) -> None:
        """Wait, but no longer than until `stop`."""
        waits = {asyncio.ensure_future(wait), asyncio.ensure_future(self._stopping.wait())}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in waits:
                one.cancel()


@contextlib.contextmanager
def _marked(in_hand: Marks, upload: Upload) -> Iterator[bool]:
    """Mark work on an upload, so that it is known if the process does not survive it; see `Marks.mark`."""
    needs_commit = in_hand.mark(upload.upload_id)
    try:
        yield needs_commit
    except (Unavailable, Spoiled, asyncio.CancelledError):
        in_hand.clear(upload.upload_id)
        raise
    in_hand.clear(upload.upload_id)  # not after any other error: it ends the process
