"""`shards add` and `shards rebalance`: change which store has which shard, alone with the stores.

Adding a store moves nothing. Rebalancing moves one shard at a time, and may be interrupted anywhere:

    1 cleared    the new store has nothing of the shard (an interrupted copy is not trusted)
    2 copied     the new store has all of it, durably, each read back from both; the map still names the old one
    3 published  all stores have the map that names the new one, and the old one as to be emptied
    4 emptied    the old store has nothing of the shard, and the map says so

A map is published store by store. Until all have the same version every other process refuses to start, and
the next run publishes the newest, whose copies were complete before it was written to the first.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ingest.contract.settings import StoreSettings
from ingest.contract.store_urls import StoreUrl
from workers.dataset.payload import sha256
from workers.errors import Unavailable
from workers.storage.layout import Area, Key, shards
from workers.storage.object_store import Listed, ObjectStore, StoredBytes
from workers.storage.root import Root
from workers.storage.roots import root_of, roots_of
from workers.storage.shard_map import (
    ShardMap,
    StoreIdentity,
    WrongStores,
    even_plan,
    read_identity,
    read_map,
    write_identity,
    write_map,
)
from workers.storage.stores import agreed_map, changing, named_roots

Place = Path | StoreUrl | Root

_RETRY = 1.0  # seconds


class Progress(NamedTuple):
    """How far a rebalance has come."""

    shard: str
    done: int  # shards
    planned: int


def _ignore(_: object) -> None:
    """Nobody wants to know."""


def add_store(places: Sequence[Place], place: Place, settings: StoreSettings | None = None) -> str:
    """Make ``place`` a store without shards; its name. ``places``: those configured, with or without it.

    Raises:
        WrongStores: in use, not in agreement, or ``place`` has objects or is part of other stores.
        Unavailable: a bucket.
        OSError: the file system's.
    """
    root = root_of(place, settings)
    others = [other for other in roots_of(places, settings) if other.place != root.place]
    if not any(read_map(other) for other in others):
        raise WrongStores("there is no store yet that this one could join")
    root.make()
    root.there()
    root.probe()
    with changing([*others, root]):
        return _add(others, root)


def _add(others: Sequence[Root], root: Root) -> str:
    newest = newest_map(others)
    identity = read_identity(root)
    if identity is not None and identity.stores == newest.set_id and identity.name in newest.stores:
        if all(read_map(each) == newest for each in [root, *others]):
            raise WrongStores(f"{root} is {identity.name} already, or a copy of it")
        for each in [root, *others]:  # an earlier run was interrupted
            write_map(each, newest)
        return identity.name
    shard_map, _ = agreed_map(others)
    if identity is None:
        if root.holds_objects():
            raise WrongStores(f"{root} holds objects already")
        identity = StoreIdentity(shard_map.set_id, _free_name(shard_map))
        write_identity(root, identity)
    elif identity.stores != shard_map.set_id:
        raise WrongStores(f"{root} belongs to another set of stores")
    stale = read_map(root)  # of a run that was interrupted
    version = max(shard_map.version, stale.version if stale else 0) + 1
    for each in [root, *others]:
        write_map(each, shard_map.with_store(identity.name, version))
    return identity.name


async def rebalance(
    places: Sequence[Place],
    settings: StoreSettings | None = None,
    *,
    progress: Callable[[Progress], None] = _ignore,
) -> int:
    """Move shards until the stores have equally many; first end what was interrupted. The number of moves.

    Raises:
        WrongStores: in use, or the places are not the map's.
        Unavailable: a store.
        OSError: the file system's.
    """
    roots = roots_of(places, settings)
    newest_map(roots)  # before anything is made in a folder that is no store
    with changing(roots), contextlib.ExitStack() as stack:
        shard_map = newest_map(roots)
        named = named_roots(roots, shard_map)
        stores: dict[str, ObjectStore] = {}
        for name, root in named.items():
            stores[name] = stack.enter_context(contextlib.closing(root.open(name)))
        work = _Work(shard_map, named, stores)
        work.publish(shard_map)
        for shard in list(shard_map.emptying):
            await work.empty(shard)
        plan = even_plan(work.map)
        empty = await work.move_empty(plan)
        filled = [shard for shard in plan if shard not in empty]
        for done, shard in enumerate(filled):
            progress(Progress(shard, len(empty) + done, len(plan)))
            await work.move(shard, plan[shard])
        return len(plan)


def newest_map(roots: Sequence[Root]) -> ShardMap:
    """The newest map that any store has.

    Raises:
        WrongStores: none has one, or two newest ones contradict each other.
    """
    known = [found for root in roots if (found := read_map(root)) is not None]
    if not known:
        raise WrongStores(f"{roots[0]} has no shard map")
    newest = max(known, key=lambda shard_map: shard_map.version)
    if any(found.version == newest.version and found != newest for found in known):
        raise WrongStores("the stores have different shard maps of one version; restore the right one")
    return newest


class _Work:
    """Moves shards; holds the map as last published."""

    def __init__(
        self,
        shard_map: ShardMap,
        roots: dict[str, Root],
        stores: dict[str, ObjectStore],
    ) -> None:
        self.map: ShardMap = shard_map
        self._roots = roots
        self._stores = stores

    def publish(self, shard_map: ShardMap) -> None:
        """Give all stores the map."""
        for root in self._roots.values():
            if read_map(root) != shard_map:
                write_map(root, shard_map)
        self.map = shard_map

    async def move_empty(self, plan: dict[str, int]) -> set[str]:
        """Move the shards of a plan that hold nothing anywhere, all at once; which they are."""
        occupied = {name: await _occupied(store) for name, store in self._stores.items()}
        names = self.map.stores
        empty = {
            shard
            for shard, target in plan.items()
            if shard not in occupied[self.map.store_of(shard)] and shard not in occupied[names[target]]
        }
        if empty:
            self.publish(self.map.moved({shard: plan[shard] for shard in empty}, {}))
        return empty

    async def move(self, shard: str, target: int) -> None:
        """Move one shard, see the steps above."""
        source = self.map.shards[int(shard, 16)]
        old, new = self._store(source), self._store(target)
        await _clear(new, shard)
        await _copy(old, new, shard)
        if await _all(old, shard) != await _all(new, shard):
            raise Unavailable(f"shard {shard} is not complete at {new.name}; nothing was removed", _RETRY)
        self.publish(self.map.moved({shard: target}, {shard: source}))
        await self.empty(shard)

    async def empty(self, shard: str) -> None:
        """Take a shard's old copies away: its new store had them all before the map said so."""
        await _clear(self._store(self.map.emptying[shard]), shard)
        self.publish(self.map.emptied(shard))

    def _store(self, index: int) -> ObjectStore:
        return self._stores[self.map.stores[index]]


async def _occupied(store: ObjectStore) -> set[str]:
    """The shards that a store may have anything of."""
    return {shard for area in Area for shard in await store.filled(area)}


async def _all(store: ObjectStore, shard: str) -> list[Listed]:
    return [listed for area in Area for listed in await store.find(area, shard)]


async def _clear(store: ObjectStore, shard: str) -> None:
    for listed in await _all(store, shard):
        await store.remove(listed.key)


async def _copy(old: ObjectStore, new: ObjectStore, shard: str) -> None:
    for listed in await _all(old, shard):
        try:
            await _copy_one(old, new, listed.key)
        except (OSError, Unavailable, UnicodeError) as error:
            why = (error.strerror if isinstance(error, OSError) else "") or error
            raise Unavailable(
                f"{old.locate(listed.key)!a} cannot be copied to {new.name}: {why}", _RETRY
            ) from None


async def _copy_one(old: ObjectStore, new: ObjectStore, key: Key) -> None:
    with await _opened(old, key) as payload:
        if not await new.put_new(key, payload.blocks()):
            raise Unavailable("the other store changed meanwhile", _RETRY)
    # One wrong answer would else be all that is left of it.
    if await _digest(old, key) != await _digest(new, key):
        raise Unavailable("what is there then is not what is here; nothing was removed", _RETRY)


async def _digest(store: ObjectStore, key: Key) -> str:
    with await _opened(store, key) as payload:
        return await asyncio.to_thread(sha256, payload)


async def _opened(store: ObjectStore, key: Key) -> StoredBytes:
    payload = await store.open(key)
    if payload is None:
        raise Unavailable("it has gone meanwhile", _RETRY)
    return payload


def _free_name(shard_map: ShardMap) -> str:
    """A name that no store of the set has had: names stand in outcomes for ever."""
    number = len(shard_map.stores)
    name = f"store-{number}"
    return name if name not in shard_map.stores else f"store-{secrets.token_hex(4)}"


def shard_counts(shard_map: ShardMap) -> dict[str, int]:
    """How many shards each store has, in the order in which the stores joined."""
    counts = dict.fromkeys(shard_map.stores, 0)
    for shard in shards():
        counts[shard_map.store_of(shard)] += 1
    return counts
