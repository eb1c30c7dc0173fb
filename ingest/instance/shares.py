"""Who gets the next chunk where several sources want one: each its share, by weight, however many associations it has.

What sources contend for is the event loop's time for each turn of reading and the log's for each group. Both are spent on
chunks: one that is being filled costs the loop a read and a copy a turn, one that is published the log a place in the queue.
So while one source alone sends, nothing is limited; beside others it has, by its weight, some chunks to fill at a time and
some bytes in the log's queue, and its other associations wait, their sockets unread. Then nobody waits for more than that
much of others, and 200 associations or a series of 4 GB of one source delay an image of another by a few MiB, not by all
that the budget holds.

A chunk that fills slowly costs nobody time and is not counted, so that a facility behind a slow line is not held to the
speed of the few lines that would have its share.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from ingest.contract.records import MAX_PAYLOAD
from ingest.instance.chunks import ChunkPool, Holder

_ALL: Final = 1 << 62
# While anyone waits, it is looked this often whose chunks fill slowly: by less than this since the last look (3 MB/s). A
# peer that fills its socket's buffer has more in one read, even where the loop comes round no more often than that.
_LOOK: Final = 0.02  # s
_SLOW: Final = 64 * 1024  # bytes
_NEW: Final = -1  # bytes of what was not yet there at the last look

Later = Callable[[float, Callable[[], None]], object]


class Share:
    """What one source has of the chunks: the pool as its uploads see it."""

    def __init__(self, shares: "Shares", pool: ChunkPool, weight: int) -> None:
        self._shares = shares
        self._pool = pool
        self.used, self._acquire, self._submitted = pool.used, pool.acquire, pool.submitted
        self.weight = weight
        self.active = False
        self.asked = False  # for a chunk, since it was last looked whether it is active
        self.asked_at = 0.0
        self.chunks = self.bytes = _ALL  # its limits: to fill at a time, and in the log's queue
        self.queued = 0  # bytes in the log's queue
        self.called = 0  # waiters that have not come for their chunk yet
        self.slow = 0  # chunks that fill slowly
        self.filling: dict[Holder, int] = {}  # and how much their uploads had at the last look
        self.waiting: deque[Callable[[], None]] = deque()
        self._queue: deque[int] = deque()  # bytes of each chunk there; which is which does not matter

    @property
    def free(self) -> bool:
        """Whether a chunk can be had at once."""
        return self.has_room and self._pool.free

    @property
    def has_room(self) -> bool:
        """Whether its share allows another chunk."""
        return self.queued < self.bytes and len(self.filling) - self.slow + self.called < self.chunks

    @property
    def load(self) -> float:
        """What it has, for its weight."""
        return (self.queued + (len(self.filling) + self.called) * MAX_PAYLOAD) / self.weight

    def acquire(self, holder: Holder) -> memoryview | None:
        """See `ChunkPool`."""
        self.asked = True
        if self.called:
            self.called -= 1
        if not self.active:
            self._shares.activate(self)
        if self.chunks != _ALL and not self.has_room:
            return None
        chunk = self._acquire(holder)
        if chunk is not None:
            self.filling[holder] = _NEW
        return chunk

    def submitted(self, holder: Holder, size: int = 0) -> None:
        """See `ChunkPool`; ``size`` bytes of the chunk go to the log."""
        self._submitted(holder)
        if self.filling.pop(holder, None) is not None:
            self._queue.append(size)
            self.queued += size
        if self._shares.waiting:
            self._shares.serve()

    def release(self, chunk: memoryview) -> None:
        """See `ChunkPool`."""
        if self._queue:
            self.queued -= self._queue.popleft()
        waiting = self._shares.waiting
        self._pool.release(chunk)
        if waiting and self._shares.waiting == waiting:  # nobody waits for the pool
            self._shares.serve()

    def wait(self, resume: Callable[[], None]) -> None:
        """See `ChunkPool`."""
        self.waiting.append(resume)
        self._shares.waiting += 1
        if self.has_room:
            self._pool.wait(self._shares.serve)
        self._shares.look_later()

    def forget(self, resume: Callable[[], None]) -> bool:
        """See `ChunkPool`."""
        if resume not in self.waiting:
            return False
        self.waiting.remove(resume)
        self._shares.waiting -= 1
        self._pool.forget(self._shares.serve)
        return True

    def pass_on(self) -> None:
        """See `ChunkPool`."""
        if self.called:
            self.called -= 1
        self._shares.serve()


class Shares:
    """All sources' shares of one pool; owned by one event loop.

    ``window`` is what all may have beside one another, in bytes; a source that has asked for nothing for ``memory`` seconds
    is one beside which nobody need keep to a share. ``later`` calls a function after so many seconds.
    """

    def __init__(self, pool: ChunkPool, window: int, memory: float, later: Later | None = None) -> None:
        self._pool = pool
        self._window = window
        self._memory = memory
        self._later = later
        self._shares: dict[str, Share] = {}
        self._looking = False
        self.waiting = 0  # for a chunk, of all sources

    def of(self, source: str, weight: int = 0) -> Share:
        """The share of a source, which from now on has this weight, or keeps its own."""
        share = self._shares.get(source)
        if share is None:
            share = self._shares[source] = Share(self, self._pool, weight)
        elif weight and share.weight != weight:
            share.weight = weight
            self._limit()
        return share

    def activate(self, share: Share) -> None:
        """A source begins to send."""
        share.active = True
        self._limit()

    def watch(self, now: float) -> None:
        """See who has ceased to send; to be called every now and then."""
        ceased = False
        for share in self._shares.values():
            if share.asked or share.filling or share.queued:
                share.asked, share.asked_at = False, now
            elif share.active and now - share.asked_at > self._memory:
                share.active, ceased = False, True
        if ceased:
            self._limit()

    def serve(self) -> bool:
        """Call one who waits and may have a chunk now, of the source that has least for its weight; whether there was one."""
        if not self.waiting or not self._pool.free:
            return False
        ready = [share for share in self._shares.values() if share.waiting and share.has_room]
        if not ready:
            return False
        share = min(ready, key=_load)
        share.called += 1
        self.waiting -= 1
        share.waiting.popleft()()
        return True

    def look_later(self) -> None:
        """Somebody waits: see soon who fills its chunk slowly."""
        if not self._looking:
            self._looking = True
            later = self._later or asyncio.get_running_loop().call_later
            later(_LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        if not self.waiting:
            return
        for share in self._shares.values():
            share.called = 0  # who was called has come by now, or never will
            share.slow = 0
            for holder, before in share.filling.items():
                share.slow += before != _NEW and holder.size - before < _SLOW
                share.filling[holder] = holder.size
        while self.serve():
            pass
        if self.waiting:
            self.look_later()

    def _limit(self) -> None:
        active = [share for share in self._shares.values() if share.active]
        total = sum(share.weight for share in active)
        for share in self._shares.values():
            if len(active) > 1 and share.active:
                share.bytes = self._window * share.weight // total
                share.chunks = max(1, round(share.bytes / MAX_PAYLOAD))
            else:
                share.bytes = share.chunks = _ALL
        while self.serve():
            pass


def _load(share: Share) -> float:
    return share.load
