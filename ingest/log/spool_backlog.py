"""How many instances wait in the spool, and for how long: told from looks at its end, one a second, and where workers are.

So it is known with every worker down, and costs the receiver nothing an instance. Both are exact to what a second brings; what
waits from before this receiver's start is not in the number, and as old as the start.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from ingest.contract.checkpoint import CorruptCheckpoint
from ingest.contract.monitoring.instruments import Gauge

INTERVAL: Final = 1.0  # s between two looks
# Looks kept; beyond, every second one goes: who waits for an hour need not be told to the second.
_MOST: Final = 4096
# Whenever so many more are kept, those that are settled go, though nobody asks: each is 190 bytes, and a receiver that no
# Prometheus scrapes would grow for an hour. Seldom, since telling them takes a look into the checkpoint of each partition.
_MORE: Final = 64


class _Look(NamedTuple):
    at: float  # s
    end: int  # of the log
    instances: float  # acknowledged by then


class SpoolBacklog:
    """Of one running spool. ``end``: its durable end; ``mark``: below it everything is settled; ``acknowledged``: instances so far."""

    def __init__(
        self,
        end: Callable[[], int],
        mark: Callable[[], int],
        acknowledged: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._end, self._mark, self._acknowledged, self._clock = end, mark, acknowledged, clock
        self._lock = threading.Lock()  # the admin port's thread asks
        self._looks = deque([_Look(clock(), min(end(), mark()), 0.0)])

    async def watch(self) -> None:
        """Look, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.look()

    def look(self) -> None:
        """Note where the log ends now."""
        now = _Look(self._clock(), self._end(), self._acknowledged())
        with self._lock:
            if now.end == self._looks[-1].end:
                return
            self._looks.append(now)
            if len(self._looks) % _MORE == 0:
                # Who asks is told of it; here they only stay longer.
                with contextlib.suppress(OSError, CorruptCheckpoint):
                    self._drop_settled(self._mark())
            if len(self._looks) > _MOST:
                self._looks = deque(list(self._looks)[::2])

    def instances(self) -> float:
        """Those not settled."""
        return self._waits()[0]

    def age(self) -> float:
        """Seconds since the first of them was acknowledged; 0 without any."""
        return self._waits()[1]

    def _waits(self) -> tuple[float, float]:
        mark, now = self._mark(), _Look(self._clock(), self._end(), self._acknowledged())
        with self._lock:
            self._drop_settled(mark)
            first = self._looks[1].at if len(self._looks) > 1 else now.at
            count = now.instances - self._looks[0].instances
        return (count, now.at - first) if mark < now.end and count > 0 else (0.0, 0.0)

    def _drop_settled(self, mark: int) -> None:
        while len(self._looks) > 1 and self._looks[1].end <= mark:
            self._looks.popleft()

    @property
    def gauges(self) -> list[Gauge]:
        """For the admin port."""
        return [
            Gauge(
                "log_backlog_instances", "Instances acknowledged and not at their place yet.", self.instances
            ),
            Gauge("log_oldest_seconds", "Age of the first of them; 0 without any.", self.age),
        ]
