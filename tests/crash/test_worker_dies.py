"""Rows 5 to 8 of the crash matrix: a worker that dies at each step, or sleeps through the loss of its partitions.

The group's session timeout is the least that settings and brokers take, 6 s for 30.
"""

import signal

from ingest.contract.failpoints import Failpoint
from tests.support.crash import Load, Run, Sent, is_object, is_read, marks, read_topic, seeds, uid_of
from tests.support.distributed import Distributed

pytestmark = marks

# As received, since what the load has for pixels is next to nothing in JPEG 2000.
_PARTS = {"store.single_put_limit": 1 << 20, "store.part_size": 5 << 20, "transcode.enabled": "false"}
_SMALL = (
    3000,
    20_000,
    140_000,
    600_000,
)  # below the limit: nothing else is staged, which the next day's sweep removes
# Between the first byte of an object and the commit that counts it.
_STEPS = (
    Failpoint.BEFORE_PUT,
    Failpoint.AFTER_PUT,
    Failpoint.BEFORE_OUTCOME,
    Failpoint.AFTER_OUTCOME,
    Failpoint.AFTER_COMMIT,
)


def _killed_at(pipeline: Distributed, seed: int, case: int, point: Failpoint, most: int) -> None:
    run = Run(pipeline, seed, case)
    run.heal(workers=1)
    doomed = pipeline.start_worker(f"{point}=kill@{run.random.randint(1, most)}")
    with run:
        run.until(lambda: not doomed.running, f"the kill at {point}")
        run.acknowledged(3)
    run.check()


@seeds
def test_worker_killed_mid_reassembly(pipeline: Distributed, seed: int) -> None:
    """Row 5: another reads again, from the low-water mark on."""
    _killed_at(pipeline, seed, 5, Failpoint.PART_READ, 6)


@seeds
def test_worker_killed_after_put(pipeline: Distributed, seed: int) -> None:
    """Row 6: the next finds the object as its own, and counts it once."""
    _killed_at(pipeline, seed, 6, Failpoint.AFTER_PUT, 12)


@seeds
def test_worker_killed_at_another_step(pipeline: Distributed, seed: int) -> None:
    """Row 6, elsewhere between put and commit: each seed another step."""
    _killed_at(pipeline, seed, 60, _STEPS[seed % len(_STEPS)], 4)


@seeds
def test_worker_killed_between_parts(pipeline: Distributed, seed: int) -> None:
    """Row 7: nothing of the object is visible, and at most its one upload is left to the bucket's lifecycle rule."""
    run = Run(pipeline, seed, 7, load=Load(sizes=_SMALL))
    run.heal(workers=0)
    for host in run.workers():
        host.stop()
    doomed = pipeline.start_worker(f"{Failpoint.BETWEEN_PUTS}=kill", settings=_PARTS)
    large = Sent(f"{run.stem}99.1", run.random.randint(5_500_000, 8_000_000))
    with run:
        assert run.send(large, run.ports()[0]) == 0, f"seed {seed}"
        run.until(lambda: not doomed.running, "the kill between parts")
        left = [key for key in run.watch.objects() if "staging" in key or uid_of(key) == large.uid]
        assert not left, f"seed {seed}: {left}"
        pipeline.start_worker(settings=_PARTS)
        run.acknowledged(3)
    run.check(abandoned=1)
    assert large.uid in {uid_of(key) for key in run.watch.seen if is_object(key)}, f"seed {seed}"


@seeds
def test_zombie_worker(pipeline: Distributed, seed: int) -> None:
    """Row 8: it wakes past its session, and finishes its put, which creates nothing anew; its commit is refused."""
    run = Run(pipeline, seed, 8, load=Load(senders=2, pause=0.5))
    run.heal(workers=1)
    point = run.random.choice([Failpoint.BEFORE_PUT, Failpoint.AFTER_PUT, Failpoint.BEFORE_OUTCOME])
    zombie = pipeline.start_worker(f"{point}=stop@{run.random.randint(1, 8)}")
    with run:
        run.until(lambda: zombie.stands, f"the stop at {point}")
        ends = read_topic(run.settings, None).ends
        run.until(lambda: is_read(run.settings, ends, pipeline.orphans), "another worker in its place")
        run.watch.look()  # so that what it has in hand was seen as the other has stored it
        zombie.signal(signal.SIGCONT)
        run.acknowledged(3)
    run.check()
    assert zombie.stop() == 0, f"seed {seed}: {zombie.tail()}"
