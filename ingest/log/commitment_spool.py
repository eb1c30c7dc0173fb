"""The commitment log of one machine: `DIR/commitments/`, written by the receiver alone, in the spool's format.

All that waits is one group, one write, one sync, in a thread. The log is bounded: a request is taken only while there is
room to finish it and all others, in segments that are there (`make_room`); proofs wait while all that is open could not be
carried forward beside them; and small records find what is left then. What workers and administrators left in their folders
(`commitment_handover`) becomes part of it: 1. copied into the log, durably, 2. unlinked. A crash between them
copies it once more, which changes nothing.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import structlog

from ingest.contract.records import Record
from ingest.contract.settings import Settings
from ingest.contract.spool import (
    NO_SPACE,
    Appended,
    OsDisk,
    PoolLimits,
    SegmentLog,
    SegmentPool,
    SpoolFull,
    SpoolLocked,
    SyncFailed,
    WriteFailed,
    make_log,
    open_log,
    write_slot,
)
from ingest.errors import IngestError, LogUnavailable, OutOfResources
from ingest.log.commitment_claimant import Claimant
from ingest.log.commitment_handover import Handover
from ingest.log.commitment_log import Entry, Location, Written
from ingest.log.commitment_segments import SegmentReader, commitment_layout, mark_path, read_mark

logger = structlog.get_logger(__name__)

_SEGMENT: Final = 4 * 1024 * 1024  # bytes; a few transactions of some thousand instances
# Bytes that are kept beside those of open transactions before any is carried forward: so with many open, of what is
# written at most a half is written again. Less where there is no room for it.
_SLACK: Final = 64 * 1024 * 1024
_SHARE: Final = 3
_MARGIN: Final = 3  # segments beside what is promised twice: as it is, and carried forward
_CLOSED_SHARE: Final = 16  # of the log's size at most, for transactions that are over
_CLOSED_SIZE: Final = 160  # bytes
_SMALL: Final = 512  # bytes; what administrators ask for may free room, and always finds some
_LOOK: Final = 0.2  # s between two looks for what was handed over, while transactions are open
_LOOK_IDLE: Final = 0.5  # s
_ONLY: Final = 0  # the number of the log's one partition

_NO_ROOM: Final = "the commitment log has no room until open transactions are carried forward"

_Waiting = tuple[list[Appended], "asyncio.Future[Location]"]


class SpoolCommitmentLog:
    """See `CommitmentLog`."""

    partitions = 1
    shared = False
    carry_every = (1.0, 1.0)  # a small log may fill in seconds
    claimant: Claimant | None = None

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._disk = OsDisk()
        self._layout = commitment_layout(settings.data)
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._fetching = asyncio.Lock()
        self._pool_turn = asyncio.Lock()  # the pool is for one thread at a time
        self._more = asyncio.Event()
        self._failure: IngestError | None = None
        self._mark = self._wanted_mark = 0
        self._handed_out = 0  # all below
        self._resources = ExitStack()
        self._is_crowded = False  # something was refused for want of room
        self.remembers = settings.log.maximum_size // _CLOSED_SHARE // _CLOSED_SIZE
        self.expecting = False
        self.promised = 0
        self.caught_up = False

    async def start(self) -> None:
        """See `CommitmentLog`.

        Raises:
            SpoolLocked, SpoolMismatch: see `ingest.contract.spool.errors`.
            OSError: the file system's.
        """
        await asyncio.to_thread(self._open)
        self._looking = asyncio.create_task(self._look())

    async def publish(self, records: Sequence[Written]) -> Location:
        """See `CommitmentLog`."""
        appended = []
        for record in records:
            header, payload = record.encode()
            appended.append(Appended(_ONLY, header, (payload,) if payload else ()))
        return await self._append(appended)

    async def read(self, timeout: float) -> Sequence[Entry]:  # noqa: ASYNC109 - see `CommitmentLog`
        """See `CommitmentLog`."""
        if self._failure is not None:
            raise self._failure
        self._more.clear()
        if self._reader.position >= self._log.durable_end:
            if not self.caught_up:
                self.caught_up = True
                return ()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._more.wait()
            return ()
        try:
            entries = await asyncio.to_thread(self._reader.read, self._log.durable_end)
        except OSError as error:
            raise LogUnavailable(f"the commitment log cannot be read: {error.strerror}") from None
        self._handed_out = self._reader.position
        self.caught_up = self.caught_up or self._handed_out >= self._end_at_start
        return entries

    def passed(self, location: Location) -> bool:
        """See `CommitmentLog`."""
        return self._handed_out > location.position

    async def fetch(self, location: Location) -> Record:
        """See `CommitmentLog`."""
        async with self._fetching:
            try:
                return await asyncio.to_thread(self._fetcher.fetch, location)
            except OSError as error:
                raise LogUnavailable(f"the commitment log cannot be read: {error.strerror}") from None

    async def make_room(self, size: int, promised: int) -> None:
        """See `CommitmentLog`."""
        needed = 2 * promised + self._margin
        async with self._pool_turn:
            try:
                if self._pool.size < needed:
                    await asyncio.to_thread(self._pool.prepare, needed)
            except (SpoolFull, OSError) as error:
                raise OutOfResources(f"the commitment log has no room: {error}") from None
        if not await self._has_room(size, promised):
            raise OutOfResources(_NO_ROOM)

    async def threshold(self) -> dict[int, int]:
        """See `CommitmentLog`."""
        least = self.promised + 2 * self._log.meta.segment_size  # with less there is nothing to gain
        distance = max(least, await self._distance())
        if self._used <= (least if self._is_crowded else distance):
            return {}
        self._is_crowded = False
        # No more than half, so that what is carried has its effect.
        kept = max(0, distance - self.promised - self._margin // 4) // 2
        return {_ONLY: self._log.durable_end - kept}

    async def _distance(self) -> int:
        """Bytes after which all that is open is carried forward: while there is room for that."""
        wanted = _SLACK + _SHARE * self.promised
        distance = self._pool.size - self.promised - self._margin // 2
        if distance < wanted and self._used > distance:
            distance += await asyncio.to_thread(self._pool.may_grow)
        return min(wanted, distance)

    async def _has_room(self, size: int, promised: int) -> bool:
        """Whether all that is promised can be carried forward after so many bytes more."""
        room = self._pool.size - promised - self._margin // 4 - self._used
        if size > room:
            room += await asyncio.to_thread(self._pool.may_grow)
        self._is_crowded = self._is_crowded or size > room
        return size <= room

    @property
    def _used(self) -> int:
        """Bytes from the first segment that is needed on."""
        segment = self._log.meta.segment_size
        return self._log.durable_end - self._wanted_mark // segment * segment

    def release(self, position: int) -> None:
        """See `CommitmentLog`."""
        self._wanted_mark = max(self._wanted_mark, position)

    async def close(self) -> None:
        """Write what waits, and close the log."""
        self._failure = self._failure or LogUnavailable("the log is closed")
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        if self._writing is not None:
            await self._writing
        self._more.set()
        await asyncio.to_thread(self._resources.close)

    def _open(self) -> None:
        limits = PoolLimits(_SEGMENT, self._settings.log.maximum_size, self._settings.log.reserve)
        with ExitStack() as resources:
            self._disk.make_folder(self._layout.folder)
            lock = self._disk.lock(self._layout.lock)
            if lock is None:
                raise SpoolLocked(f"another receiver writes to {self._layout.folder}")
            resources.callback(self._disk.close, lock)
            meta = make_log(self._disk, self._layout, 1, limits)
            self._mark = self._wanted_mark = read_mark(self._disk, self._layout)
            log, pool, recovered = open_log(
                self._disk,
                self._layout,
                meta,
                limits,
                low_water_mark=self._low_water_mark,
                committed=self._mark,
            )
            resources.callback(log.close)
            self._log: SegmentLog = log
            self._pool: SegmentPool = pool
            self._margin = _MARGIN * meta.segment_size
            for damage in recovered.damaged:
                logger.error("the commitment log is damaged", position=damage.position, end=damage.end)
            self._end_at_start = log.durable_end
            self._reader = SegmentReader(self._disk, self._layout, meta, self._end_at_start)
            resources.callback(self._reader.close)
            self._fetcher = SegmentReader(self._disk, self._layout, meta, self._end_at_start)
            resources.callback(self._fetcher.close)
            self._handover = Handover(self._disk, self._settings.data)
            self._resources = resources.pop_all()

    def _low_water_mark(self) -> int:
        """Called in the writer's thread before a segment is used again: a start reads on from here."""
        if self._wanted_mark > self._mark:
            write_slot(self._disk, mark_path(self._layout), self._wanted_mark)
            self._mark = self._wanted_mark
        return self._mark

    async def _append(self, appended: list[Appended]) -> Location:
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[Location] = asyncio.get_running_loop().create_future()
        self._waiting.append((appended, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await future

    async def _write(self) -> None:
        """Group after group, until nothing waits."""
        while self._waiting:
            group, self._waiting = self._waiting, []
            error: IngestError | None = None
            try:
                async with self._pool_turn:
                    location = await asyncio.to_thread(
                        self._write_group, [record for records, _ in group for record in records]
                    )
            except Exception as problem:  # noqa: BLE001 - whatever it is, all that wait are told
                error = self._told(problem)
            for _, future in group:
                if future.done():  # cancelled by its waiter
                    continue
                if error is None:
                    future.set_result(location)
                else:
                    future.set_exception(error)
            self._more.set()
        self._writing = None

    def _write_group(self, waiting: list[Appended]) -> Location:
        while waiting:
            del waiting[: self._log.append(waiting)]
        return Location(_ONLY, self._log.sync() - 1)

    def _told(self, problem: Exception) -> IngestError:
        """What those who wait are told; after a failed sync, nobody knows what is durable."""
        cause = problem.__cause__ if isinstance(problem, WriteFailed) else problem
        if isinstance(cause, SpoolFull) or (isinstance(cause, OSError) and cause.errno in NO_SPACE):
            return OutOfResources(f"the commitment log has no room: {cause}")
        logger.error("the commitment log was not written", error=str(problem))
        error = LogUnavailable("the commitment log cannot be written")
        if isinstance(problem, SyncFailed) or not isinstance(problem, WriteFailed | OSError):
            self._failure = error
        return error

    async def _look(self) -> None:
        """Take over what others left, again and again."""
        trouble = ""
        while True:
            try:
                taken = await self._take_over()
                trouble = ""
            except Exception as error:  # noqa: BLE001 - a defect must not end it either: all proofs come this way
                if str(error) != trouble:
                    expected = isinstance(error, OSError | IngestError)
                    tell = logger.warning if expected else logger.exception
                    tell("what workers proved is not taken over now", error=str(error))
                taken, trouble = 0, str(error)
            if not taken:
                await asyncio.sleep(_LOOK if self.expecting else _LOOK_IDLE)

    async def _take_over(self) -> int:
        left = await asyncio.to_thread(self._handover.look, self._margin // 4)
        if left and not await self._has_room(sum(len(file.record) for file in left), self.promised):
            left = [file for file in left if len(file.record) <= _SMALL]
            if not left:
                raise OutOfResources(_NO_ROOM)
        if left:
            await self._append([Appended(_ONLY, file.record, ()) for file in left])
            await asyncio.to_thread(self._handover.forget, left)
        return len(left)
