"""The shard map: which store has which of the 4096 shards. Pure, but for reading and replacing its record.

Each store keeps the whole map in ``shard-map`` and says which store it is in ``store.json``; so a folder may
be mounted elsewhere tomorrow, and hashing UIDs onto a changed list of folders never creates a UID twice.
The file is one line of magic, version and CRC-32C, and one line of JSON; it is replaced atomically.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec
from crc32c import crc32c

from workers.storage.layout import SHARDS, shards

MAP_FILE: Final = "shard-map"
STORE_FILE: Final = "store.json"
_FIRST_LINE = re.compile(rb"DICMSHM1 ([0-9a-f]{8})\Z")


class Records(Protocol):
    """Where a store keeps its records."""

    def read(self, name: str) -> bytes | None:
        """A record; None where there is none."""

    def replace(self, name: str, data: bytes) -> None:
        """Put a record in the place of the one before, durably."""


class WrongStores(Exception):  # noqa: N818 - named for the fact
    """The stores do not fit together or are in use; the message tells an administrator what to do."""


class StoreIdentity(msgspec.Struct, frozen=True):
    """Which store a folder is."""

    stores: str  # which set of stores, 32 hex digits
    name: str  # in the shard map and in outcomes


class ShardMap(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the map. ``shards[n]`` is the index in ``stores`` of the store that has shard n."""

    set_id: str  # of the set of stores, 32 hex digits
    version: int = 1  # grows with every change
    stores: tuple[str, ...]  # names, in the order in which they joined
    shards: tuple[int, ...]
    emptying: Mapping[str, int] = {}  # shard -> store that it has left, where its old copies may remain

    def __post_init__(self) -> None:
        """Refuse what is no map, as msgspec does for types."""
        if len(self.shards) != SHARDS or not set(self.shards) <= set(range(len(self.stores))):
            raise ValueError("a map names one of its stores for each shard")

    def store_of(self, shard: str) -> str:
        """Name of the store that has a shard."""
        return self.stores[self.shards[int(shard, 16)]]

    def with_store(self, name: str, version: int) -> "ShardMap":
        """With one more store, which has no shards yet."""
        return msgspec.structs.replace(self, stores=(*self.stores, name), version=version)

    def moved(self, plan: Mapping[str, int], emptying: Mapping[str, int]) -> "ShardMap":
        """With the shards of ``plan`` at the stores of those indexes."""
        moved = list(self.shards)
        for shard, index in plan.items():
            moved[int(shard, 16)] = index
        return msgspec.structs.replace(
            self, shards=tuple(moved), emptying={**self.emptying, **emptying}, version=self.version + 1
        )

    def emptied(self, shard: str) -> "ShardMap":
        """Without a shard's old copies."""
        left = {name: index for name, index in self.emptying.items() if name != shard}
        return msgspec.structs.replace(self, emptying=left, version=self.version + 1)


def first_map(set_id: str, names: list[str]) -> ShardMap:
    """Version 1: the shards dealt out in turn."""
    return ShardMap(
        set_id=set_id, stores=tuple(names), shards=tuple(shard % len(names) for shard in range(SHARDS))
    )


def even_plan(shard_map: ShardMap) -> dict[str, int]:
    """The fewest moves after which no store has two shards more than another: shard -> index of its new store."""
    count = len(shard_map.stores)
    held = Counter(shard_map.shards)
    low, extra = divmod(SHARDS, count)
    # Who has most already keeps one of the shards that do not divide.
    ranked = sorted(range(count), key=lambda index: (-held[index], index))
    wanted = {index: low + (rank < extra) for rank, index in enumerate(ranked)}
    missing = [index for index in range(count) for _ in range(wanted[index] - held[index])]
    plan: dict[str, int] = {}
    for shard, owner in zip(shards(), shard_map.shards, strict=True):
        if held[owner] > wanted[owner]:
            held[owner] -= 1
            plan[shard] = missing.pop(0)
    return plan


def encode_map(shard_map: ShardMap) -> bytes:
    """The bytes of a map's file."""
    body = msgspec.json.encode(shard_map)
    return b"DICMSHM1 %08x\n%s\n" % (crc32c(body), body)


def decode_map(data: bytes) -> ShardMap:
    """The map in the bytes of its file.

    Raises:
        WrongStores: damaged, or of a later release.
    """
    first, _, rest = data.partition(b"\n")
    body = rest.removesuffix(b"\n")
    match = _FIRST_LINE.match(first)
    if match is None or int(match[1], 16) != crc32c(body):
        raise WrongStores("the shard map is damaged, or of a release that this one cannot read")
    try:
        return msgspec.json.decode(body, type=ShardMap)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WrongStores(f"the shard map cannot be read: {error}") from None


def read_map(root: Records) -> ShardMap | None:
    """The map that the store at ``root`` keeps; None where there is none.

    Raises:
        WrongStores: damaged.
        OSError, Unavailable: the store.
    """
    data = root.read(MAP_FILE)
    try:
        return None if data is None else decode_map(data)
    except WrongStores as error:
        raise WrongStores(f"{root}/{MAP_FILE}: {error}") from None


def write_map(root: Records, shard_map: ShardMap) -> None:
    """Replace the map at ``root``, durably.

    Raises:
        OSError, Unavailable: the store; the map before stands then.
    """
    root.replace(MAP_FILE, encode_map(shard_map))


def read_identity(root: Records) -> StoreIdentity | None:
    """Which store is at ``root``; None where it does not say.

    Raises:
        WrongStores: damaged.
        OSError, Unavailable: the store.
    """
    data = root.read(STORE_FILE)
    try:
        return None if data is None else msgspec.json.decode(data, type=StoreIdentity)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WrongStores(f"{root}/{STORE_FILE} cannot be read: {error}") from None


def write_identity(root: Records, identity: StoreIdentity) -> None:
    """Say which store is at ``root``, durably.

    Raises:
        OSError, Unavailable: the store.
    """
    root.replace(STORE_FILE, msgspec.json.encode(identity) + b"\n")
