"""Stores that did not answer when a worker started: it works without them, and takes them in once they answer.

Nothing of their shards can be placed meanwhile, so what is theirs waits. That the map which the others agree on
is theirs too is only certain when no change of it was interrupted (see `stores.changing`), and it is checked
when they come back.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from workers.errors import Unavailable
from workers.storage.layout import Area, Key
from workers.storage.object_store import Listed, Look, ObjectStore, Pieces, Start, StoredBytes
from workers.storage.root import OpenStore, Root
from workers.storage.shard_map import ShardMap, WrongStores, read_identity, read_map

_LOOK_EVERY: Final = 5.0  # seconds


class AbsentRoots:
    """The roots that did not answer; which store is at which of them is known once it does. Its methods block."""

    def __init__(self, roots: Sequence[Root], shard_map: ShardMap) -> None:
        self._map = shard_map
        self._roots = list(roots)
        self._named: dict[str, Root] = {}
        self._held = contextlib.ExitStack()
        self._lock = threading.Lock()

    def open(self, name: str) -> OpenStore:
        """Take the store of that name in.

        Raises:
            WrongStores: it has another map: only a new start can tell what follows.
            Unavailable, OSError: it does not answer yet.
        """
        with self._lock, contextlib.ExitStack() as resources:
            root = self._find(name)
            resources.enter_context(root.shared())
            if read_map(root) != self._map:
                raise WrongStores(f"{root} has come back with another version of the shard map")
            root.probe()
            store = root.open(name)
            resources.callback(store.close)
            store.sweep()
            self._held.push(resources.pop_all())
            return store

    def close(self) -> None:
        """Let go of what was taken in."""
        self._held.close()

    def _find(self, name: str) -> Root:
        silence: Exception | None = None
        for root in self._roots:
            try:
                identity = read_identity(root)
            except (Unavailable, OSError) as error:
                silence = error
                continue
            if identity is None or identity.stores != self._map.set_id:
                raise WrongStores(f"{root} is not the store that the shard map names")
            if identity.name == name:
                return root
        if silence is None:
            raise WrongStores(f"none of the configured stores is {name}, which the shard map names")
        raise silence


class AbsentStore:
    """See `ObjectStore`: `Unavailable` until it answers."""

    def __init__(self, roots: AbsentRoots, name: str) -> None:
        self.name: str = name
        self._roots = roots
        self._store: OpenStore | None = None
        self._next = 0.0
        self._why = ""
        self._looking = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def close(self) -> None:
        """Look no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def refuse_at_rest(self) -> None:
        """See `ObjectStore.refuse_at_rest`."""
        if self._store is not None:
            self._store.refuse_at_rest()
        elif self._looking or time.monotonic() < self._next:
            raise Unavailable(f"{self.name} has not answered since the start{self._why}", _LOOK_EVERY)

    async def put_new(self, key: Key, pieces: Pieces) -> bool:
        """See `ObjectStore.put_new`."""
        return await (await self._found()).put_new(key, pieces)

    async def start(self, key: Key, length: int) -> Start | None:
        """See `ObjectStore.start`."""
        return await (await self._found()).start(key, length)

    async def start_if_checked(self, key: Key, length: int) -> Start | None:
        """See `ObjectStore.start_if_checked`."""
        return await (await self._found()).start_if_checked(key, length)

    async def read_back(self, keys: deque[Key], look: Look) -> None:
        """See `ObjectStore.read_back`."""
        await (await self._found()).read_back(keys, look)

    async def sync(self) -> None:
        """See `ObjectStore.sync`."""
        await (await self._found()).sync()

    async def open(self, key: Key) -> StoredBytes | None:
        """See `ObjectStore.open`."""
        return await (await self._found()).open(key)

    async def find(self, area: Area, shard: str, below: str = "") -> list[Listed]:
        """See `ObjectStore.find`."""
        return await (await self._found()).find(area, shard, below)

    async def which(self, keys: Sequence[Key]) -> list[Key]:
        """See `ObjectStore.which`."""
        return await (await self._found()).which(keys)

    async def filled(self, area: Area) -> list[str]:
        """See `ObjectStore.filled`."""
        return await (await self._found()).filled(area)

    async def move(self, source: Key, target: Key) -> bool:
        """See `ObjectStore.move`."""
        return await (await self._found()).move(source, target)

    async def has_begun_to_move(self, source: Key, target: Key) -> bool:
        """See `ObjectStore.has_begun_to_move`."""
        return await (await self._found()).has_begun_to_move(source, target)

    async def replace(self, key: Key, pieces: Pieces) -> None:
        """See `ObjectStore.replace`."""
        await (await self._found()).replace(key, pieces)

    async def remove(self, key: Key) -> None:
        """See `ObjectStore.remove`."""
        await (await self._found()).remove(key)

    @asynccontextmanager
    async def lock(self, shard: str) -> AsyncIterator[None]:
        """See `ObjectStore.lock`."""
        async with (await self._found()).lock(shard):
            yield

    def locate(self, key: Key) -> str:
        """See `ObjectStore.locate`; by its name until it has answered."""
        return f"{self.name}/{key}" if self._store is None else self._store.locate(key)

    async def _found(self) -> ObjectStore:
        """The store, taken in; one asks it at a time, and not all the time."""
        if self._store is not None:
            return self._store
        self.refuse_at_rest()
        self._looking = True
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._take_in)
        except (Unavailable, OSError) as error:
            self._why = f": {error}" if isinstance(error, Unavailable) else f": {error.strerror}"
            raise Unavailable(
                f"{self.name} has not answered since the start{self._why}", _LOOK_EVERY
            ) from None
        finally:
            self._looking = False
            self._next = time.monotonic() + _LOOK_EVERY

    def _take_in(self) -> ObjectStore:
        """Open it once, for the next, too, where whoever asked is cancelled; blocks."""
        if self._store is None:
            self._store = self._roots.open(self.name)
        return self._store
