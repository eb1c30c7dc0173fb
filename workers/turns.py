"""Who may work when: a few uploads at once, those of one SOP Instance UID in the order of the log."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


async def _go_on_waiting() -> None:
    """Nothing is to be done meanwhile."""


class Turns:
    """``at_once`` slots; a turn belongs to a SOP Instance UID and is taken in the order of the calls.

    An upload that was in hand when a worker died is let in alone, so that the next death, if it comes, has
    one suspect.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._slots = asyncio.Semaphore(at_once)
        self._gathering = asyncio.Lock()
        self._queues: dict[str, deque[asyncio.Event]] = {}
        self._stalled: set[str] = set()

    @asynccontextmanager
    async def of(
        self, sop_instance_uid: str, when_stalled: Callable[[], Awaitable[None]] = _go_on_waiting
    ) -> AsyncIterator[None]:
        """Hold the UID: no other upload of it goes on meanwhile. An empty one names nothing and never waits.

        ``when_stalled`` is awaited on the way there if the upload that has the turn is stalled, see `stall`.
        """
        if not sop_instance_uid:
            yield
            return
        queue = self._queues.setdefault(sop_instance_uid, deque())
        mine = asyncio.Event()  # set when the turn has come, or is stalled
        queue.append(mine)
        try:
            told = False
            while queue[0] is not mine:
                if sop_instance_uid in self._stalled and not told:
                    told = True
                    await when_stalled()
                    continue
                mine.clear()
                await mine.wait()
            yield
        finally:
            first = queue[0] is mine
            queue.remove(mine)
            if first:
                self._stalled.discard(sop_instance_uid)
            if not queue:
                del self._queues[sop_instance_uid]
            elif first:
                queue[0].set()

    def stall(self, sop_instance_uid: str) -> None:
        """Whoever has the turn keeps it, and waits for the world."""
        queue = self._queues.get(sop_instance_uid)
        if queue:
            self._stalled.add(sop_instance_uid)
            for event in queue:
                event.set()

    @asynccontextmanager
    async def slot(self, *, alone: bool) -> AsyncIterator[None]:
        """Hold one slot, or with ``alone`` all of them."""
        taken = 0
        try:
            # Two that gather slots at the same time would each wait for the other's.
            async with self._gathering:
                while taken < (self._at_once if alone else 1):
                    await self._slots.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                self._slots.release()
