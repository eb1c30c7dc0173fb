"""The configured stores as one: opened together by the shard map, which they all must agree on.

Every process that uses the stores is present in each; whoever changes the map is alone in all, so no process
ever works by a map that is no longer true. See `root`.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from ingest.contract.settings import StoreSettings
from ingest.contract.store_urls import StoreUrl
from workers.errors import Unavailable
from workers.storage.absent import AbsentRoots, AbsentStore
from workers.storage.layout import Area, Key, shard_of
from workers.storage.object_store import Listed, ObjectStore
from workers.storage.root import Root
from workers.storage.roots import roots_of
from workers.storage.shard_map import (
    ShardMap,
    StoreIdentity,
    WrongStores,
    first_map,
    read_identity,
    read_map,
    write_identity,
    write_map,
)

CHANGE_FILE: Final = "changing"
_RETRY: Final = 10.0  # seconds


class Stores:
    """All stores, and which has which shard. Close it to let go of the lock."""

    def __init__(
        self,
        shard_map: ShardMap,
        stores: Mapping[str, ObjectStore],
        held: contextlib.ExitStack,
        *,
        replaying: bool = False,
        silent: Sequence[str] = (),
    ) -> None:
        """``held``: what to let go of when closed; ``replaying``: see `open_stores`."""
        self.map: ShardMap = shard_map
        self.silent: Sequence[str] = silent  # why each of those was not opened that did not answer
        self.replaying: bool = replaying
        self._stores = stores
        self._held = held

    def of(self, key: Key | str) -> ObjectStore:
        """The store that has a key or shard."""
        return self._stores[self.map.store_of(key if isinstance(key, str) else key.shard)]

    def named(self, name: str) -> ObjectStore:
        """The store of that name."""
        return self._stores[name]

    async def find(self, area: Area, uid: str = "") -> AsyncIterator[Listed]:
        """Everything in an area, shard by shard, or in the folder of one UID.

        What a store holds of shards that are another's is not part of it.
        """
        if uid:
            shard = shard_of(uid)
            for listed in await self.of(shard).find(area, shard, uid + "/"):
                yield listed
            return
        for name in self.map.stores:
            store = self._stores[name]
            for shard in await store.filled(area):
                if self.map.store_of(shard) == name:
                    for listed in await store.find(area, shard):
                        yield listed

    def close(self) -> None:
        """Let go of everything; may be called again."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_stores(
    places: Sequence[Path | StoreUrl | Root],
    settings: StoreSettings | None = None,
    *,
    replaying: bool = False,
    working: bool = False,
    checksums: bool = False,
    founding: Callable[[], bool] = lambda: True,
) -> Stores:
    """Open the stores for work; the first time of all, make them.

    ``replaying``: an administrator has uploads placed anew, whatever moves are recorded of them; ``working``:
    for a worker, which tries first whether buckets keep what we rely on, and does without those that do not
    answer until they do; ``checksums``: buckets are to return those that they checked, see `checksums`;
    ``founding``: whether it may be the first time of all, asked where it looks like that.

    Raises:
        WrongStores: they do not agree on the shard map, one is missing or not part of it, they are being
            changed, or a bucket cannot be relied on.
        Unavailable: a bucket, or all that there are of stores that cannot be new.
        OSError: the file system's.
    """
    with contextlib.ExitStack() as stack:
        roots = roots_of(places, settings, checksums=checksums)
        for root in roots:
            stack.callback(root.close)
        silent = _silent(roots) if working else {}
        answering = [root for root in roots if root not in silent]
        if not silent:
            _refuse_new(roots, founding)
            _form(roots, probing=working)
        for root in answering:
            stack.enter_context(root.shared())
            if working:
                root.probe()
        shard_map, named = _map_without(answering, list(silent)) if silent else agreed_map(roots)
        stores: dict[str, ObjectStore] = {}
        for name, root in named.items():
            store = root.open(name)
            stack.callback(store.close)
            store.sweep()
            stores[name] = store
        stores.update(_absent(list(silent), shard_map, stores, stack))
        why = [str(error) for error in silent.values()]
        return Stores(shard_map, stores, stack.pop_all(), replaying=replaying, silent=why)


def _silent(roots: Sequence[Root]) -> dict[Root, Unavailable]:
    """The buckets that do not answer, if others do that have a shard map.

    Raises:
        Unavailable: none does.
    """
    silent: dict[Root, Unavailable] = {}
    for root in roots:
        try:
            root.there()
        except Unavailable as error:
            silent[root] = error
    if silent and not any(root.there() and read_map(root) for root in roots if root not in silent):
        raise next(iter(silent.values()))
    return silent


def _map_without(answering: Sequence[Root], silent: Sequence[Root]) -> tuple[ShardMap, dict[str, Root]]:
    """The map, and the roots by name that answer; only if those that do not can have no other map.

    Raises:
        WrongStores: those that answer do not agree, or are not the map's.
        Unavailable: a change was interrupted, so the silent ones may have another map.
    """
    if any(root.read(CHANGE_FILE) for root in answering):
        raise Unavailable(
            f"{silent[0]} does not answer, and a change of the shard map was interrupted", _RETRY
        )
    maps = [read_map(root) for root in answering]
    newest = maps[0]
    if newest is None or any(shard_map != newest for shard_map in maps):
        raise WrongStores("the stores that answer have different versions of the shard map")
    return newest, named_roots(answering, newest, missing=len(silent))


def _absent(
    silent: Sequence[Root],
    shard_map: ShardMap,
    present: Mapping[str, ObjectStore],
    stack: contextlib.ExitStack,
) -> Iterator[tuple[str, AbsentStore]]:
    """The stores that do not answer."""
    if not silent:
        return
    roots = AbsentRoots(silent, shard_map)
    stack.callback(roots.close)
    for name in shard_map.stores:
        if name not in present:
            store = AbsentStore(roots, name)
            stack.callback(store.close)
            yield name, store


def agreed_map(roots: Sequence[Root]) -> tuple[ShardMap, dict[str, Root]]:
    """The map that all stores agree on, and their roots by name.

    Raises:
        WrongStores: they do not agree, or the roots are not exactly the map's stores.
    """
    maps = [read_map(root) for root in roots]
    known = [shard_map for shard_map in maps if shard_map is not None]
    if not known:
        raise WrongStores(f"{roots[0]} has no shard map")
    newest = max(known, key=lambda shard_map: shard_map.version)
    named = named_roots(roots, newest)
    if any(shard_map != newest for shard_map in maps):
        raise WrongStores(
            "the stores have different versions of the shard map: a change was interrupted; "
            "`dicom-ingest shards rebalance` finishes it"
        )
    return newest, named


def named_roots(roots: Sequence[Root], shard_map: ShardMap, missing: int = 0) -> dict[str, Root]:
    """The roots by the name of the store that each is; ``missing``: how many are not among them.

    Raises:
        WrongStores: they are not exactly the map's stores.
    """
    named: dict[str, Root] = {}
    for root in roots:
        identity = read_identity(root)
        if identity is None or (
            identity.stores == shard_map.set_id and identity.name not in shard_map.stores
        ):
            raise WrongStores(
                f"{root} is not in the shard map: if it is new, `dicom-ingest shards add {root}`; "
                "if it is not, is it mounted?"
            )
        if identity.stores != shard_map.set_id:
            raise WrongStores(f"{root} belongs to another set of stores")
        if identity.name in named:
            raise WrongStores(f"{root} and {named[identity.name]} are the same store, or copies of it")
        named[identity.name] = root
    absent = [name for name in shard_map.stores if name not in named]
    if len(absent) != missing:
        raise WrongStores(f"none of the configured stores is {', '.join(absent)}, which the shard map names")
    return named


@contextlib.contextmanager
def changing(places: Sequence[Path | Root]) -> Iterator[None]:
    """Hold the stores alone, to change the map; each says so meanwhile, and still does if that is interrupted.

    Raises:
        WrongStores: somebody uses them.
    """
    roots = roots_of(places)
    with contextlib.ExitStack() as stack:
        for root in roots:
            stack.enter_context(root.alone())
        for root in roots:
            root.replace(CHANGE_FILE, b"a change of the shard map has begun\n")
        try:
            yield
        finally:
            _end_change(roots)


def _end_change(roots: Sequence[Root]) -> None:
    """Take the notes of a change away once all have the same map."""
    with contextlib.suppress(Unavailable, OSError, WrongStores):
        maps = [shard_map for root in roots if (shard_map := read_map(root)) is not None]
        if all(shard_map == maps[0] for shard_map in maps):
            for root in roots:
                root.remove(CHANGE_FILE)


def new_identity(roots: Sequence[Root]) -> Iterator[tuple[Root, StoreIdentity]]:
    """An identity for each root; those that an interrupted start has named keep theirs.

    Raises:
        WrongStores: they belong to different sets of stores.
    """
    given = [(root, read_identity(root)) for root in roots]
    present = [identity for _, identity in given if identity is not None]
    set_id = present[0].stores if present else secrets.token_hex(16)
    taken = {identity.name for identity in present}
    free = (name for number in range(len(roots)) if (name := f"store-{number}") not in taken)
    for root, identity in given:
        if identity is not None and identity.stores != set_id:
            raise WrongStores(f"{root} belongs to another set of stores")
        yield root, identity or StoreIdentity(set_id, next(free))


def _refuse_new(roots: Sequence[Root], founding: Callable[[], bool]) -> None:
    """An empty folder where a store was is not taken for a new one: a disk that comes back over it would hide what came.

    Raises:
        Unavailable: none of them has a map, and they cannot be new.
    """
    if not any(root.there() and read_map(root) for root in roots) and not founding():
        raise Unavailable(
            f"{roots[0]} has no shard map, though workers have stored there: is it mounted? "
            "Stores that are to be new need a new data folder, on Kafka a new group",
            _RETRY,
        )


def _form(roots: Sequence[Root], *, probing: bool) -> None:
    """Make the stores if none of them has a map yet; may be interrupted anywhere and done again."""
    _make(roots)
    if all(read_map(root) for root in roots):
        return
    with roots[0].forming():
        maps = [read_map(root) for root in roots]
        if all(maps):
            return
        found = next((shard_map for shard_map in maps if shard_map is not None), None)
        if found is None:
            for root in roots if probing else ():
                root.probe()
            found = _first_map(roots)
        # Every store had its identity before the first had version 1.
        named_roots(roots, found)
        if found.version == 1:
            for root, shard_map in zip(roots, maps, strict=True):
                if shard_map is None:
                    write_map(root, found)


def _make(roots: Sequence[Root]) -> None:
    """Make the folders where no store has a map yet; else none may be missing."""
    if len({root.place for root in roots}) != len(roots):
        raise WrongStores("the settings name a store twice")
    existing = [root for root in roots if root.there()]
    absent = [root for root in roots if root not in existing]
    if absent and any(read_map(root) is not None for root in existing):
        raise WrongStores(f"{absent[0]} does not exist: is it mounted?")
    for root in absent:
        root.make()


def _first_map(roots: Sequence[Root]) -> ShardMap:
    for root in roots:
        if root.holds_objects():
            raise WrongStores(
                f"{root} holds objects, but no store has a shard map: restore the files shard-map and "
                "store.json from a backup"
            )
    identities = list(new_identity(roots))
    for root, identity in identities:
        write_identity(root, identity)
    return first_map(identities[0][1].stores, [identity.name for _, identity in identities])
