"""Who gets the next chunk: what a flood of one source may cost another, on a clock of the test's own."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from functools import partial

import pytest

from ingest.contract.records import MAX_PAYLOAD
from ingest.contract.settings import KiB, MiB
from ingest.instance import ChunkPool, Share, Shares

BUDGET = 64 * MiB
WINDOW = 2 * MiB


class World:
    """Time, and what is due; the log writes one chunk after the other, at 1 GB/s."""

    def __init__(self, window: int = WINDOW) -> None:
        self.now = 0.0
        self.due: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.pool = ChunkPool(BUDGET)
        self.shares = Shares(self.pool, window, 10.0, self.later)
        self.log_free_at = 0.0

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        heapq.heappush(self.due, (self.now + seconds, next(self.order), function))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.due and self.due[0][0] <= end:
            self.now, _, function = heapq.heappop(self.due)
            self.shares.watch(self.now)
            function()
        self.now = end

    def write(self, size: int, done: Callable[[], None]) -> None:
        """The log takes so many bytes, after what is there already."""
        begun = max(self.now, self.log_free_at)
        self.log_free_at = begun + size / 1e9
        self.later(self.log_free_at - self.now, done)


class Sender:
    """One association, which sends chunk after chunk, each arriving within ``arrival`` seconds."""

    def __init__(self, world: World, share: Share, *, arrival: float, chunk: int = MAX_PAYLOAD) -> None:
        self.world, self.share, self.arrival, self.chunk = world, share, arrival, chunk
        self.size = 0
        self.held: memoryview | None = None
        self.done = 0
        self.asked_at = 0.0
        self.delays: list[float] = []
        self.pause = 0.0

    def yield_chunk(self) -> bool:
        return False

    def ask(self) -> None:
        self.asked_at = self.world.now
        self.go_on()

    def go_on(self) -> None:
        self.held = self.share.acquire(self)
        if self.held is None:
            self.share.wait(self.resumed)
            return
        steps = 8
        for step in range(1, steps + 1):
            self.world.later(self.arrival * step / steps, self.more if step < steps else self.full)

    def resumed(self) -> None:
        self.world.later(0, self.go_on)  # as a connection does: not within another's turn

    def more(self) -> None:
        self.size += self.chunk // 8

    def full(self) -> None:
        self.more()
        chunk, self.held = self.held, None
        assert chunk is not None
        self.share.submitted(self, self.chunk)
        self.world.write(self.chunk, lambda: self.durable(chunk))

    def durable(self, chunk: memoryview) -> None:
        self.done += 1
        self.delays.append(self.world.now - self.asked_at)
        self.share.release(chunk)
        self.world.later(self.pause, self.ask)


def senders(world: World, share: Share, count: int, *, arrival: float) -> list[Sender]:
    found = [Sender(world, share, arrival=arrival) for _ in range(count)]
    for sender in found:
        sender.ask()
    return found


def test_alone_a_source_has_everything() -> None:
    """No limit at all: 58 chunks at a time, as without shares."""
    world = World()
    share = world.shares.of("only", 4)
    flood = senders(world, share, 100, arrival=1.0)
    assert len(share.filling) == (BUDGET - BUDGET // 8) // MAX_PAYLOAD
    world.run(60)
    assert min(sender.done for sender in flood) > 0


def test_a_flood_delays_another_source_by_its_share_only() -> None:
    """200 associations at full speed beside one: it waits for a MiB or two of theirs, not for all that the budget holds."""

    def slowest(floods: int) -> float:
        world = World()
        small = Sender(world, world.shares.of("small", 4), arrival=0.001)
        small.pause = 0.02
        flood = senders(world, world.shares.of("flood", 4), floods, arrival=0.002)
        world.run(0.2)
        small.ask()
        world.run(10)
        assert all(sender.done for sender in flood)
        delays = sorted(small.delays[5:])
        assert len(delays) > 100
        return delays[int(0.99 * len(delays))]

    alone, beside = slowest(0), slowest(200)
    assert beside <= 2 * alone + WINDOW / 1e9, (alone, beside)


@pytest.mark.parametrize(("one", "other"), [(1, 1), (4, 1), (16, 4)])
def test_bytes_go_by_weight(one: int, other: int) -> None:
    """Two floods beside one another have what their weights say; neither is starved."""
    world = World(window=40 * MiB)
    first = senders(world, world.shares.of("one", one), 60, arrival=0.0001)
    second = senders(world, world.shares.of("other", other), 60, arrival=0.0001)
    world.run(2)
    got = [sum(sender.done for sender in flood) for flood in (first, second)]
    assert got[0] / got[1] == pytest.approx(one / other, rel=0.35)


def test_within_a_source_all_have_their_turns() -> None:
    """Whoever waits longest is called: of 200 none has twice what another has."""
    world = World()
    Sender(world, world.shares.of("small", 4), arrival=0.001).ask()
    flood = senders(world, world.shares.of("flood", 4), 200, arrival=0.001)
    world.run(5)
    done = [sender.done for sender in flood]
    assert min(done) > 5
    assert max(done) <= 2 * min(done)


def test_slow_senders_of_one_source_are_not_held_to_its_few_turns() -> None:
    """40 associations over a slow line beside another source: each goes as fast as its line, as if alone."""
    world = World()
    other = Sender(world, world.shares.of("other", 4), arrival=0.001)
    other.pause = 0.1
    other.ask()
    slow = senders(world, world.shares.of("slow", 4), 40, arrival=8.0)
    world.run(40)
    assert all(sender.done >= 3 for sender in slow), sorted(sender.done for sender in slow)


def test_shares_end_when_a_source_has_been_silent() -> None:
    """Then the other has all again, and those that wait are called."""
    world = World()
    small, flood = world.shares.of("small", 4), world.shares.of("flood", 4)
    one = Sender(world, small, arrival=0.001)
    one.pause = 1e9
    one.ask()
    senders(world, flood, 30, arrival=0.001)
    world.run(1)
    assert flood.bytes == WINDOW // 2
    world.run(20)
    assert flood.bytes > BUDGET
    assert flood.free


def test_a_waiter_that_is_gone_leaves_its_turn() -> None:
    """One that forgets, one that is called and never comes: the others go on."""
    world = World()
    Sender(world, world.shares.of("small", 4), arrival=0.001).ask()
    share = world.shares.of("flood", 4)

    def never() -> None:
        """Is called and does not come."""

    flood = senders(world, share, 5, arrival=0.001)
    share.wait(never)
    forgotten = flood[-1].resumed
    if share.forget(forgotten):
        flood.pop()
    assert not share.forget(forgotten)
    world.run(5)
    assert all(sender.done > 10 for sender in flood)
    assert world.shares.waiting >= 0


def test_who_finds_another_quicker_leaves_nothing_behind() -> None:
    """All that wait may be called for one chunk, and all but one wait again: the pool remembers no more of them for that."""
    world = World()
    share = world.shares.of("flood", 4)
    lent = deque[memoryview]()
    quick = Sender(world, share, arrival=0.0)

    def take() -> None:
        while (chunk := share.acquire(quick)) is not None:
            share.submitted(quick, MAX_PAYLOAD)
            lent.append(chunk)

    take()
    for _ in range(100):
        called: list[int] = []
        for number in range(5):
            share.wait(partial(called.append, number))
        share.release(lent.popleft())
        world.run(1)
        assert called == [0, 1, 2, 3, 4]
        take()
    assert len(world.pool._waiting) <= 1


def test_many_sources_have_a_chunk_each() -> None:
    """However small its part of the window, no source is without."""
    world = World()
    floods = [senders(world, world.shares.of(f"s{number}", 1), 10, arrival=0.001) for number in range(30)]
    world.run(5)
    assert all(sum(sender.done for sender in flood) > 10 for flood in floods)


def test_a_chunk_of_little_counts_as_little() -> None:
    """Small instances are many in the log's queue, so that a group still gathers them."""
    world = World()
    Sender(world, world.shares.of("other", 4), arrival=0.001).ask()
    share = world.shares.of("small", 4)
    for _ in range(20):
        sender = Sender(world, share, arrival=0.0, chunk=40 * KiB)
        chunk = share.acquire(sender)
        assert chunk is not None
        share.submitted(sender, 40 * KiB)
    assert share.queued == 20 * 40 * KiB
    assert share.has_room
