"""Closed loop: each association sends its next instance when the last one is answered. It finds the capacity."""

import selectors
from collections.abc import Iterator, Sequence

from benchmarks.messages import UnexpectedAnswer
from benchmarks.scu import TIMEOUT, Association


def drive(associations: Sequence[Association], order: Iterator[int], instances: int) -> list[float]:
    """Send ``instances`` over the associations, of the messages that ``order`` says; the latencies."""
    if len(associations) == 1:
        return _drive_one(associations[0], order, instances)
    turns = _Turns(order, instances)
    for association in associations[:instances]:
        turns.join(association)
    while len(turns.latencies) < instances:
        turns.turn()
    return turns.latencies


def _drive_one(association: Association, order: Iterator[int], instances: int) -> list[float]:
    """As `drive`, for one association: the socket blocks, and no selector costs a system call."""
    association.block()
    latencies: list[float] = []
    while len(latencies) < instances:
        association.begin(next(order))
        while (latency := association.answered()) is None:
            pass
        latencies.append(latency)
    return latencies


class _Turns:
    """A selector that turns the associations of one process."""

    def __init__(self, order: Iterator[int], instances: int) -> None:
        self.latencies: list[float] = []
        self._order = order
        self._left = instances  # not begun yet
        self._selector = selectors.DefaultSelector()

    def join(self, association: Association) -> None:
        """Let it send its first instance."""
        self._selector.register(association.socket, self._begin(association), association)

    def turn(self) -> None:
        """Wait, and let every association that can go on do so."""
        ready = self._selector.select(TIMEOUT)
        if not ready:
            raise UnexpectedAnswer(f"no progress for {TIMEOUT:.0f} s")
        for key, events in ready:
            wanted = self._go_on(key.data, events)
            if wanted != key.events:
                self._selector.modify(key.fileobj, wanted, key.data)

    def _go_on(self, association: Association, events: int) -> int:
        """The events to wait for next."""
        if not events & selectors.EVENT_READ:
            return events_after(sent=association.send())
        latency = association.answered()
        if latency is not None:
            self.latencies.append(latency)
            if self._left:
                return self._begin(association)
        return selectors.EVENT_READ

    def _begin(self, association: Association) -> int:
        self._left -= 1
        return events_after(sent=association.begin(next(self._order)))


def events_after(*, sent: bool) -> int:
    """What to wait for once all of an instance is in the socket, or not all."""
    return selectors.EVENT_READ if sent else selectors.EVENT_READ | selectors.EVENT_WRITE
