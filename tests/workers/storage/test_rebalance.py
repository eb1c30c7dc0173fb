"""Adding moves nothing; rebalancing moves shards whole, and may be killed anywhere."""

import asyncio
import shutil
from pathlib import Path

import pytest

from ingest.contract.records import Place
from tests.support.bad_place import BadPlace
from tests.support.killing import killed_at_each_call
from workers.cli.account import Move
from workers.cli.moves import read_moves
from workers.errors import Unavailable
from workers.storage import rebalance as rebalancing
from workers.storage.directory_root import DirectoryRoot
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import Area, Key, conflict_key, move_key, object_key, quarantine_key, shard_of
from workers.storage.moves import record_move
from workers.storage.object_store import ObjectStore
from workers.storage.rebalance import add_store, rebalance
from workers.storage.shard_map import WrongStores, read_map
from workers.storage.stores import open_stores

UIDS = [f"1.2.{number}" for number in range(6)]


def keys() -> list[Key]:
    """Something in each area."""
    found = [object_key(uid) for uid in UIDS]
    found += [
        conflict_key(UIDS[0], "a" * 64),
        quarantine_key("", "b" * 64),
        quarantine_key(UIDS[1], "c" * 64),
    ]
    return [*found, move_key(shard_of(UIDS[0]), bytes(16))]


def filled(roots: list[Path]) -> None:
    async def fill() -> None:
        with open_stores(roots) as stores:
            for key in keys():
                await stores.of(key).put_new(key, [str(key).encode()])

    asyncio.run(fill())


def contents(roots: list[Path]) -> list[tuple[str, bytes]]:
    """All objects, read where the map says that they are."""

    async def read() -> list[tuple[str, bytes]]:
        found = []
        with open_stores(roots) as stores:
            for area in Area:
                async for listed in stores.find(area):
                    start = await stores.of(listed.key).start(listed.key, 1000)
                    assert start is not None
                    found.append((str(listed.key), start.data))
        return sorted(found)

    return asyncio.run(read())


def _add(roots: list[Path], root: Path) -> None:
    add_store(roots, root)


def _rebalance(roots: list[Path]) -> None:
    asyncio.run(rebalance(roots))


EXPECTED = sorted((str(key), str(key).encode()) for key in keys())


def files(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and "/" in str(path.relative_to(root))
    )


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    return [tmp_path / name for name in ("a", "b", "c")]


def test_adding_moves_nothing_and_rebalancing_moves_whole_shards(roots: list[Path]) -> None:
    """Every object is found before and after, at the store that the map names, and nowhere else."""
    filled(roots[:1])
    assert add_store(roots[:1], roots[1]) == "store-1"
    assert add_store(roots, roots[2]) == "store-2"  # the settings may name it already
    assert files(roots[1]) == files(roots[2]) == []
    assert contents(roots) == EXPECTED
    moved = asyncio.run(rebalance(roots))
    assert moved == 4096 - 1366
    assert contents(roots) == EXPECTED
    everywhere = [name for root in roots for name in files(root)]
    assert sorted(everywhere) == [key for key, _ in EXPECTED]
    assert files(roots[1])
    assert files(roots[2])
    assert asyncio.run(rebalance(roots)) == 0
    shard_map = read_map(DirectoryRoot(roots[0]))
    assert shard_map is not None
    assert shard_map.emptying == {}


def test_adding_may_be_killed_anywhere(roots: list[Path]) -> None:
    """The same command ends it; meanwhile the old stores work, or say what to do."""

    def prepare() -> None:
        for root in roots:
            shutil.rmtree(root, ignore_errors=True)
        filled(roots[:1])

    for _ in killed_at_each_call(prepare, lambda: _add(roots[:1], roots[1]), every=2):
        try:
            assert add_store(roots[:1], roots[1]) == "store-1"
        except WrongStores as error:
            assert "already" in str(error)  # noqa: PT017 - it had come through
        assert contents(roots[:2]) == EXPECTED
        shard_map = read_map(DirectoryRoot(roots[0]))
        assert shard_map is not None
        assert shard_map.stores == ("store-0", "store-1")


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_rebalancing_may_be_killed_anywhere(roots: list[Path], every: int) -> None:
    """At every kill all objects are there, whole, for whoever may start; the same command ends it."""
    template = roots[0].with_name("template")
    filled(roots[:1])
    add_store(roots[:1], roots[1])
    for root in roots[:2]:
        shutil.copytree(root, template / root.name)

    def prepare() -> None:
        for root in roots[:2]:
            shutil.rmtree(root)
            shutil.copytree(template / root.name, root)

    kills = 0
    for _ in killed_at_each_call(prepare, lambda: _rebalance(roots[:2]), every):
        kills += 1
        try:
            assert contents(roots[:2]) == EXPECTED
        except WrongStores as error:
            assert "rebalance" in str(error)  # noqa: PT017 - or nobody may start
        asyncio.run(rebalance(roots[:2]))
        assert contents(roots[:2]) == EXPECTED
        assert sorted([*files(roots[0]), *files(roots[1])]) == [key for key, _ in EXPECTED]
    assert kills > 50 // every


def test_a_move_counts_once_though_two_stores_have_its_record(
    roots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebalance that ends between copy and map leaves both; what is moved later is in one of them only."""
    key = next(
        key for number in range(1000) if (key := quarantine_key(f"1.2.{number}", "a" * 64)).shard < "800"
    )

    with open_stores(roots[:1]) as stores:
        places = Place.QUARANTINED, Place.STORED
        asyncio.run(record_move(stores.of(key), bytes(16), places, key, "r"))
    add_store(roots[:1], roots[1])
    copy = rebalancing._copy

    async def copy_and_end(old: ObjectStore, new: ObjectStore, shard: str) -> None:
        await copy(old, new, shard)
        raise Unavailable("the other store does not answer any more", 1.0)

    monkeypatch.setattr(rebalancing, "_copy", copy_and_end)
    with pytest.raises(Unavailable):
        _rebalance(roots[:2])
    assert len([*roots[0].glob("moves/*/*"), *roots[1].glob("moves/*/*")]) == 2
    records = [DirectoryRoot(root) for root in roots[:2]]
    assert read_moves(records) == [Move(bytes(16), Place.QUARANTINED, Place.STORED)]
    with open_stores(roots[:2]) as stores:
        asyncio.run(record_move(stores.of(key), bytes(16), (Place.STORED, Place.CONFLICT), key, "r"))
    for order in (records, records[::-1]):
        assert read_moves(order) == [Move(bytes(16), Place.QUARANTINED, Place.CONFLICT)]


def test_what_cannot_be_copied_is_named(roots: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an administrator can do something about it, and a shard has thousands of objects."""
    filled(roots[:1])
    key = min(keys(), key=lambda key: key.shard)  # of those that are moved
    add_store(roots[:1], roots[1])
    BadPlace(roots[0] / str(key), 0, monkeypatch)
    with pytest.raises(Unavailable, match=rf"a/{key}' cannot be copied to store-1: .*Input/output error"):
        _rebalance(roots[:2])
    assert (roots[0] / str(key)).exists()


def test_a_store_without_room_stops_the_move_and_loses_nothing(
    roots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit stays where it is; the same command goes on when there is room."""
    filled(roots[:1])
    add_store(roots[:1], roots[1])
    put_new = DirectoryStore._put_new

    def full(self: DirectoryStore, *_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DirectoryStore, "_put_new", full)
    with pytest.raises(Unavailable, match="No space"):
        asyncio.run(rebalance(roots[:2]))
    monkeypatch.setattr(DirectoryStore, "_put_new", put_new)
    assert contents(roots[:2]) == EXPECTED
    asyncio.run(rebalance(roots[:2]))
    assert contents(roots[:2]) == EXPECTED


def test_a_store_with_objects_cannot_be_added(roots: list[Path]) -> None:
    """Nor one of another set, nor one that is there already."""
    filled(roots[:1])
    filled(roots[1:2])
    with pytest.raises(WrongStores, match="another set"):
        add_store(roots[:1], roots[1])
    (roots[2] / "abc").mkdir(parents=True)
    with pytest.raises(WrongStores, match="objects"):
        add_store(roots[:1], roots[2])
    shutil.rmtree(roots[2])
    add_store(roots[:1], roots[2])
    with pytest.raises(WrongStores, match="already"):
        add_store([roots[0], roots[2]], roots[2])
    with pytest.raises(WrongStores, match="no store yet"):
        add_store([roots[0]], roots[0])
