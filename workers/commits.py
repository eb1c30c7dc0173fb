"""When a worker commits: regularly, sooner after many uploads, and soon after the last one in work."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

import structlog

from workers.errors import Unavailable
from workers.log.checkpoint import CheckpointWriter, commit
from workers.partition import OwnedPartition
from workers.unsettled import Unsettled

COMMIT_AFTER: Final = 512  # settled uploads that do not wait for the timer
IDLE_AFTER: Final = 0.1  # of the interval, without an upload in work

logger = structlog.get_logger(__name__)


class Commits:
    """Those of one worker, each of all its partitions. Owned by one event loop."""

    def __init__(
        self,
        partitions: Mapping[int, OwnedPartition],
        unsettled: Unsettled,
        checkpoints: CheckpointWriter,
        interval: float,
    ) -> None:
        """``partitions``, ``unsettled``: as they are at each commit; ``interval``: seconds between two."""
        self._partitions = partitions
        self._unsettled = unsettled
        self._checkpoints = checkpoints
        self._interval = interval
        self._committing = asyncio.Lock()
        self._due = asyncio.Event()  # one should not wait for the timer
        self._ended = False
        self._settled = 0  # uploads since the last one
        self._idle_at = 0.0  # by the loop's clock, if no further upload ends before
        self._awaits_idleness = False

    async def run(self) -> None:
        """Commit until `end`, and once more then."""
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._due.wait()
            self._due.clear()
            self._settled = 0
            await self.commit()

    def end(self) -> None:
        """Nothing is in work any more."""
        self._ended = True
        self._due.set()

    def settled(self) -> None:
        """An upload has its place."""
        self._settled += 1
        if self._settled >= COMMIT_AFTER:
            self._due.set()
        self.await_idleness()

    def await_idleness(self) -> None:
        """An upload is not in work any more: commit soon after the last, as nothing is to come that could share the commit."""
        loop = asyncio.get_running_loop()
        self._idle_at = loop.time() + IDLE_AFTER * self._interval
        if not self._awaits_idleness:
            self._awaits_idleness = True
            loop.call_at(self._idle_at, self._commit_if_idle)

    async def commit(self) -> bool:
        """Commit all partitions now; whether that was possible."""
        async with self._committing:
            accounts = [(partition.progress, partition.outcomes) for partition in self._partitions.values()]
            try:
                await commit(accounts, self._checkpoints.write)
            except Unavailable as error:
                logger.warning("checkpoint put off", reason=str(error))
                return False
        return True

    def _commit_if_idle(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._idle_at:  # an upload has ended meanwhile; one timer for all of them costs less
            loop.call_at(self._idle_at, self._commit_if_idle)
            return
        self._awaits_idleness = False
        if self._settled and not self._unsettled.in_work:
            self._due.set()
