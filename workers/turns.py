"""Who may work when: a few uploads at once, those of one SOP Instance UID in the order of the log."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


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

    @asynccontextmanager
    async def of(self, sop_instance_uid: str) -> AsyncIterator[None]:
        """Hold the UID: no other upload of it goes on meanwhile. An empty one names nothing and never waits."""
        if not sop_instance_uid:
            yield
            return
        queue = self._queues.setdefault(sop_instance_uid, deque())
        mine = asyncio.Event()
        if not queue:
            mine.set()
        queue.append(mine)
        try:
            await mine.wait()
            yield
        finally:
            queue.remove(mine)
            if queue:
                queue[0].set()
            else:
                del self._queues[sop_instance_uid]

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
