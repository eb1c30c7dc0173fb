"""The log on one machine: whatever waits is one group and one sync, in a thread of its own.

Steps of a group: 1. each record hashed and appended, 2. synced, 3. its end published to readers, 4. its publishers
told. So a reader never sees what a power cut can take back, and a publisher never hears of what is not durable.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Final

import structlog

from ingest.contract.identifiers import UploadId
from ingest.contract.records import KIND_AT, UPLOAD_ID_AT, Kind, encode_header
from ingest.contract.settings import Settings
from ingest.contract.spool import (
    NO_SPACE,
    Appended,
    Disk,
    Layout,
    OsDisk,
    PoolLimits,
    Recovered,
    SegmentLog,
    SegmentPool,
    SpoolError,
    SpoolFull,
    SpoolLocked,
    SyncFailed,
    WakeUps,
    WriteFailed,
    make_log,
    open_log,
)
from ingest.errors import IngestError, LogUnavailable, OutOfResources
from ingest.instance import Header
from ingest.log.epoch import next_epoch
from ingest.log.marks import committed_end, read_marks
from ingest.log.partitions import agree_on_partitions
from ingest.log.segment_supply import SegmentSupply

logger = structlog.get_logger(__name__)

# A full log may be drained within the patience of a peer; past it, A700H lets the peer decide.
FULL_PATIENCE: Final = 5.0  # s
_AFTER_ERROR: Final = 0.1  # s, so that a failing disk does not make a busy loop
# A group of one is written in the publisher's own thread when nobody else could use the time: two thread
# hops cost a quarter of a sync on a fast disk. After one slower than this it is not, for a multiple of what that
# one took: a quick disk, which has a slow sync now and then as all have, loses little by it, and a slow one, whose
# every group begins the pause anew, stops the event loop no second time.
_QUICK: Final = 2e-3  # s, write and sync
_SLOW_PAUSE: Final = 10  # times what it took
_ERROR_PAUSE: Final = 1.0  # s, after a group that could not be written
_INCOMPLETE: Final = 1024  # uploads remembered: more than can have records on their way at once
_GROUP_GATHER: Final = 512  # records looked at for one group; a group holds fewer

_Published = tuple[int, Header, Sequence[memoryview], "asyncio.Future[None]"]
_Waiting = tuple[Appended, "asyncio.Future[None] | None"]


class SpoolWriter:
    """Publishes records to the spool in ``settings.data``. Owned by one event loop."""

    def __init__(
        self, settings: Settings, disk: Disk | None = None, *, patience: float = FULL_PATIENCE
    ) -> None:
        self._settings = settings.log
        self._disk = disk or OsDisk()
        self._layout = Layout(settings.data / "spool")
        self._checkpoints = settings.data / "checkpoints"
        self._patience = patience
        self._queue: SimpleQueue[_Published | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._started = threading.Event()
        self._resources = ExitStack()
        self._refusal: str | None = "the log is not open"
        # Uploads that lost a record: an END already on its way must not seal what has a hole.
        self._incomplete: dict[bytes, None] = {}
        self._writing = threading.Lock()  # held by whoever writes a group
        self._waking = threading.Lock()  # and by whoever wakes its readers
        self._on_their_way = 0  # records published and not yet answered; the event loop's thread alone counts
        self._closing = False
        self._ready = False  # the start is in every partition
        self._slow_until = 0.0
        self.publishers = 2  # how many may publish; whoever knows that there is one only says so
        self.epoch = 0
        self.receiver_id = 0

    @property
    def partitions(self) -> int:
        """How many partitions the log has."""
        return self._settings.partitions

    @property
    def failed(self) -> asyncio.Future[Exception]:
        """Done when a sync has failed: nothing can be acknowledged any more, and the process must end."""
        return self._failed

    def congested(self, *, full: bool) -> bool:  # noqa: ARG002 - the log's interface
        """Whether a new association would only wait: a disk is slow or it has failed, but it is never away."""
        return False

    @property
    def durable_end(self) -> int:
        """The position up to which everything is durable, and readers may read."""
        return self._log.durable_end

    def refusal(self) -> str | None:
        """Why no new instance should be taken now; None when there is room."""
        return self._refusal or self._supply.refusal

    async def start(self) -> None:
        """Recover the log and open it. Done when the start is in every partition, or the log turns out full.

        Raises:
            SpoolLocked, SpoolMismatch: see `ingest.contract.spool.errors`.
            OSError: the file system's.
        """
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        await asyncio.to_thread(self._open)
        self._refusal = None
        self._thread.start()
        await asyncio.to_thread(self._started.wait)

    def publish(self, partition: int, header: Header, payload: Sequence[memoryview]) -> asyncio.Future[None]:
        """Append one record: ``header`` of `records.encode_header`, or what makes it, and the payload it is for.

        The future is done when the record is durable; only then, whoever waits for it, may the payload's
        buffers be used again. It fails with OutOfResources when there is no room, with LogUnavailable when
        the log cannot tell any more what is durable. To be called from the event loop's thread.
        """
        future = self._loop.create_future()
        if self._refusal is not None:
            future.set_exception(LogUnavailable(self._refusal))
            return future
        self._on_their_way += 1
        published = partition, header, payload, future
        if not self._written_here(published):
            self._queue.put(published)
        return future

    def _written_here(self, published: _Published) -> bool:
        """Write a record in the event loop's thread, if it is the only one and the disk is quick."""
        if self.publishers > 1 or self._on_their_way > 1 or not self._ready:
            return False
        if time.monotonic() < self._slow_until or not self._writing.acquire(blocking=False):
            return False
        try:
            self._write_alone(published)
        except Exception as error:
            logger.exception("the log has ended")
            self._end(error, [published[-1]])
        finally:
            self._writing.release()
        return True

    def _write_alone(self, published: _Published) -> None:
        item = self._made(published)
        if item is None:
            return
        record, _ = item
        if self._log.fits(record):
            group = self._write_group(deque([item]))
            self._settle([future for _, future in group if future is not None], None)
            self._loop.call_soon(self._wake, group)  # readers are in less of a hurry than the publisher
        else:  # a new segment may have to be waited for; the header is made once, as the seal has its payload
            self._queue.put((record.partition, record.header, record.payload, published[-1]))

    async def close(self) -> None:
        """Write what waits, and close the log."""
        self._refusal = self._refusal or "the log is closed"
        self._queue.put(None)
        if self._thread.ident is not None:  # it was started
            await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # the last futures are set by a callback of this loop
        await asyncio.to_thread(self._resources.close)

    def _open(self) -> None:
        with ExitStack() as resources:
            self._disk.make_folder(self._layout.folder)
            lock = self._disk.lock(self._layout.lock)
            if lock is None:
                raise SpoolLocked(f"another receiver writes to {self._layout.folder}")
            resources.callback(self._disk.close, lock)
            log, pool = self._recover()
            resources.callback(log.close)
            self.epoch = next_epoch(self._disk, self._layout, time.time_ns())
            self.receiver_id = log.meta.receiver_id
            self._wake_ups = WakeUps(self._layout, self.partitions)
            resources.callback(self._wake_ups.close)
            self._log = log
            self._supply = SegmentSupply(pool, log.segment + 1)
            log.take_segment = self._take_segment
            self._supply.start()
            resources.callback(self._supply.close)
            self._resources = resources.pop_all()

    def _recover(self) -> tuple[SegmentLog, SegmentPool]:
        settings = self._settings
        limits = PoolLimits(settings.segment_size, settings.maximum_size, settings.reserve)
        meta = make_log(self._disk, self._layout, settings.partitions, limits)
        checkpoints = read_marks(self._checkpoints, meta.partitions)
        log, pool, recovered = open_log(
            self._disk,
            self._layout,
            meta,
            limits,
            low_water_mark=self._low_water_mark,
            committed=committed_end(checkpoints),
        )
        _report(recovered)
        try:
            agree_on_partitions(
                self._disk,
                self._layout,
                meta,
                wanted=self.partitions,
                end=recovered.end,
                checkpoints=checkpoints,
            )
        except BaseException:
            log.close()
            raise
        return log, pool

    def _low_water_mark(self) -> int:
        marks = read_marks(self._checkpoints, self._settings.partitions)
        return min(checkpoint.low_water_mark for checkpoint in marks)

    def _take_segment(self, number: int) -> int:
        return self._supply.take(number, self._patience)

    def _run(self) -> None:
        """The writer's thread; a defect in it ends the process, since nobody may wait for a thread that is gone."""
        waiting: deque[_Waiting] = deque((record, None) for record in self._epoch_records())
        try:
            self._write_groups(waiting)
        except Exception as error:
            logger.exception("the log has ended")
            self._refusal = "the log has failed"  # before the queue is emptied, so that nothing comes behind
            left = [future for _, future in waiting if future is not None]
            while not self._queue.empty():
                item = self._queue.get()
                left += [item[-1]] if item is not None else []
            self._end(error, left)

    def _end(self, error: Exception, futures: list[asyncio.Future[None]]) -> None:
        """After a defect nobody knows what is durable: refuse, and let the process end."""
        self._refusal = "the log has failed"
        self._call(self._fail, SpoolError(f"the log has ended: {error}"))
        self._tell(futures, LogUnavailable(self._refusal))
        self._started.set()

    def _write_groups(self, waiting: deque[_Waiting]) -> None:
        while True:
            while not waiting and not self._closing:
                self._take(waiting)
            if not waiting:
                break
            with self._writing:
                group = self._write_group(waiting)
            if group:
                self._tell([future for _, future in group if future is not None], None)
                self._wake(group)
            else:
                time.sleep(_AFTER_ERROR)
                if self._closing:
                    break
        self._started.set()

    def _epoch_records(self) -> list[Appended]:
        """Uploads of older starts that have no end are dead from here on, in every partition."""
        header = encode_header(Kind.EPOCH, UploadId.of(self.receiver_id, self.epoch, 0))
        return [Appended(partition, header, ()) for partition in range(self.partitions)]

    def _records(self, waiting: deque[_Waiting]) -> Iterator[Appended]:
        """What waits, and all that is published meanwhile: hashed just before it is written, and so read from the cache."""
        for record, _ in tuple(waiting):
            yield record
        while not self._closing and len(waiting) < _GROUP_GATHER and not self._queue.empty():
            if self._take(waiting):
                yield waiting[-1][0]

    def _take(self, waiting: deque[_Waiting]) -> bool:
        """Take one that is published, or wait for it; whether there is one more to write."""
        item = self._queue.get()
        if item is None:
            self._closing = True
            return False
        try:
            made = self._made(item)
        except Exception:
            self._tell([item[-1]], LogUnavailable("the log has failed"))  # it waits nowhere any more
            raise
        if made is not None:
            waiting.append(made)
        return made is not None

    def _made(self, published: _Published) -> _Waiting | None:
        """The record with its header; None when it is refused, since its upload has lost another."""
        partition, header, payload, future = published
        record = Appended(partition, header if isinstance(header, bytes) else header(), payload)
        if record.header[UPLOAD_ID_AT] in self._incomplete and record.header[KIND_AT] != Kind.ABORT:
            self._tell([future], LogUnavailable("the log has lost a part of the instance"))
            return None
        return record, future

    def _wake(self, group: Sequence[_Waiting]) -> None:
        with self._waking:
            self._wake_ups.wake({record.partition for record, _ in group})

    def _write_group(self, waiting: deque[_Waiting]) -> list[_Waiting]:
        """Make the first records durable and return them; when they could not be written none, and all are told."""
        log = self._log
        begun = time.monotonic()
        records = self._records(waiting)
        try:
            count = log.append(records)
            log.sync()
        except (SpoolFull, WriteFailed, SyncFailed, OSError) as error:
            deque(records, 0)  # none waits behind those that are refused, for the same again
            self._refuse(waiting, error)
            return []
        ended = time.monotonic()
        if ended - begun > _QUICK:
            self._slow_until = ended + _SLOW_PAUSE * (ended - begun)
        group = [waiting.popleft() for _ in range(count)]
        if not self._ready and all(future is not None for _, future in waiting):
            self._ready = True
        self._started.set()
        return group

    def _refuse(self, waiting: deque[_Waiting], error: Exception) -> None:
        """Tell all that wait; only the start's own records stay, unless the log is broken."""
        futures = [future for _, future in waiting if future is not None]
        own = [item for item in waiting if item[1] is None]
        self._incomplete |= {
            record.header[UPLOAD_ID_AT]: None for record, future in waiting if future is not None
        }
        while len(self._incomplete) > _INCOMPLETE:
            del self._incomplete[next(iter(self._incomplete))]
        waiting.clear()
        if isinstance(error, SyncFailed):
            self._refusal = "the log has failed"
            self._call(self._fail, error)
        else:
            waiting.extend(own)
        if not isinstance(error, SpoolFull):
            logger.error("a group was not written", error=str(error), records=len(futures))
            self._slow_until = time.monotonic() + _ERROR_PAUSE
        self._tell(futures, _published_error(error))
        self._started.set()

    def _tell(self, futures: list[asyncio.Future[None]], error: IngestError | None) -> None:
        self._call(self._settle, futures, error)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _settle(self, futures: list[asyncio.Future[None]], error: IngestError | None) -> None:
        """In the event loop's thread, all at once: one wake-up of the loop for a group."""
        self._on_their_way -= len(futures)
        for future in futures:
            if future.done():  # cancelled by its waiter
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _fail(self, error: SpoolError) -> None:
        if not self._failed.done():
            self._failed.set_result(error)


def _report(recovered: Recovered) -> None:
    logger.info("spool recovered", end=recovered.end)
    for torn in recovered.torn:
        logger.warning("cut off what was never acknowledged", position=torn.position, records=torn.records)
    for damage in recovered.damaged:
        logger.error("acknowledged records are damaged", position=damage.position, end=damage.end)
    if recovered.retired is not None:
        logger.error("retired a segment whose sync had failed", segment=recovered.retired)
    if recovered.skipped_to is not None:
        logger.error("the spool ended before what was settled", end=recovered.end, next=recovered.skipped_to)


def _published_error(error: Exception) -> IngestError:
    cause = error.__cause__ if isinstance(error, WriteFailed) else error
    if isinstance(cause, SpoolFull):
        return OutOfResources(f"log full: {cause}")
    if isinstance(cause, OSError) and cause.errno in NO_SPACE:
        return OutOfResources("no space for the log")
    return LogUnavailable("the log cannot be written")
