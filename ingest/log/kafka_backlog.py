"""What waits in the instance topic, told from looks at its ends and at the marks of the workers' group.

It is of the whole topic: every receiver tells the same. Records are exact; a record's age is the time since the look that
first saw it, so what waits from before this start is as old as the start.
"""

import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

_MOST: Final = 1024  # looks kept; beyond, every second one goes: after half an hour a look's 2 s are little


class Backlog(NamedTuple):
    """Not settled by workers, as seen last."""

    records: int = 0
    age: float = 0.0  # s, of the oldest of them; 0 without any
    bytes: float | None = None  # None: brokers were not asked for sizes


class _Look(NamedTuple):
    at: float  # s
    ends: Sequence[int]  # by partition


class Oldest:
    """Remembers when which offsets were seen first. Owned by one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks = deque[_Look]()

    def age(self, marks: Sequence[int], ends: Sequence[int]) -> float:
        """Seconds since the oldest record at or above its partition's mark was seen first; 0 without any."""
        now = self._clock()
        while self._looks and not _waits(marks, self._looks[0].ends):
            self._looks.popleft()
        if _waits(marks, ends) and not (self._looks and list(self._looks[-1].ends) == list(ends)):
            self._looks.append(_Look(now, array("q", ends)))
        if len(self._looks) > _MOST:
            self._looks = deque(list(self._looks)[::2])
        return now - self._looks[0].at if self._looks else 0.0


def _waits(marks: Sequence[int], ends: Sequence[int]) -> bool:
    return any(mark < end for mark, end in zip(marks, ends, strict=True))
