"""Whether the event loop answers, and how late: a task that wants to wake at fixed times."""

import asyncio
import time
from typing import Final

from ingest.contract.monitoring.instruments import Histogram

INTERVAL: Final = 0.5  # s; costs nothing, and is far below what a probe waits for
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Heartbeat:
    """Beats while the event loop that started it runs."""

    def __init__(self) -> None:
        self.lag = Histogram(
            "event_loop_lag_seconds", "How late the event loop came to what was due.", bounds=_BOUNDS
        )
        self._last = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Beat from now on, in the running event loop."""
        self._last = time.monotonic()
        self._task = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """Beat no more."""
        if self._task is not None:
            self._task.cancel()

    @property
    def silence(self) -> float:
        """Seconds since the event loop was last known to answer; to be asked by any thread."""
        return time.monotonic() - self._last

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            now = time.monotonic()
            self.lag.observe(max(0.0, now - self._last - INTERVAL))
            self._last = now
