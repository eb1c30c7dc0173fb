"""Rows 4, 25, 26 and 27 of the crash matrix: processes that stand still, are told to stop, or are all killed at once.

Times are scaled by settings, and keep their order: an upload pauses too long after `stall_timeout` (2 s for 60) and a
little more, a record fails after `delivery_timeout` (4 s for 20), and workers expire what has no end after twice the sum
of both (12 s for 160). A receiver that is stopped for 2 to 10 minutes is here stopped for 3 to 15 s.
"""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest.contract.failpoints import Failpoint
from tests.support.crash import Load, Run, Sent, marks, seeds
from tests.support.distributed import Distributed, Host
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import S3Server

pytestmark = marks

_EXPIRY = 12.0  # s


@seeds
def test_receiver_stands_still(pipeline: Distributed, seed: int) -> None:
    """Row 4: what workers have expired meanwhile is never finished, however patient its sender."""
    run = Run(pipeline, seed, 4, load=Load(patience=5))
    run.heal()
    # In every second seed a record is on its way to the log; else there is nothing but the pause to go by.
    point = f"{Failpoint.PART_PUBLISHED}=stop@{run.random.randint(1, 3)}" if seed % 2 == 0 else ""
    stopped = pipeline.start_receiver(point)
    run.quiet.add(stopped.name)
    is_long = run.random.random() < 0.5 or seed == 1
    with run, ThreadPoolExecutor() as threads:
        patient = threads.submit(run.send, Sent(f"{run.stem}99.1", 8_000_000), stopped.port, seconds=4)
        if not point:
            run.sleep(2, 3.5)
            stopped.signal(signal.SIGSTOP)
        run.until(lambda: stopped.stands, "the stop within an instance")
        run.quiet.clear()
        run.sleep(*(_EXPIRY + 1, _EXPIRY + 3) if is_long else (1, 5))
        stopped.signal(signal.SIGCONT)
        status = patient.result(60)
        assert status != 0 or not is_long, f"seed {seed}: success for what workers had given up"
        run.acknowledged(3)
    run.check()
    assert stopped.stop() == 0, f"seed {seed}: {stopped.tail()}"


@seeds
@pytest.mark.parametrize("is_enough", [True, False])
def test_receiver_told_to_stop(pipeline: Distributed, seed: int, is_enough: bool) -> None:
    """Row 25: an instance in progress is finished within the grace, or aborted and not acknowledged."""
    run = Run(pipeline, seed, 25 + 100 * is_enough)
    run.heal()
    stopped = pipeline.start_receiver(settings={"receiver.drain_timeout": 20 if is_enough else 0.5})
    with run, ThreadPoolExecutor() as threads:
        slow = threads.submit(run.send, Sent(f"{run.stem}99.1", 3_000_000), stopped.port, seconds=4)
        run.sleep(1, 2)
        assert stopped.stop() == 0, f"seed {seed}: {stopped.tail()}"
        status = slow.result(60)
        assert (status == 0) is is_enough, f"seed {seed}: {status}"
        run.acknowledged(3)
    run.check()


@seeds
def test_killed_soon_after_being_told_to_stop(pipeline: Distributed, seed: int) -> None:
    """Row 25: an orchestrator's patience ends while receivers and workers drain."""
    run = Run(pipeline, seed, 251)
    run.heal()
    with run:
        run.acknowledged(run.random.randint(1, 10))
        hosts = [*run.receivers(), *run.workers()]
        for host in hosts:
            host.signal(signal.SIGTERM)
        run.sleep(0, 1)
        for host in hosts:
            host.kill()
        run.heal()
        run.acknowledged(3)
    run.check()


@seeds
def test_everything_killed(pipeline: Distributed, kafka: KafkaServers, minio: S3Server, seed: int) -> None:
    """Row 26: receivers, workers, broker and store; then all again, in any order."""
    run = Run(pipeline, seed, 26)
    run.heal()
    broker = kafka.nodes[0]

    def start(kind: str) -> None:
        host: Host = getattr(pipeline, f"start_{kind}")(wait=False)
        host.excused = True  # it may give up before its servers are there

    with run:
        run.acknowledged(run.random.randint(1, 20))
        kills = [*(host.kill for host in [*run.receivers(), *run.workers()]), broker.kill, minio.kill]
        run.random.shuffle(kills)
        for kill in kills:
            kill()
        starts = [
            broker.start,
            minio.start,
            *(lambda kind=kind: start(kind) for kind in ("receiver", "worker", "worker")),
        ]
        run.random.shuffle(starts)
        for begin in starts:
            begin()
        run.acknowledged(3, healing=True)
    run.check()


@seeds
def test_exit_codes(pipeline: Distributed, seed: int) -> None:
    """Row 27: SIGTERM or SIGINT, at any moment of the load: 0. So at the end of every other row and module."""
    run = Run(pipeline, seed, 27)
    run.heal()
    with run:
        run.acknowledged(run.random.randint(1, 15))
        hosts = [*run.receivers(), *run.workers()]
        run.random.shuffle(hosts)
        for host in hosts:
            host.signal(run.random.choice([signal.SIGTERM, signal.SIGINT]))
            run.sleep(0, 0.3)
        codes = {host.name: host.process.wait(40) for host in hosts}
        assert not any(codes.values()), f"seed {seed}: {codes}"
        run.heal()
        run.acknowledged(3)
    run.check()
