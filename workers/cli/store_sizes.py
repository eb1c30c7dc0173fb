"""How much each shard group of each store holds."""

from collections.abc import Iterable, Iterator

import msgspec

from workers.storage.root import Root


class ShardGroup(msgspec.Struct, frozen=True):
    """The 256 shards that begin with one hex digit, in one store."""

    store: str
    shards: str  # 0xx to fxx
    objects: int
    bytes: int


def shard_groups(roots: Iterable[Root]) -> Iterator[ShardGroup]:
    """The groups that hold anything; one look at each object's size."""
    for root in roots:
        found: dict[str, list[int]] = {}
        for shard, size in root.sizes():
            sizes = found.setdefault(shard[0], [0, 0])
            sizes[0] += 1
            sizes[1] += size
        yield from (ShardGroup(str(root), f"{digit}xx", *found[digit]) for digit in sorted(found))
