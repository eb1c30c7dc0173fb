"""The configured stores as one: opened together by the shard map, which they all must agree on.

Every process that uses the stores holds a shared flock(2) on ``lock`` in each; whoever changes the map holds
it alone, so no process ever works by a map that is no longer true.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import Area, Key, shard_of, shards
from workers.storage.object_store import Listed, ObjectStore
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

_LOCK_FILE: Final = "lock"


class Stores:
    """All stores, and which has which shard. Close it to let go of the lock."""

    def __init__(
        self,
        shard_map: ShardMap,
        stores: Mapping[str, ObjectStore],
        held: contextlib.ExitStack,
        *,
        replaying: bool = False,
    ) -> None:
        """``held``: what to let go of when closed; ``replaying``: see `open_stores`."""
        self.map: ShardMap = shard_map
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


def open_stores(directories: Sequence[Path], *, replaying: bool = False) -> Stores:
    """Open the stores for work; the first time of all, make them.

    ``replaying``: an administrator has uploads placed anew, whatever moves are recorded of them.

    Raises:
        WrongStores: they do not agree on the shard map, one is missing or not part of it, or they are being
            changed.
        OSError: the file system's.
    """
    _form(directories)
    with contextlib.ExitStack() as stack:
        for root in directories:
            stack.enter_context(_locked(root, fcntl.LOCK_SH))
        shard_map, roots = agreed_map(directories)
        stores: dict[str, ObjectStore] = {}
        for name, root in roots.items():
            store = DirectoryStore(root, name)
            stack.callback(store.close)
            store.sweep()
            stores[name] = store
        return Stores(shard_map, stores, stack.pop_all(), replaying=replaying)


def agreed_map(directories: Sequence[Path]) -> tuple[ShardMap, dict[str, Path]]:
    """The map that all stores agree on, and their folders by name.

    Raises:
        WrongStores: they do not agree, or the folders are not exactly the map's stores.
    """
    maps = [read_map(root) for root in directories]
    known = [shard_map for shard_map in maps if shard_map is not None]
    if not known:
        raise WrongStores(f"{directories[0]} has no shard map")
    newest = max(known, key=lambda shard_map: shard_map.version)
    roots = named_roots(directories, newest)
    if any(shard_map != newest for shard_map in maps):
        raise WrongStores(
            "the stores have different versions of the shard map: a change was interrupted; "
            "`dicom-ingest shards rebalance` finishes it"
        )
    return newest, roots


def named_roots(directories: Sequence[Path], shard_map: ShardMap) -> dict[str, Path]:
    """The folders by the name of the store that each is.

    Raises:
        WrongStores: they are not exactly the map's stores.
    """
    roots: dict[str, Path] = {}
    for root in directories:
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
        if identity.name in roots:
            raise WrongStores(f"{root} and {roots[identity.name]} are the same store, or copies of it")
        roots[identity.name] = root
    missing = [name for name in shard_map.stores if name not in roots]
    if missing:
        raise WrongStores(
            f"none of the configured directories is {', '.join(missing)}, which the shard map names"
        )
    return roots


@contextlib.contextmanager
def changing(directories: Sequence[Path]) -> Iterator[None]:
    """Hold the stores alone, to change the map.

    Raises:
        WrongStores: somebody uses them.
    """
    with contextlib.ExitStack() as stack:
        for root in directories:
            stack.enter_context(_locked(root, fcntl.LOCK_EX))
        yield


def holds_objects(root: Path) -> bool:
    """Whether a folder has anything of a store in it."""
    areas = [str(area) for area in Area if area]
    return any((root / name).exists() for name in (*areas, *shards()))


def new_identity(directories: Sequence[Path]) -> Iterator[tuple[Path, StoreIdentity]]:
    """An identity for each folder; those that an interrupted start has named keep theirs."""
    given = {root: read_identity(root) for root in directories}
    present = [identity for identity in given.values() if identity is not None]
    set_id = present[0].stores if present else secrets.token_hex(16)
    taken = {identity.name for identity in present}
    free = (name for number in range(len(directories)) if (name := f"store-{number}") not in taken)
    for root, identity in given.items():
        if identity is not None and identity.stores != set_id:
            raise WrongStores(f"{root} belongs to another set of stores")
        yield root, identity or StoreIdentity(set_id, next(free))


def _form(directories: Sequence[Path]) -> None:
    """Make the stores if none of them has a map yet; may be interrupted anywhere and done again."""
    if len({root.resolve() for root in directories}) != len(directories):
        raise WrongStores("store.directories names a folder twice")
    existing = [root for root in directories if root.is_dir()]
    absent = [root for root in directories if root not in existing]
    if absent and any(read_map(root) is not None for root in existing):
        raise WrongStores(f"{absent[0]} does not exist: is it mounted?")
    for root in absent:
        _make_folder(root)
    with _folder_locked(directories[0]):
        maps = [read_map(root) for root in directories]
        if all(maps):
            return
        found = next((shard_map for shard_map in maps if shard_map is not None), None)
        if found is None:
            found = _first_map(directories)
        # Every store had its identity before the first had version 1.
        named_roots(directories, found)
        if found.version == 1:
            for root, shard_map in zip(directories, maps, strict=True):
                if shard_map is None:
                    write_map(root, found)


def _first_map(directories: Sequence[Path]) -> ShardMap:
    for root in directories:
        if holds_objects(root):
            raise WrongStores(
                f"{root} holds objects, but no store has a shard map: restore the files shard-map and "
                "store.json from a backup"
            )
    identities = list(new_identity(directories))
    for root, identity in identities:
        write_identity(root, identity)
    return first_map(identities[0][1].stores, [identity.name for _, identity in identities])


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each synced into its parent."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(mode=0o750, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _folder_locked(root: Path) -> Iterator[None]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(root: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(root / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WrongStores(
                f"{root} is in use: stop the workers and other commands first"
                if kind == fcntl.LOCK_EX
                else f"{root} is being changed by `dicom-ingest shards`: try again when that has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)
