"""Rows 18 and 19 of the crash matrix, and a fleet whose workers come and go while much is received.

The consumer's assignor is cooperative; the eager one is not offered. Row 19's worker has a poll interval of 6 s
for 300, and is the only one that has.
"""

import os
import signal

import pytest

from ingest.contract.failpoints import Failpoint
from ingest.contract.settings_sources import variable_of
from tests.support.crash import Load, Run, marks, seeds
from tests.support.distributed import Distributed

pytestmark = marks

_CHANGES = int(os.environ.get("CRASH_CHANGES", "6"))  # of a storm
_POLL = 6.0  # s
_EXPIRED = "Consumer poll timeout has expired"  # as the client says it
_SMALL = 40_000_000  # bytes
_AMOUNT = float(os.environ.get("CRASH_BYTES", "20e9"))  # of the long form; the disk holds it twice
# Cheap: none of them is transcoded.
_CHEAP = Load(senders=4, pause=0, sizes=(100_000, 600_000, 900_000, 2_500_000, 8_000_000))


def _change_workers(run: Run, most: int) -> None:
    """One more, or one less: told to stop, or killed."""
    workers = run.workers()
    if len(workers) < 2 or (len(workers) < most and run.random.random() < 0.5):
        run.pipeline.start_worker(wait=False)
        return
    one = run.random.choice(workers)
    # Before it can hear a signal, an interpreter that is told to stop ends by it.
    if run.random.random() < 0.5 or not one.said('"worker started"'):
        one.kill()
    else:
        one.signal(signal.SIGTERM)


@pytest.mark.slow
@seeds
def test_rebalance_storm(pipeline: Distributed, seed: int) -> None:
    """Row 18: all goes on all the time, and nothing is counted twice."""
    run = Run(pipeline, seed, 18)
    run.heal()
    with run:
        for _ in range(_CHANGES):
            _change_workers(run, 4)
            run.sleep(0.2, 2.5)
            run.acknowledged(1)
        stored = len(run.watch.seen)

        def is_more_stored() -> bool:
            run.heal(workers=1)  # all that ran may have been told to stop
            return len(run.watch.seen) > stored

        run.until(is_more_stored, "progress within the storm")
    run.check()


@pytest.mark.slow
@seeds
def test_poller_stands_still(pipeline: Distributed, seed: int) -> None:
    """Row 19: alive, but it asks for nothing: its partitions go to another, and it drops them without a commit."""
    run = Run(pipeline, seed, 19)
    run.heal(workers=1)
    blocked = pipeline.start_worker(
        f"{Failpoint.POLLING}=sleep:{_POLL + 4}@{run.random.randint(50, 100)}",
        settings={"kafka.poll_interval": _POLL},
    )
    with run:
        run.until(lambda: _holds(blocked.tail()), "a partition for it")
        run.until(lambda: blocked.said(_EXPIRED), "the end of its membership")
        run.acknowledged(3)
        run.sleep(4, 6)
    run.check()
    assert blocked.stop() == 0, f"seed {seed}: {blocked.tail()}"


def _holds(said: str) -> bool:
    return any('"partitions"' in line and "[]" not in line for line in said.splitlines())


def _fleet(pipeline: Distributed, seed: int, case: int, amount: float) -> None:
    run = Run(pipeline, seed, case, load=_CHEAP, settle=600)
    pipeline.environment[variable_of("transcode.enabled")] = "false"
    for host in run.workers():
        host.stop()
    run.heal(workers=3)
    for _ in range(2 - len(run.receivers())):
        pipeline.start_receiver()
    with run:
        while run.ledger.bytes < amount:
            run.sleep(0.5, 3)
            run.acknowledged(1)
            _change_workers(run, 5)
        run.heal(workers=3)
    run.check()


@seeds
def test_fleet(pipeline: Distributed, seed: int) -> None:
    """Two receivers, three workers more or less, and exact accounts at the end."""
    _fleet(pipeline, seed, 118, _SMALL)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
@seeds
def test_large_fleet(pipeline: Distributed, seed: int) -> None:
    """The same with 20 GB, or `CRASH_BYTES`."""
    _fleet(pipeline, seed, 119, _AMOUNT)
