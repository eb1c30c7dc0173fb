"""Rows 1 to 3 of the crash matrix: a receiver that dies within an instance, before its answer, and after it."""

import pytest

from tests.support.crash import Run, marks, seeds
from tests.support.distributed import Distributed

pytestmark = marks


@seeds
@pytest.mark.parametrize("point", ["receiver.part-published", "receiver.before-response"])
def test_receiver_killed_at_a_point(pipeline: Distributed, seed: int, point: str) -> None:
    """Rows 1 and 2: nothing of an instance half published appears; one whose answer was lost is stored once."""
    run = Run(pipeline, seed, 1 if "part" in point else 2)
    run.heal()
    for host in run.receivers():
        host.stop()
    turn = run.random.randint(1, 12)
    doomed = pipeline.start_receiver(f"{point}=kill@{turn}")
    with run:
        run.until(lambda: not doomed.running, f"the kill at {point}")
        pipeline.start_receiver()
        run.acknowledged(3)
    run.check()


@seeds
def test_receiver_killed_after_its_answer(pipeline: Distributed, seed: int) -> None:
    """Row 3: what was acknowledged a moment ago is stored, once."""
    run = Run(pipeline, seed, 3)
    run.heal()
    with run:
        run.acknowledged(run.random.randint(1, 20))
        for host in run.receivers():
            host.kill()
        pipeline.start_receiver()
        run.acknowledged(3)
    run.check()
