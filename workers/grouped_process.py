"""A worker's process in a consumer group: as `process`, but its partitions come and go, and nothing of it is kept.

What it has on disk is scratch, in a folder that it holds by a lock: ``DIR/scratch/worker-<n>``, n the least number
that no other process on the data folder has.
"""

import contextlib
import fcntl
import os
import shutil
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import structlog

from ingest.contract.audit import Trail
from ingest.contract.kafka import KafkaUnreachable, single_copy_note
from ingest.contract.monitoring.admin import Admin
from ingest.contract.running import announce, withdraw
from ingest.contract.settings import Settings
from ingest.contract.stop_signals import stop_by_signal
from workers.audited import pipeline_of
from workers.errors import Unavailable
from workers.fences import Fences
from workers.log.group_commits import has_placed
from workers.log.kafka_consumer import KafkaReader
from workers.log.kafka_outcomes import KafkaOutcomes
from workers.log.kafka_proofs import KafkaProofs
from workers.log.offset_progress import CommittedMarks, OffsetProgress
from workers.log.scratch import ScratchFolder
from workers.metrics import measured, show_worker
from workers.partition import OwnedPartition
from workers.process import open_tools, run_until
from workers.stages.prove import Prover, refuse_unprovable
from workers.worker import Worker

# A receiver never lets two records of one upload be further apart than its own limit and what Kafka may take
# to append each; twice that leaves room for every clock and queue on the way.
_GAPS: Final = 2
_RETRY: Final = 1.0  # s

logger = structlog.get_logger(__name__)


async def run_grouped_worker(settings: Settings) -> int:
    """Work on what the group gives until SIGTERM or SIGINT; returns the exit code.

    Raises:
        KafkaUnreachable, TopicMismatch: see `ingest.contract.kafka`.
        WrongStores: the stores are not those that the shard map names, or cannot give the proof that the settings want.
        OSError: the file system's, at the start.
    """
    refuse_unprovable(settings)
    stop = stop_by_signal()
    async with contextlib.AsyncExitStack() as resources:
        name, folder = _scratch_of_ours(settings.data, resources)
        number = int(name.rpartition("-")[2])
        admin = await resources.enter_async_context(Admin(settings, 1 + number, single_copy_note(settings)))
        trail = resources.enter_context(Trail(settings, name))
        admin.show(trail.instruments)
        tools = await open_tools(settings, stop, resources, partial(_may_be_new, settings))
        if tools is None:
            return 0
        stores, codec = tools
        outcomes = KafkaOutcomes(settings.kafka)
        await outcomes.start()
        resources.push_async_callback(outcomes.close)
        proofs = KafkaProofs(settings)
        resources.push_async_callback(proofs.close)
        scratch = ScratchFolder(folder, (), settings.log.reserve)
        group = _Group(settings, name, scratch, outcomes)
        stages = folder / "stages"
        stages.mkdir()
        group.worker = Worker(
            settings.worker,
            (),
            checkpoints=group.reader,
            reader=group.reader,
            scratch=scratch,
            pipeline=measured(pipeline_of(stores, codec, settings, stages, trail), settings, admin),
            fences=Fences(Prover(stores, settings.worker.proofs), proofs),
            expire_after=_GAPS * (settings.receiver.stall_timeout + settings.kafka.delivery_timeout),
        )
        resources.callback(withdraw, announce(settings.data, name))
        await group.reader.start()
        show_worker(admin, group.worker, codec, stop)
        resources.push_async_callback(group.reader.close)
        code = await run_until(stop, group.worker, group.reader.failed)
        await group.reader.close(in_vain=code != 0)
        return code


class _Group:
    """Gives the worker what the group gives, and tells who looks what that is."""

    worker: Worker

    def __init__(
        self, settings: Settings, name: str, scratch: ScratchFolder, outcomes: KafkaOutcomes
    ) -> None:
        self._data = settings.data
        self._name = name
        self._scratch = scratch
        self._outcomes = outcomes
        self._partitions: set[int] = set()
        self.reader = KafkaReader(settings, self._add, self._drop)

    def _add(self, progress: OffsetProgress) -> None:
        self._partitions.add(progress.partition)
        try:
            self._scratch.empty(progress.partition)
        except OSError as error:  # as when the disk is full: it will be missed only by what needs it
            logger.warning("scratch is unavailable", errno=error.errno)
        if progress.is_careful:
            logger.warning(
                "a partition has ended its workers; its uploads go one by one", partition=progress.partition
            )
        self.worker.add(
            OwnedPartition(progress, CommittedMarks(progress), self._outcomes.of(progress.partition))
        )
        self._tell()

    def _drop(self, partition: int) -> None:
        self._partitions.discard(partition)
        self.worker.drop(partition)
        self._tell()

    def _tell(self) -> None:
        logger.info("partitions", partitions=sorted(self._partitions))
        with contextlib.suppress(OSError):
            announce(self._data, self._name, partitions=tuple(sorted(self._partitions)))


def _may_be_new(settings: Settings) -> bool:
    """Whether there need be no stores yet, by what the group has counted.

    Raises:
        Unavailable: its commits cannot be had.
    """
    try:
        return not has_placed(settings)
    except KafkaUnreachable as error:
        raise Unavailable(str(error), _RETRY) from None


def _scratch_of_ours(
    data: Path, resources: contextlib.ExitStack | contextlib.AsyncExitStack
) -> tuple[str, Path]:
    """Our name on this data folder, and our scratch folder, empty.

    Raises:
        OSError: the file system's.
    """
    folder = data / "scratch"
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    for number in count():
        name = f"worker-{number}"
        lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        resources.callback(os.close, lock)
        ours = folder / name
        shutil.rmtree(ours, ignore_errors=True)
        ours.mkdir(mode=0o750)
        return name, ours
    raise AssertionError
