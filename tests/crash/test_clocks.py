"""Row 24 of the crash matrix: processes whose clocks are an hour off, each another way, and clocks that jump."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clocks import Clock
from tests.support.crash import Load, Run, Sent, committed, ends, marks, seeds
from tests.support.distributed import Distributed
from tests.support.kafka_records import Publisher
from tests.support.kafka_servers import KafkaServers
from tests.support.scu import Scu, c_store

pytestmark = marks

HOUR = 3600
PIECE = 4096  # bytes that keep the receiver from giving a slow modality up
STALL = 3.0  # s
DELIVERY = 3.0  # s; what waits in vain is given up after twice both


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServers) -> Iterator[Distributed]:
    """A pipeline whose store is a folder: S3 lets nobody in whose clock is an hour off."""
    folder = tmp_path_factory.mktemp("clocks")
    with Distributed(
        folder,
        kafka.bootstrap_servers,
        [f"file://{folder / 'store'}"],
        name=folder.name,
        delivery=DELIVERY,
        stall=STALL,
    ) as pipeline:
        yield pipeline


class Slow:
    """A modality that sends half of an instance, and then little by little until it is told to finish."""

    def __init__(self, port: int, uid: str, data: bytes) -> None:
        self._port = port
        self._wire = c_store(uid, data)
        self._go_on = threading.Event()
        self.begun = threading.Event()
        self.status = -1
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def finish(self) -> int:
        """Send the rest; what is answered."""
        self._go_on.set()
        self._thread.join(30)
        return self.status

    async def _run(self) -> None:
        scu = await Scu.associated(self._port)
        at = len(self._wire) // 2
        await scu.send(self._wire[:at])
        self.begun.set()
        while not await asyncio.to_thread(self._go_on.wait, 0.2):
            await scu.send(self._wire[at : at + PIECE])
            at += PIECE
        await scu.send(self._wire[at:])
        self.status = (await scu.response()).status
        await scu.close()


def every_process_has_its_clock(run: Run, folder: Path) -> list[Clock]:
    """Two receivers and two workers, each an hour before or behind the others."""
    for host in (*run.receivers(), *run.workers()):
        host.stop()
    clocks = []
    for number, start in enumerate((run.pipeline.start_receiver, run.pipeline.start_worker) * 2):
        clock = Clock(folder / f"clock-{number}")
        clock.set(run.random.choice((-HOUR, HOUR)))
        start(environment=clock.environment)
        clocks.append(clock)
    return clocks


@seeds
def test_clocks_apart_and_jumping(in_folder: Distributed, tmp_path: Path, seed: int) -> None:
    """Row 24: nothing is given up early, what is to be given up is in time, and nothing else depends on it."""
    run = Run(in_folder, seed, 24, load=Load(senders=2, pause=0.5))
    clocks = every_process_has_its_clock(run, tmp_path)
    publisher = Publisher(run.settings)
    slow_one = Sent(f"{run.stem}9.1", 3_000_000)
    run.ledger.tried[slow_one.uid] = slow_one
    with run:
        run.acknowledged(5)
        slow = Slow(run.random.choice(run.ports()), slow_one.uid, slow_one.data_set())
        publisher.orphan(f"{run.others}1")
        publisher.flush()
        slow.begun.wait(60)
        run.acknowledged(3)
        for offset in run.random.sample((-2 * HOUR, 2 * HOUR), 2):  # back and forth, in either order
            for clock in clocks:
                clock.set(offset)
            time.sleep(2)  # several looks for what waits in vain, by workers that are not behind
            run.acknowledged(2)
        status = slow.finish()
        run.acknowledged(3)
    publisher.close()
    assert status == 0, f"seed {run.seed}: the slow one was told {status:#06x}"
    run.ledger.acknowledged.add(slow_one.uid)
    run.check()
    run.until(lambda: committed(run.settings) == ends(run.settings), "I5: the end of the orphan")


@pytest.mark.slow
@seeds
def test_store_that_does_not_trust_our_clock(pipeline: Distributed, tmp_path: Path, seed: int) -> None:
    """Row 24: S3 refuses whose clock is an hour off: it waits and says why, and goes on when the clock is set."""
    run = Run(pipeline, seed, 240)
    run.heal()
    for host in run.workers():
        host.stop()
    clock = Clock(tmp_path / "clock")
    worker = pipeline.start_worker(environment=clock.environment)
    with run:
        run.acknowledged(3)
        clock.set(run.random.choice((-HOUR, HOUR)))
        run.until(lambda: worker.said("clock and ours are too far apart"), "the reason")
        run.acknowledged(3)
        assert worker.running, f"seed {run.seed}: {worker.tail()}"
        clock.set(0)
        run.acknowledged(3)
    run.pipeline.settle()
    assert worker.stop() == 0, f"seed {run.seed}: {worker.tail()}"
    run.check()
