"""What a store can do, whatever it is made of: one conditional create, ranged reads, a listing, a lock.

The bytes under a key never change after they become visible. The recorded exceptions are `move`, which sets
a damaged object aside, and `replace`, for a conflict that an administrator resolves.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, Self

from workers.dataset.payload import Payload
from workers.storage.layout import Area, Key

Pieces = Iterable[bytes | memoryview]
# What is shown of an object that is read back: its key, its size, its bytes in blocks that hold until the next one.
Look = Callable[[Key, int, Iterator[memoryview]], None]


class Start(NamedTuple):
    """The beginning of an object; what is found is durable."""

    data: bytes
    size: int  # bytes of the whole object


class Listed(NamedTuple):
    """One object of a listing."""

    key: Key
    size: int  # bytes


class StoredBytes(Payload, Protocol):
    """An object opened for ranged reads, which block."""

    def close(self) -> None:
        """Give back what was opened."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class ObjectStore(Protocol):
    """One store, opened by any number of processes at once, each of which makes any number of calls at once.

    Every method raises `Unavailable` when the store cannot serve now, and nothing is left behind; so it does for an
    `OSError` of ``pieces``. The message has no key: it is logged. Whatever blocks is done off the event loop.
    """

    @property
    def name(self) -> str:
        """Its name in the shard map and in outcomes."""

    def refuse_at_rest(self) -> None:
        """Raise `Unavailable` where a request would be refused unasked, before anything is prepared for it."""

    async def put_new(self, key: Key, pieces: Pieces) -> bool:
        """Create the object, whole and durable, or find the key taken: True if this call created it.

        Either way what is under the key is durable when this returns. Of an object that is not complete,
        nothing is ever visible. A False may mean our own earlier write: the manifest tells.
        """

    async def start(self, key: Key, length: int) -> Start | None:
        """Up to ``length`` first bytes of an object, made durable as found; None where there is none.

        Raises:
            BadPlace: they are kept where nobody can read them any more.
        """

    async def start_if_checked(self, key: Key, length: int) -> Start | None:
        """As `start`, of an object whose SHA-256 the store itself checked when it was put, and returns now.

        None of any other, which says nothing about it.
        """

    async def read_back(self, keys: deque[Key], look: Look) -> None:
        """Take the next keys, at least one while there are any, and show ``look``, which blocks, what is under each.

        All of one call in one thread. Calls at once share ``keys``: whoever comes last may find none left.

        What is not there or cannot be opened is passed over; ``look`` meets the errors of what it reads. All that was
        shown is durable only when `sync` has returned since.
        """

    async def sync(self) -> None:
        """Make durable all that is there."""

    async def open(self, key: Key) -> StoredBytes | None:
        """Open for ranged reads; None where there is none."""

    async def find(self, area: Area, shard: str, below: str = "") -> list[Listed]:
        """The objects of an area and shard whose name begins with ``below``, in order of their keys."""

    async def which(self, keys: Sequence[Key]) -> list[Key]:
        """Those of these keys that are taken, looked at in this order."""

    async def filled(self, area: Area) -> list[str]:
        """The shards that may hold objects of an area, in order; none that does is left out."""

    async def move(self, source: Key, target: Key) -> bool:
        """Set an object aside, whole and durably, at a key that nobody else uses; False where there is none.

        A target that is taken is left alone: `Unavailable`. The caller holds the lock of the shard.
        """

    async def has_begun_to_move(self, source: Key, target: Key) -> bool:
        """Whether ``target`` is what `move` leaves that is interrupted, and not of a move before: the same move ends it."""

    async def replace(self, key: Key, pieces: Pieces) -> None:
        """Put other bytes under a key, atomically and durably."""

    async def remove(self, key: Key) -> None:
        """Remove an object, durably; one that is not there is removed already."""

    def lock(self, shard: str) -> AbstractAsyncContextManager[None]:
        """Hold back all others that change the lanes of a shard, in any process; a killed holder's is given back."""

    def locate(self, key: Key) -> str:
        """Where an administrator finds what is under a key: a path or URL that ends in it, and leads to no secret."""
