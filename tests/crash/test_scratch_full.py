"""Row 16 of the crash matrix: a worker's scratch, and a store that is a folder, on a disk without room; scratch that rots."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.contract.failpoints import Failpoint
from tests.support.crash import Load, Run, Sent, is_object, marks, seeds, uid_of
from tests.support.distributed import Distributed
from tests.support.kafka_servers import KafkaServers
from tests.support.small_disk import SmallDisk

pytestmark = marks

# So little that the larger instances are put together on disk.
TIGHT = {"worker.memory_limit": 1 << 20}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", "96m") as disk:
        yield disk


def only_on(disk: SmallDisk, run: Run) -> None:
    """One worker, whose data folder is there, beside a receiver."""
    for host in run.workers():
        host.stop()
    run.pipeline.start_worker(data=disk.path / "data", settings=TIGHT)
    if not run.receivers():
        run.pipeline.start_receiver()


@seeds
def test_scratch_is_full(pipeline: Distributed, disk: SmallDisk, seed: int) -> None:
    """What needs the disk waits, nobody dies, nothing is half there; with room again all goes on."""
    run = Run(pipeline, seed, 16, load=Load(pause=0.05, sizes=(20_000, 8_000_000)))
    only_on(disk, run)
    (worker,) = run.workers()
    with run:
        run.acknowledged(5)
        disk.fill()
        run.until(lambda: worker.said('"scratch is unavailable"'), "the want of room")
        run.acknowledged(5)  # by the receiver, which has its room elsewhere
        assert worker.running, f"seed {run.seed}: {worker.tail()}"
        disk.relieve()
        run.acknowledged(3)
    pipeline.settle()
    assert worker.stop() == 0, f"seed {run.seed}: {worker.tail()}"  # before its disk goes
    run.check()


@seeds
def test_scratch_rots(pipeline: Distributed, seed: int) -> None:
    """A bit of what is put together there is another: the worker ends, and the next has the right one from the log."""
    run = Run(pipeline, seed, 161, load=Load(sizes=(3000, 20_000)))
    for host in run.workers():
        host.stop()
    run.heal(workers=0)
    doomed = pipeline.start_worker(f"{Failpoint.PART_READ}=stop@2", settings=TIGHT)
    doomed.excused = True
    large = Sent(f"{run.stem}99.1", 3_500_000)
    with run:
        assert run.send(large, run.ports()[0]) == 0, f"seed {seed}"
        run.until(lambda: doomed.stands, "the second part")
        (scratch,) = doomed.scratch()
        data = bytearray(scratch.read_bytes())
        data[run.random.randrange(len(data))] ^= 1
        scratch.write_bytes(data)
        doomed.signal(signal.SIGCONT)
        run.until(lambda: not doomed.running, "the end of the worker")
        assert doomed.process.returncode == 1, doomed.tail()
        pipeline.start_worker(settings=TIGHT)
        run.acknowledged(3)
    run.check()
    assert large.uid in {uid_of(key) for key in run.watch.seen if is_object(key)}, f"seed {seed}"


@pytest.fixture(scope="module")
def store_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path_factory.mktemp("store") / "disk", "256m") as disk:
        yield disk


@pytest.fixture(scope="module")
def in_folder(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServers, store_disk: SmallDisk
) -> Iterator[Distributed]:
    """A pipeline whose only store is a folder on that disk."""
    folder = tmp_path_factory.mktemp("in-folder")
    url = f"file://{store_disk.path / 'store'}"
    with Distributed(folder, kafka.bootstrap_servers, [url], name=folder.name) as pipeline:
        yield pipeline


@seeds
def test_local_store_is_full(in_folder: Distributed, store_disk: SmallDisk, seed: int) -> None:
    """The store has no room: no partial object, nothing lost, and all of it is stored once there is room."""
    run = Run(in_folder, seed, 160, load=Load(senders=2, pause=0.2))
    run.heal()
    with run:
        run.acknowledged(5)
        store_disk.fill()
        run.until(lambda: any('"upload held"' in host.tail() for host in run.workers()), "the want of room")
        run.acknowledged(5)
        assert len(run.workers()) == 2, f"seed {run.seed}: a worker has died"
        full = {key for key in run.watch.objects() if is_object(key)}
        store_disk.relieve()
        run.acknowledged(2)
    run.check()
    assert full < {key for key in run.watch.seen if is_object(key)}, f"seed {run.seed}: it never was full"
