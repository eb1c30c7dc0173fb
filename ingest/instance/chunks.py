"""The process-wide byte budget of instances on their way to the log.

A fragment is copied once, from the connection's receive buffer into a chunk; the log writes the chunk as it
is. A chunk is taken only when data is there, and comes back when the log has it durable. With none left,
connections stop reading and TCP holds their peers. So that half-filled chunks of slow peers cannot hold the
whole budget and none finish, a wait makes the longest idle of them publish what it has as a part.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ingest.contract.records import HEADER, MAX_METADATA, MAX_PAYLOAD

# In front of what a chunk is filled with: room for the head of its record, in whole cache lines.
_HEADROOM: Final = -(-(HEADER.size + MAX_METADATA) // 64) * 64

# Of the budget, an eighth is for what a connection had read when its upload could take no further chunk.
_UNREAD_SHARE = 8


class _Chunk(bytearray):
    """What `ChunkPool` lends, and its headroom."""


def joined(head: bytes, payload: Sequence[memoryview]) -> bytes | memoryview:
    """A record in one piece, for a log that needs it so; to be used before its chunk is.

    ``payload`` is a chunk's beginning, as it was filled, or short. The head goes into the chunk's headroom: half a
    megabyte need not be copied for a few hundred bytes.
    """
    if len(payload) == 1 and type(chunk := payload[0].obj) is _Chunk:
        start = _HEADROOM - len(head)
        chunk[start:_HEADROOM] = head
        return memoryview(chunk)[start : _HEADROOM + len(payload[0])]
    return b"".join((head, *payload))


class Holder(Protocol):
    """Whoever fills a chunk, and can be asked to give it up early."""

    size: int  # bytes of its data set so far

    def yield_chunk(self) -> bool:
        """Publish or put aside what is there; ``False`` when nothing can be given up."""


class ChunkPool:
    """Buffers of one record payload each, reused; with what is read but must wait they stay within ``budget`` bytes."""

    def __init__(self, budget: int) -> None:
        self._unmade = self._chunks = max(2, (budget - budget // _UNREAD_SHARE) // MAX_PAYLOAD)
        self._free: list[memoryview] = []
        self._filling: dict[Holder, None] = {}  # in order of last use: the first is the longest idle
        # In order; each once, as who is called may find that another was quicker, and wait again.
        self._waiting: dict[Callable[[], object], None] = {}

    @property
    def free(self) -> bool:
        """Whether a chunk can be had at once."""
        return bool(self._free or self._unmade)

    @property
    def used_bytes(self) -> int:
        """How much is lent; any thread may ask."""
        return (self._chunks - self._unmade - len(self._free)) * MAX_PAYLOAD

    def acquire(self, holder: Holder) -> memoryview | None:
        """A chunk for ``holder`` to fill, or ``None`` when the budget is used up.

        After ``None``, call `wait` and try again when called back.
        """
        if self._free:
            chunk = self._free.pop()
        elif self._unmade:
            self._unmade -= 1
            chunk = memoryview(_Chunk(_HEADROOM + MAX_PAYLOAD))[_HEADROOM:]
        else:
            return None
        self._filling[holder] = None
        return chunk

    def used(self, holder: Holder) -> None:
        """``holder`` has just filled some more: it is no longer the longest idle."""
        self._filling[holder] = self._filling.pop(holder)

    def submitted(self, holder: Holder, size: int = 0) -> None:  # noqa: ARG002 - of a share's account
        """``holder`` fills no chunk any more; what it had is with the log, or released."""
        self._filling.pop(holder, None)

    def release(self, chunk: memoryview) -> None:
        """Give a chunk back; whoever waits longest is called."""
        self._free.append(chunk)
        self._call_next()

    def wait(self, resume: Callable[[], object]) -> None:
        """Call ``resume`` when a chunk is free, and see to it that one becomes free."""
        self._waiting[resume] = None
        for holder in list(self._filling):
            if holder.yield_chunk():
                return

    def forget(self, resume: Callable[[], object]) -> bool:
        """The waiter waits no longer; whether it did."""
        if resume not in self._waiting:
            return False
        del self._waiting[resume]
        return True

    def pass_on(self) -> None:
        """Who was called needs no chunk any more: call the next."""
        if self.free:
            self._call_next()

    def _call_next(self) -> None:
        if self._waiting:
            resume = next(iter(self._waiting))
            del self._waiting[resume]
            resume()
