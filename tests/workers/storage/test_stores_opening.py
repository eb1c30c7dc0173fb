"""The stores open together, agreed on one map, or not at all."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.killing import killed_at_each_call
from tests.support.small_disk import SmallDisk
from workers.errors import Unavailable
from workers.storage.directory_root import DirectoryRoot
from workers.storage.layout import object_key
from workers.storage.rebalance import add_store
from workers.storage.shard_map import MAP_FILE, STORE_FILE, WrongStores, read_map, write_map
from workers.storage.stores import changing, open_stores

OPENER = """
import sys
from pathlib import Path
from workers.storage.stores import open_stores
sys.stdin.read()
with open_stores([Path(path) for path in sys.argv[1:]]) as stores:
    print(stores.map.set_id, flush=True)
"""


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    return [tmp_path / name for name in ("a", "b", "c")]


def test_the_first_start_makes_them(roots: list[Path]) -> None:
    """Folders that are not there are made; all have the same map, each another name, the shards dealt out."""
    with open_stores(roots) as stores:
        assert [stores.named(name).name for name in stores.map.stores] == ["store-0", "store-1", "store-2"]
        counts = [stores.map.shards.count(index) for index in range(len(stores.map.stores))]
        assert max(counts) - min(counts) <= 1
        key = object_key("1.2.3")
        assert stores.of(key) is stores.of(key.shard)
        first = stores.map
    assert [read_map(DirectoryRoot(root)) for root in roots] == [first] * 3
    with open_stores(roots) as stores:
        assert stores.map == first


def test_the_order_of_the_settings_does_not_matter(roots: list[Path]) -> None:
    """A folder says itself which store it is; it may be mounted elsewhere tomorrow."""
    with open_stores(roots) as stores:
        place = Path(stores.of(object_key("1.2.3")).locate(object_key("1.2.3")))
    moved = roots[0].with_name("elsewhere")
    roots[0].rename(moved)
    with open_stores([roots[2], moved, roots[1]]) as stores:
        again = Path(stores.of(object_key("1.2.3")).locate(object_key("1.2.3")))
    assert again.relative_to(again.parents[1]) == place.relative_to(place.parents[1])
    assert again.parents[1] == (moved if place.parents[1] == roots[0] else place.parents[1])


def test_many_processes_start_at_once(roots: list[Path]) -> None:
    """The first start of several workers makes one set of stores."""
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, *map(str, roots)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(5)
    ]  # fmt: skip
    sets = {opener.communicate("")[0] for opener in openers}
    assert [opener.returncode for opener in openers] == [0] * 5
    assert len(sets) == 1
    assert sets != {""}


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])
def test_a_first_start_may_be_killed_anywhere(roots: list[Path], every: int) -> None:
    """The next start goes on where it ended, with one set of stores."""

    def fresh() -> None:
        for root in roots:
            shutil.rmtree(root, ignore_errors=True)

    kills = 0
    for _ in killed_at_each_call(fresh, lambda: open_stores(roots).close(), every):
        kills += 1
        with open_stores(roots) as stores:
            assert sorted(stores.map.stores) == ["store-0", "store-1", "store-2"]
        assert [read_map(DirectoryRoot(root)) for root in roots] == [stores.map] * 3
    assert kills > 10 // every


def test_another_version_refuses_to_start(roots: list[Path]) -> None:
    """Stores that do not agree stop the start, with what to do."""
    with open_stores(roots) as stores:
        newer = stores.map.moved({"abc": 0}, {})
    write_map(DirectoryRoot(roots[1]), newer)
    with pytest.raises(WrongStores, match=r"different versions.*rebalance"):
        open_stores(roots)


def test_a_damaged_map_refuses_to_start(roots: list[Path]) -> None:
    """Nobody guesses where a shard is."""
    open_stores(roots).close()
    (roots[1] / MAP_FILE).write_bytes(b"DICMSHM1 00000000\n{}\n")
    with pytest.raises(WrongStores, match="damaged"):
        open_stores(roots)


@pytest.mark.parametrize("name", ["abc", "quarantine", "tmp"])
def test_a_part_of_a_store_on_another_disk_refuses_to_work(
    roots: list[Path], tmp_path: Path, name: str
) -> None:
    """rename(2) and link(2) do not leave a file system: a damaged object there would keep its key for ever."""
    open_stores(roots, working=True).close()
    with SmallDisk(tmp_path / "disk", "1m") as disk:
        (roots[1] / name).symlink_to(disk.path)
        (roots[1] / "lost+found").symlink_to(disk.path)
        with pytest.raises(WrongStores, match=rf"b/{name} is on another file system.*shards add"):
            open_stores(roots, working=True)
        open_stores(roots).close()  # for commands that look
        (roots[1] / name).unlink()
        open_stores(roots, working=True).close()


def test_a_folder_that_is_not_mounted_refuses_to_start(roots: list[Path]) -> None:
    """An empty folder where a store was is not taken for the store: its UIDs would be created twice."""
    open_stores(roots).close()
    shutil.rmtree(roots[1])
    with pytest.raises(WrongStores, match="is it mounted"):
        open_stores(roots)
    assert not roots[1].exists()
    roots[1].mkdir()
    with pytest.raises(WrongStores, match=r"not in the shard map.*mounted"):
        open_stores(roots)
    assert list(roots[1].iterdir()) == []


def test_stores_that_cannot_be_new_are_not_made_anew(tmp_path: Path) -> None:
    """Also the only one: what is there is found, and what is not is neither made nor written to."""
    root = tmp_path / "store"
    with pytest.raises(Unavailable, match="is it mounted"):
        open_stores([root], founding=lambda: False)
    assert not root.exists()
    open_stores([root]).close()
    open_stores([root], founding=lambda: False).close()


def test_a_store_that_the_settings_forget_refuses_to_start(roots: list[Path]) -> None:
    """All stores of the map must be configured."""
    open_stores(roots).close()
    with pytest.raises(WrongStores, match="none of the configured stores is store-2"):
        open_stores(roots[:2])


def test_a_new_folder_must_be_added_first(roots: list[Path]) -> None:
    """Hashing onto a longer list would create a UID twice; the message names the command."""
    open_stores(roots[:2]).close()
    roots[2].mkdir()
    with pytest.raises(WrongStores, match=f"shards add {roots[2]}"):
        open_stores(roots)


def test_two_sets_do_not_mix(roots: list[Path]) -> None:
    """A store of another installation is refused."""
    open_stores(roots[:1]).close()
    open_stores(roots[1:2]).close()
    with pytest.raises(WrongStores, match="another set of stores"):
        open_stores(roots[:2])


def test_a_copy_of_a_store_is_refused(roots: list[Path]) -> None:
    """Two folders with one identity would split a store."""
    open_stores(roots[:1]).close()
    shutil.copytree(roots[0], roots[1])
    with pytest.raises(WrongStores, match="the same store"):
        open_stores(roots[:2])
    with pytest.raises(WrongStores, match="twice"):
        open_stores([roots[0], roots[0].parent / "." / "a"])


def test_objects_without_a_map_are_not_overlaid(roots: list[Path]) -> None:
    """A lost map is restored, never made anew over objects that it placed."""
    with open_stores(roots[:1]):
        (roots[0] / "abc").mkdir()
    (roots[0] / MAP_FILE).unlink()
    (roots[0] / STORE_FILE).unlink()
    with pytest.raises(WrongStores, match="backup"):
        open_stores(roots[:1])


def test_changes_and_work_exclude_each_other(roots: list[Path]) -> None:
    """Nobody works by a map that is being changed, and none is changed while somebody works by it."""
    with open_stores(roots), open_stores(roots):
        with pytest.raises(WrongStores, match="in use"), changing(roots):
            pass
        with pytest.raises(WrongStores, match="in use"):
            add_store(roots, roots[0].with_name("d"))
    with changing(roots), pytest.raises(WrongStores, match="being changed"):
        open_stores(roots)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_nothing_is_open_to_others(roots: list[Path], umask: None) -> None:
    """Images are for the service and its group, whatever the umask."""
    open_stores(roots[:1]).close()
    assert not roots[0].stat().st_mode & 0o007
