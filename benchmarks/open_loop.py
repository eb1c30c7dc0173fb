"""Open loop: instances at a fixed rate, whatever the receiver does, as modalities send them. It finds the latency.

An instance's latency counts from when it should have been sent. One that waits since all associations are busy with a
receiver that stands still has waited all the same, so no stall hides behind the instances that it kept from being sent
(coordinated omission).
"""

import selectors
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.closed_loop import events_after
from benchmarks.messages import UnexpectedAnswer
from benchmarks.scu import TIMEOUT, Association


@dataclass(frozen=True)
class Schedule:
    """``instances``, the first at ``begin`` (monotonic), one each ``interval`` seconds."""

    begin: float
    interval: float
    instances: int

    def intended(self, number: int) -> float:
        """When this one should be sent."""
        return self.begin + number * self.interval


@dataclass
class OpenLoopResult:
    """Seconds each; ``late`` is how long after its time an instance was begun though an association was free."""

    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    intended: dict[bytes, float] = field(default_factory=dict)  # by SOP Instance UID; since 1970-01-01 UTC


def drive(associations: Sequence[Association], order: Iterator[int], schedule: Schedule) -> OpenLoopResult:
    """Send as the schedule says, over whichever association is free."""
    loop = _OpenLoop(associations, order, schedule)
    while len(loop.result.latencies) < schedule.instances:
        loop.turn()
    return loop.result


class _OpenLoop:
    def __init__(self, associations: Sequence[Association], order: Iterator[int], schedule: Schedule) -> None:
        self.result = OpenLoopResult()
        self._order = order
        self._schedule = schedule
        self._free = deque(associations)
        self._next = 0  # the number of the next instance
        self._freed_at = 0.0  # when an association became free after none was
        # epoll's timeout has whole milliseconds, which would be in every latency; select's has microseconds.
        self._selector = selectors.SelectSelector()
        self._wall = time.time() - time.monotonic()
        for association in associations:
            self._selector.register(association.socket, selectors.EVENT_READ, association)

    def turn(self) -> None:
        """Begin what is due, and wait until something is due or can go on."""
        self._begin_due()
        ready = self._selector.select(self._timeout())
        if not ready and not (self._free and self._next < self._schedule.instances):
            raise UnexpectedAnswer(f"no progress for {TIMEOUT:.0f} s")
        for key, events in ready:
            self._go_on(key.data, events, key.events)

    def _timeout(self) -> float:
        if self._free and self._next < self._schedule.instances:
            return max(0.0, self._schedule.intended(self._next) - time.monotonic())
        return TIMEOUT

    def _begin_due(self) -> None:
        while self._free and self._next < self._schedule.instances:
            intended, now = self._schedule.intended(self._next), time.monotonic()
            if intended > now:
                return
            self._next += 1
            association = self._free.popleft()
            self.result.late.append(now - max(intended, self._freed_at))
            sent = association.begin(next(self._order), intended)
            self.result.intended[association.uid] = intended + self._wall
            self._wait_for(association, events_after(sent=sent), selectors.EVENT_READ)

    def _go_on(self, association: Association, events: int, waited_for: int) -> None:
        if not events & selectors.EVENT_READ:
            self._wait_for(association, events_after(sent=association.send()), waited_for)
            return
        latency = association.answered()
        if latency is not None:
            self.result.latencies.append(latency)
            if not self._free:
                self._freed_at = time.monotonic()
            self._free.append(association)
            self._wait_for(association, selectors.EVENT_READ, waited_for)

    def _wait_for(self, association: Association, events: int, waited_for: int) -> None:
        if events != waited_for:
            self._selector.modify(association.socket, events, association)
