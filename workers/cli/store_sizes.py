"""How much each shard group of each store directory holds."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

_SHARD = re.compile(r"[0-9a-f]{3}\Z")


class ShardGroup(msgspec.Struct, frozen=True):
    """The 256 shards that begin with one hex digit, in one store directory."""

    store: str
    shards: str  # 0xx to fxx
    objects: int
    bytes: int


def shard_groups(stores: Iterable[Path]) -> Iterator[ShardGroup]:
    """The groups that hold anything; one look at each object's directory entry and size."""
    for store in stores:
        found: dict[str, list[int]] = {}
        for shard in _entries(store):
            if _SHARD.match(shard.name):
                sizes = found.setdefault(shard.name[0], [0, 0])
                for entry in _entries(shard.path):
                    if entry.name.endswith(".dcm"):
                        sizes[0] += 1
                        sizes[1] += entry.stat().st_size
        yield from (ShardGroup(str(store), f"{digit}xx", *found[digit]) for digit in sorted(found))


def _entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return
