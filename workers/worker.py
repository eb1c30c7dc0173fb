"""One worker process: read the log, place each upload by the pipeline, announce, checkpoint.

A worker owns partitions. It keeps a few uploads in work, one of each SOP Instance UID at a time, and reads
ahead within a budget in bytes. What cannot be placed now (`Unavailable`) is held and tried again while
others go on. An error that is nobody's but ours ends the process without a checkpoint; the upload in hand
stays marked, and when it has taken the process with it often enough it goes on with less done to it.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.records import Outcome, Place
from ingest.contract.settings import WorkerSettings
from workers.errors import Unavailable
from workers.log.checkpoint import Announcer, Progress, commit, write_to
from workers.log.entries import DamagedRecord, Entry
from workers.log.in_hand import InHand
from workers.log.reassembly import Reassembler, Scratch, Upload
from workers.pipeline import Tries
from workers.turns import Turns

# The codec, in a process of its own, sets the pace; the others read, prove and write meanwhile.
UPLOADS_AT_ONCE: Final = 4
UPLOADS_AHEAD: Final = 256  # completed uploads in memory, whatever their size
UPLOADS_PUT_BY: Final = 1024  # that wait for a store, in scratch files; beyond, all wait
DONE_AT_MOST: Final = 50_000  # uploads done above a low-water mark that one upload holds; a megabyte or two
LONGEST_RETRY: Final = 60.0  # seconds between two tries of one upload
COMMIT_AFTER: Final = 512  # settled uploads that do not wait for the timer
RETRY_AFTER: Final = 1.0  # seconds, where the system only says that it cannot now

_log = structlog.get_logger()


class Reader(Protocol):
    """The log, read for several partitions at once, each from where its checkpoint says."""

    @property
    def position(self) -> int:
        """Everything below was read, in all of these partitions."""
        ...

    def read(self) -> Sequence[Entry]:
        """Some further entries; none when there are none.

        Raises:
            OSError: the disk's; the next read tries the same again.
        """
        ...

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on idleness, not on an operation
        """Return when there may be more, at the latest after ``timeout`` seconds."""
        ...


class Placer(Protocol):
    """The pipeline, as the worker sees it."""

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        """Bring an upload to its place, durably.

        Raises:
            Unavailable: not now.
        """
        ...


@dataclass(frozen=True)
class OwnedPartition:
    """What a worker has of one partition."""

    progress: Progress
    in_hand: InHand
    outcomes: Announcer


@dataclass(frozen=True)
class _Tries:
    """`Tries` of one upload, kept in its partition's checkpoint."""

    upload: Upload
    progress: Progress

    @property
    def count(self) -> int:
        return self.progress.attempts(self.upload.upload_id)

    def failed(self) -> None:
        self.progress.attempt([self.upload.upload_id])


class Worker:
    """The loops of one process; `run` ends after `stop`, or with an error that only a restart can mend."""

    def __init__(
        self,
        settings: WorkerSettings,
        partitions: Mapping[int, OwnedPartition],
        *,
        checkpoints: Path,
        reader: Reader,
        scratch: Scratch,
        pipeline: Placer,
    ) -> None:
        """``checkpoints``: the folder of checkpoint files."""
        self._settings = settings
        self._checkpoints = checkpoints
        self._partitions = partitions
        self._reader = reader
        self._pipeline = pipeline
        progress = {number: partition.progress for number, partition in partitions.items()}
        self._reassembler = Reassembler(progress, scratch, settings.memory_limit)
        self._turns = Turns(UPLOADS_AT_ONCE)
        self._uploads: dict[asyncio.Task[None], Upload] = {}  # completed and not yet settled
        self._put_by: set[asyncio.Task[None]] = set()  # those that wait for the world
        self._kept: set[asyncio.Task[None]] = set()  # those that must do so in memory, so short is the disk
        self._left = asyncio.Event()  # one of either has gone
        self._probing = asyncio.Lock()
        self._due = asyncio.Event()  # a commit should not wait for the timer
        self._stopping = asyncio.Event()
        self._drained = False
        self._settled = 0  # since the last commit

    def stop(self) -> None:
        """Finish what is in work, checkpoint and end."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            Exception: a defect, or a log that cannot be read or announced to.
        """
        for partition in self._partitions.values():
            partition.progress.attempt(partition.in_hand.left)
        await self._commit()
        for partition in self._partitions.values():  # only now that the attempts are durable
            partition.in_hand.clear_left()
        _log.info("worker started", partitions=len(self._partitions))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._commit_regularly())
            await self._read(group)
            await self._drain()
        await self._commit()

    async def _read(self, group: asyncio.TaskGroup) -> None:
        """Read and reassemble until stopped, no further ahead than the budget allows."""
        while not self._stopping.is_set():
            if self._is_full():
                self._left.clear()
                await self._until_stopping(self._left.wait())
                continue
            for entry in await self._entries():
                uploads = await self._reassembled(entry)
                if uploads is None:
                    return  # so that nothing counts as read that was not
                for upload in uploads:
                    task = group.create_task(self._place(upload))
                    self._uploads[task] = upload
                    task.add_done_callback(self._gone)
            for partition in self._partitions.values():
                partition.progress.read_up_to(self._reader.position)
            self._report_orphans()
            await asyncio.sleep(0)  # entries in plenty must not keep the others waiting

    async def _entries(self) -> Sequence[Entry]:
        """What the log has next; after a while nothing."""
        try:
            entries = self._reader.read()
        except OSError as error:
            _log.warning("log cannot be read", errno=error.errno)
            await self._pause(RETRY_AFTER)
            return ()
        if not entries:
            await self._until_stopping(self._reader.wait(self._settings.checkpoint_interval))
        return entries

    def _is_full(self) -> bool:
        uploads = self._uploads.values()
        return (
            len(uploads) >= UPLOADS_AHEAD
            or sum(upload.held for upload in uploads) >= self._settings.memory_limit
            or sum(bool(upload.file) for upload in uploads) >= UPLOADS_AT_ONCE
            or len(self._put_by) >= UPLOADS_PUT_BY
            or bool(self._kept)
            or any(partition.progress.done >= DONE_AT_MOST for partition in self._partitions.values())
        )

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._uploads.pop(task, None)
        self._put_by.discard(task)
        self._kept.discard(task)
        self._left.set()

    async def _reassembled(self, entry: Entry) -> list[Upload] | None:
        """The uploads that an entry completes; None when stopped before the scratch folder had room."""
        if isinstance(entry, DamagedRecord):
            _log.error("damage in the log", partition=entry.partition, position=entry.position)
        while True:
            try:
                return await self._reassembler.add(entry)
            except OSError as error:
                _log.warning("scratch is unavailable", errno=error.errno)
            await self._pause(RETRY_AFTER)
            if self._stopping.is_set():
                return None

    def _report_orphans(self) -> None:
        if self._reassembler.orphans:
            _log.info("uploads without an end dropped", count=self._reassembler.orphans)
            self._reassembler.orphans = 0

    async def _place(self, upload: Upload) -> None:
        """Take one upload to its place, in its turn; leaves it to the next start when stopping."""
        partition = self._partitions[upload.partition]
        async with self._turns.of(upload.instance.sop_instance_uid):
            outcome = await self._try(upload, partition)
            retry_after = outcome.retry_after if isinstance(outcome, Unavailable) else 0.0
            while isinstance(outcome, Unavailable):
                _log.warning("upload held", partition=upload.partition, reason=str(outcome))
                upload = await self._wait_with(upload, max(retry_after, outcome.retry_after))
                retry_after = min(2 * retry_after, LONGEST_RETRY)
                async with self._probing:  # one at a time, so that those that wait leave room for the others
                    outcome = await self._try(upload, partition)
        if outcome is None:
            return
        partition.progress.settle(upload.upload_id, outcome)
        if outcome.place in (Place.CONFLICT, Place.QUARANTINED):
            _log.warning(
                "upload set apart",
                place=outcome.place,
                reason=outcome.reason,
                sop_instance_uid=outcome.sop_instance_uid,
            )
        await self._reassembler.release(upload)
        self._settled += 1
        if self._settled >= COMMIT_AFTER:
            self._due.set()

    async def _try(self, upload: Upload, partition: OwnedPartition) -> Outcome | Unavailable | None:
        """One try in a slot; None when stopping."""
        alone = upload.upload_id in partition.in_hand.left
        async with self._turns.slot(alone=alone):
            if self._stopping.is_set():
                return None
            try:
                with _marked(partition.in_hand, upload):
                    return await self._pipeline.place(upload, _Tries(upload, partition.progress))
            except Unavailable as error:
                return error

    async def _wait_with(self, upload: Upload, seconds: float) -> Upload:
        """Wait for the world with an upload, out of memory and out of the others' way.

        On a disk without room for that, nothing more is read: what the log still holds must not take the
        last bytes of the store before this one, which keeps the log from giving space back.
        """
        task = asyncio.current_task()
        assert task is not None
        try:
            upload = await self._reassembler.put_by(upload)
        except OSError:
            self._kept.add(task)
        else:
            self._uploads.pop(task, None)
            self._kept.discard(task)
            self._put_by.add(task)
            self._left.set()
        await self._pause(seconds)
        return upload

    async def _commit_regularly(self) -> None:
        while not self._drained:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.checkpoint_interval):
                    await self._due.wait()
            self._due.clear()
            self._settled = 0
            await self._commit()

    async def _commit(self) -> None:
        accounts = [(partition.progress, partition.outcomes) for partition in self._partitions.values()]
        try:
            await commit(accounts, self._write)
        except Unavailable as error:
            _log.warning("checkpoint put off", reason=str(error))

    async def _write(self, checkpoints: Sequence[Checkpoint]) -> None:
        try:
            await write_to(self._checkpoints, checkpoints)
        except OSError as error:
            raise Unavailable(f"checkpoint: {error.strerror}", RETRY_AFTER) from error

    async def _drain(self) -> None:
        """What is in work may end within the deadline; the rest is the next start's."""
        tasks = self._uploads.keys() | self._put_by
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._settings.stop_timeout)
            for task in late:
                task.cancel()
        self._drained = True
        self._due.set()

    async def _pause(self, seconds: float) -> None:
        await self._until_stopping(asyncio.sleep(seconds))

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
def _marked(in_hand: InHand, upload: Upload) -> Iterator[None]:
    """Mark work on an upload, so that it is known if the process does not survive it."""
    in_hand.mark(upload.upload_id)
    try:
        yield
    except (Unavailable, asyncio.CancelledError):
        in_hand.clear(upload.upload_id)
        raise
    in_hand.clear(upload.upload_id)  # not after any other error: it ends the process
