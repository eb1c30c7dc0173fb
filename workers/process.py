"""A worker's process: what it locks and opens, in order, and how it ends."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from ingest.contract.audit import Trail
from ingest.contract.checkpoint import (
    Checkpoint,
    CorruptCheckpoint,
    checkpoint_path,
    has_placed,
    read_checkpoint,
)
from ingest.contract.monitoring.admin import Admin
from ingest.contract.running import announce, withdraw
from ingest.contract.settings import MiB, Settings, WorkerSettings
from ingest.contract.spool import OsDisk, SpoolMissing, effective_reserve
from ingest.contract.spool.pool import NO_SPACE
from ingest.contract.stop_signals import stop_by_signal
from workers.audited import pipeline_of
from workers.errors import Unavailable
from workers.fences import Fences
from workers.log.checkpoint import CheckpointFolder, Progress
from workers.log.choice import local_reader
from workers.log.in_hand import InHand
from workers.log.outcome_producer import OutcomeProducer
from workers.log.proof_files import ProofFiles
from workers.log.reader import Reader
from workers.log.scratch import ScratchFolder
from workers.metrics import measured, show_worker
from workers.partition import OwnedPartition
from workers.pixels.codec import Codec
from workers.stages.prove import Prover, refuse_unprovable, wants_checksums
from workers.storage.in_flight import in_flight
from workers.storage.resolution import finish_resolutions
from workers.storage.stores import Stores, open_stores
from workers.worker import Worker

_AFTER_MISSING: Final = 0.2  # seconds between looks for a log that its receiver has yet to make
# A receiver lets two records of an upload be no further apart than its own limit; twice that, by the log's time.
_GAPS: Final = 2
# As a worker that ended would be started again and again, until its supervisor gave up and nobody received.
_AFTER_FULL: Final = 2.0  # seconds between tries to start on a full disk
_FAILURE: Final = 1
_LEAST_MEMORY: Final = 1 * MiB  # as the setting's own limit

logger = structlog.get_logger(__name__)


async def run_worker(settings: Settings, partitions: Sequence[int]) -> int:
    """Own ``partitions`` of the spool until SIGTERM or SIGINT; returns the exit code.

    Raises:
        SpoolError: another worker has one of them, or the log is not the one of the settings.
        WrongStores: the stores are not those that the shard map names, or one cannot be relied on or give the proof
            that the settings want.
        Unavailable: a bucket does not answer.
        OSError: the file system's, at the start; a full one is waited for.
    """
    refuse_unprovable(settings)
    stop = stop_by_signal()
    while True:
        try:
            return await _run_once(settings, partitions, stop)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            logger.error(  # noqa: TRY400 - of the world; the reason says all
                "no space to start: waiting for some", data=str(settings.data), reason=error.strerror
            )
        if await _stopped_within(stop, _AFTER_FULL):
            return 0


async def _run_once(settings: Settings, partitions: Sequence[int], stop: asyncio.Event) -> int:
    """As `run_worker`, but a full disk is an error: what was opened until then is closed again."""
    async with contextlib.AsyncExitStack() as resources:
        admin = await resources.enter_async_context(Admin(settings, 1 + partitions[0]))
        owned = await _own(settings, partitions, stop, resources)
        if owned is None:
            return 0
        reader, opened = owned
        trail = resources.enter_context(Trail(settings, f"worker-{partitions[0]}"))
        admin.show(trail.instruments)
        tools = await open_tools(settings, stop, resources, partial(_may_be_new, settings.data))
        if tools is None:
            return 0
        stores, codec = tools
        scratch = ScratchFolder(settings.data / "scratch", partitions, settings.log.reserve)
        worker = Worker(
            _within_reserve(settings, len(partitions)),
            list(opened.values()),
            checkpoints=CheckpointFolder(settings.data / "checkpoints"),
            reader=reader,
            scratch=scratch,
            pipeline=measured(
                pipeline_of(stores, codec, settings, scratch.of(partitions[0]), trail), settings, admin
            ),
            fences=Fences(Prover(stores, settings.worker.proofs), ProofFiles(settings.data)),
            stray_after=_GAPS * settings.receiver.stall_timeout,
        )
        file = announce(settings.data, f"worker-{partitions[0]}", partitions=tuple(partitions))
        resources.callback(withdraw, file)
        show_worker(admin, worker, codec, stop)
        return await run_until(stop, worker)


def _within_reserve(settings: Settings, partitions: int) -> WorkerSettings:
    """The worker's settings, its memory no larger than its share of the space that the log leaves to the store.

    What is in memory may be stored in any order, and gives the log nothing to recycle before the oldest of it
    is: with room for all of it, a full log always drains.
    """
    reserve = effective_reserve(settings.log.reserve, OsDisk().space(settings.data).total)
    share = max(reserve * partitions // settings.log.partitions, _LEAST_MEMORY)
    if not reserve or share >= settings.worker.memory_limit:
        return settings.worker
    return settings.worker.model_copy(update={"memory_limit": share})


async def open_tools(
    settings: Settings,
    stop: asyncio.Event,
    resources: contextlib.AsyncExitStack,
    founding: Callable[[], bool],
) -> tuple[Stores, Codec] | None:
    """What any worker works with, whatever its log: the stores and the codec; None when stopped before they answer.

    ``founding``: see `open_stores`; called in a thread.
    """
    stores = await _stores_or_stopped(settings, stop, founding)
    if stores is None:
        return None
    resources.enter_context(stores)
    await _settle_resolutions(stores)
    worker = settings.worker
    codec = await resources.enter_async_context(
        Codec(memory=worker.codec_memory, timeout=worker.codec_timeout, frames=worker.codec_frames)
    )
    return stores, codec


async def _stores_or_stopped(
    settings: Settings, stop: asyncio.Event, founding: Callable[[], bool]
) -> Stores | None:
    """The stores, as soon as they answer; None when stopped before.

    A worker that ended instead would be started again and again, until its supervisor gave up.
    """
    while True:
        try:
            stores = await _opened_once(settings, stop, founding)
        except Unavailable as error:
            logger.error("the stores cannot be opened yet", reason=str(error))  # noqa: TRY400 - likewise
            if await _stopped_within(stop, error.retry_after):
                return None
        else:
            for why in stores.silent if stores is not None else ():
                logger.error("a store does not answer; its shards wait, the others are served", reason=why)
            return stores


async def _opened_once(
    settings: Settings, stop: asyncio.Event, founding: Callable[[], bool]
) -> Stores | None:
    def opened() -> Stores:
        with in_flight():
            stores = open_stores(
                settings.store_locations,
                settings.store,
                working=True,
                checksums=wants_checksums(settings),
                founding=founding,
            )
            if stop.is_set():  # nobody waits for them any more
                stores.close()
            return stores

    opening = asyncio.create_task(asyncio.to_thread(opened))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            return await opening
        opening.add_done_callback(lambda done: done.cancelled() or done.exception())
        return None
    finally:
        stopped.cancel()


def _may_be_new(data: Path) -> bool:
    """Whether there need be no stores yet; a checkpoint that cannot be read was written for something."""
    try:
        return not has_placed(data)
    except CorruptCheckpoint:
        return False


async def _settle_resolutions(stores: Stores) -> None:
    """End what an administrator's interrupted command has left half done."""
    try:
        finished = await finish_resolutions(stores)
    except Unavailable as error:
        logger.warning("resolutions put off", reason=str(error))
    else:
        if finished:
            logger.info("resolutions finished", count=finished)


async def run_until(stop: asyncio.Event, worker: Worker, failed: asyncio.Future[None] | None = None) -> int:
    """Run a worker until ``stop``, or until ``failed`` or an error ends it; returns the exit code."""
    stopper = asyncio.create_task(stop.wait())
    stopper.add_done_callback(lambda _: worker.stop())
    running = asyncio.create_task(worker.run())
    try:
        await asyncio.wait({running, *([failed] if failed else ())}, return_when=asyncio.FIRST_COMPLETED)
        if failed is not None and failed.done():
            running.cancel()
            await asyncio.wait({running})
            failed.result()
        running.result()
    except Exception as error:
        # Whatever it is, a new process is the remedy.
        for cause in _leaves(error):
            upload = worker.blamed(cause)
            logger.exception("worker ends", **({} if upload is None else upload.facts), exc_info=cause)
        return _FAILURE
    finally:
        stopper.cancel()
    logger.info("worker stopped")
    return 0


async def _own(
    settings: Settings,
    partitions: Sequence[int],
    stop: asyncio.Event,
    resources: contextlib.AsyncExitStack,
) -> tuple[Reader, dict[int, OwnedPartition]] | None:
    """Lock the partitions and open all that is kept of them; None when stopped before there was a log."""
    data = settings.data
    for folder in ("checkpoints", "scratch"):
        (data / folder).mkdir(mode=0o750, parents=True, exist_ok=True)
    while True:
        checkpoints = _read_checkpoints(data, partitions)
        marks = {partition: checkpoint.low_water_mark for partition, checkpoint in checkpoints.items()}
        try:
            reader = local_reader(settings, marks)
        except SpoolMissing:
            if await _stopped_within(stop, _AFTER_MISSING):
                return None
            continue
        # Until its locks were ours, another worker may have written further checkpoints.
        if _read_checkpoints(data, partitions) == checkpoints:
            break
        reader.close()
    resources.callback(reader.close)
    opened = {}
    for partition, checkpoint in checkpoints.items():
        outcomes = OutcomeProducer(
            data / "outcomes" / str(partition),
            checkpoint.outcomes_end,
            retained=settings.ledger.kept_outcomes,
        )
        resources.callback(outcomes.close)
        if outcomes.recovered.damaged or outcomes.recovered.skipped_to is not None:
            logger.error("the outcome log has lost what was in it", partition=partition)
        progress = Progress(checkpoint)
        progress.count(*outcomes.uncounted())
        in_hand = InHand(data / "scratch" / f"in-hand-{partition}")
        resources.callback(in_hand.close)
        opened[partition] = OwnedPartition(progress, in_hand, outcomes)
    return reader, opened


def _read_checkpoints(data: Path, partitions: Sequence[int]) -> dict[int, Checkpoint]:
    paths = {partition: checkpoint_path(data / "checkpoints", partition) for partition in partitions}
    return {
        partition: read_checkpoint(path) or Checkpoint(partition=partition)
        for partition, path in paths.items()
    }


async def _stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


def _leaves(error: Exception) -> Iterator[Exception]:
    """The exceptions of a group and of the groups within it; one alone as it is."""
    if isinstance(error, ExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
