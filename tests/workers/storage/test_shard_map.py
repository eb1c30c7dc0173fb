"""The map names one store for each shard, and changes no more than it must."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.storage.directory_root import DirectoryRoot
from workers.storage.layout import SHARDS, shards
from workers.storage.shard_map import (
    MAP_FILE,
    ShardMap,
    WrongStores,
    decode_map,
    encode_map,
    even_plan,
    first_map,
    read_map,
    write_map,
)


def grown(names: int, added: int) -> ShardMap:
    shard_map = first_map("0" * 32, [f"store-{number}" for number in range(names)])
    for number in range(added):
        shard_map = shard_map.with_store(f"store-{names + number}", shard_map.version + 1)
    return shard_map


@given(st.integers(1, 9), st.integers(0, 5))
def test_rebalancing_is_even_and_moves_only_what_it_must(names: int, added: int) -> None:
    """Adding a store moves nothing; the plan evens out with the fewest moves, and then has none left."""
    shard_map = grown(names, added)
    assert shard_map.shards == first_map("0" * 32, [f"store-{number}" for number in range(names)]).shards
    plan = even_plan(shard_map)
    after = shard_map.moved(plan, {})
    counts = [after.shards.count(index) for index in range(len(after.stores))]
    assert sum(counts) == SHARDS
    assert max(counts) - min(counts) <= 1
    before = Counter(shard_map.shards)
    low = SHARDS // (names + added)
    assert len(plan) <= sum(max(0, before[index] - low) for index in range(names))
    assert not even_plan(after)
    assert all(after.store_of(shard) == after.stores[plan[shard]] for shard in plan)


def test_each_shard_has_one_store() -> None:
    """Every shard is one of the map's stores', and each store has some."""
    shard_map = grown(3, 0)
    assert {shard_map.store_of(shard) for shard in shards()} == set(shard_map.stores)


@given(st.integers(1, 4), st.integers(0, 3))
def test_a_map_comes_back(names: int, added: int) -> None:
    """Decode undoes encode."""
    shard_map = grown(names, added)
    assert decode_map(encode_map(shard_map)) == shard_map
    moved = shard_map.moved({"abc": 0}, {"abc": names - 1})
    assert decode_map(encode_map(moved)) == moved
    assert moved.emptied("abc").emptying == {}


@given(st.data())
def test_a_damaged_map_is_refused(data: st.DataObject) -> None:
    """A map that rots never sends a UID to the wrong store."""
    encoded = bytearray(encode_map(grown(2, 0)))
    encoded[data.draw(st.integers(0, len(encoded) - 2))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(WrongStores):
        decode_map(bytes(encoded))


@given(st.binary(max_size=100))
def test_other_bytes_are_no_map(data: bytes) -> None:
    """Only the documented error escapes."""
    with pytest.raises(WrongStores):
        decode_map(data)


@pytest.mark.parametrize("wrong", [(0,) * (SHARDS - 1), (2,) * SHARDS, (-1,) * SHARDS])
def test_a_map_names_a_store_of_its_own_for_each_shard(wrong: tuple[int, ...]) -> None:
    """A map with a gap is none."""
    with pytest.raises(ValueError, match="each shard"):
        ShardMap(set_id="0" * 32, stores=("a", "b"), shards=wrong)


def test_a_map_is_replaced_whole(tmp_path: Path) -> None:
    """The file is written beside and renamed."""
    root = DirectoryRoot(tmp_path)
    write_map(root, grown(1, 0))
    inode = (tmp_path / MAP_FILE).stat().st_ino
    write_map(root, grown(1, 1))
    assert (tmp_path / MAP_FILE).stat().st_ino != inode
    assert read_map(root) == grown(1, 1)
    assert [path.name for path in tmp_path.iterdir()] == [MAP_FILE]
    (tmp_path / MAP_FILE).write_bytes(b"x")
    with pytest.raises(WrongStores, match=str(tmp_path)):
        read_map(root)
