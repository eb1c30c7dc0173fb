"""A folder as a store, beyond what all stores promise (`test_store_contract`): its files, folders, syncs and remains."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from tests.support.file_limit import longest_file
from workers.errors import Unavailable
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import conflict_key, object_key, quarantine_key

KEY = object_key("1.2.3")
DIGEST = "a" * 64


@pytest.fixture(params=["nameless", "named"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DirectoryStore]:
    """With O_TMPFILE, and as on a file system without it."""
    store = DirectoryStore(tmp_path, "store-0")
    store._files._nameless = request.param == "nameless"
    yield store
    store.close()


def path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of what is synced from now on, which is not."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(str(path_of(descriptor))))
    return synced


def refuse(_descriptor: int) -> None:
    raise OSError(5, "Input/output error")


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_the_first_creates_and_the_second_finds(store: DirectoryStore, tmp_path: Path) -> None:
    """One create; a second changes nothing and says so."""

    async def scenario() -> None:
        assert await store.put_new(KEY, [b"head", memoryview(b"data")]) is True
        assert await store.put_new(KEY, [b"other"]) is False
        start = await store.start(KEY, 6)
        assert start is not None
        assert (start.data, start.size) == (b"headda", 8)

    asyncio.run(scenario())
    assert (tmp_path / str(KEY)).read_bytes() == b"headdata"
    assert files(tmp_path) == [str(KEY)]
    assert (tmp_path / str(KEY)).stat().st_nlink == 1
    assert not (tmp_path / str(KEY)).stat().st_mode & 0o007


def test_a_reader_that_fails_leaves_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    """Nothing incomplete is ever visible, nor left."""

    def pieces() -> Iterator[bytes]:
        yield b"half"
        assert files(tmp_path) == [] or store._files._nameless is False
        raise OSError(5, "Input/output error")

    with pytest.raises(Unavailable):
        asyncio.run(store.put_new(KEY, pieces()))
    assert files(tmp_path) == []
    assert asyncio.run(store.put_new(KEY, [b"whole"]))


def test_a_limit_on_the_size_of_files_is_like_a_full_disk(store: DirectoryStore, tmp_path: Path) -> None:
    """An object beyond it is held, nothing of it is left, and the process lives; smaller ones go on."""
    with longest_file(1 << 20):
        with pytest.raises(Unavailable, match="File too large"):
            asyncio.run(store.put_new(KEY, [bytes(1 << 20), b"and more"]))
        assert files(tmp_path) == []
        assert asyncio.run(store.put_new(object_key("9.9"), [b"small"]))
    assert asyncio.run(store.put_new(KEY, [bytes(1 << 20), b"and more"]))


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_failed_sync_is_no_success(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """fsync of file or folder fails: the caller hears it, and the next try settles it."""
    asyncio.run(store.put_new(object_key("9.9"), [b""]))  # folders of the store are made
    sync = os.fsync

    def failing(descriptor: int) -> None:
        if path_of(descriptor).is_dir() is (which == "folder"):
            raise OSError(5, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Unavailable):
        asyncio.run(store.put_new(KEY, [b"whole"]))
    monkeypatch.setattr(os, "fsync", sync)
    asyncio.run(store.put_new(KEY, [b"whole"]))
    assert (tmp_path / str(KEY)).read_bytes() == b"whole"
    assert not list((tmp_path / "tmp").glob("*"))


def test_whoever_finds_syncs_first(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that linked it may have died before its own sync: file and folder are synced before it counts."""
    asyncio.run(store.put_new(KEY, [b"whole"]))
    synced = syncs(monkeypatch)
    path = tmp_path / str(KEY)
    finds: list[Callable[[DirectoryStore], Coroutine[None, None, object]]] = [
        lambda other: other.put_new(KEY, [b"x"]),
        lambda other: other.start(KEY, 1),
    ]
    for find in finds:
        other = DirectoryStore(tmp_path, "of another process")
        synced.clear()
        asyncio.run(find(other))
        other.close()
        assert {str(path), str(path.parent)} <= set(synced)


def test_what_was_synced_is_not_synced_again(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what this process stored nor what it has found once; a failed sync counts for nothing."""
    asyncio.run(store.put_new(KEY, [b"whole"]))
    found = DirectoryStore(tmp_path, "of another process")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(Unavailable):
            asyncio.run(found.start(KEY, 1))
    synced = syncs(monkeypatch)
    asyncio.run(store.start(KEY, 1))
    assert not synced
    asyncio.run(found.start(KEY, 1))
    assert synced
    synced.clear()
    asyncio.run(found.start(KEY, 1))
    found.close()
    assert not synced


@pytest.mark.parametrize("change", ["moved away and back", "made anew", "written to"])
def test_what_another_has_changed_is_synced_again(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Whatever another process does to an object, its name may not be durable yet."""
    asyncio.run(store.put_new(KEY, [b"whole"]))
    path = tmp_path / str(KEY)
    time.sleep(0.02)  # a tick of the clock of file systems; see `durable_files`
    if change == "moved away and back":
        path.rename(tmp_path / "aside")
        (tmp_path / "aside").rename(path)
    elif change == "made anew":
        path.unlink()
        path.write_bytes(b"whole")
    else:
        path.write_bytes(b"other")
    synced = syncs(monkeypatch)
    asyncio.run(store.start(KEY, 1))
    assert {str(path), str(path.parent)} <= set(synced)


def test_folders_are_durable_before_what_is_in_them(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new folder is synced into its parent, once a process even where another has made it."""
    key = conflict_key("1.2.3", DIGEST)
    (tmp_path / "conflicts").mkdir()
    synced: list[str] = []
    sync = os.fsync

    def recording(descriptor: int) -> None:
        synced.append(str(path_of(descriptor)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    asyncio.run(store.put_new(key, [b"x"]))
    folder = (tmp_path / str(key)).parent
    assert {str(folder), str(folder.parent), str(tmp_path / "conflicts"), str(tmp_path)} <= set(synced)


def test_replacing_is_atomic_and_leaves_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    """The key has the old bytes or the new ones; the old file is not written to."""

    async def scenario() -> None:
        await store.put_new(KEY, [b"first"])
        with await store.open(KEY) as before:  # type: ignore[union-attr]
            await store.replace(KEY, [b"second", b"!"])
            assert bytes(before.read(0, 5)) == b"first"

        def broken() -> Iterator[bytes]:
            yield b"third"
            raise OSError(28, "No space left on device")

        with pytest.raises(Unavailable):
            await store.replace(KEY, broken())

    asyncio.run(scenario())
    assert (tmp_path / str(KEY)).read_bytes() == b"second!"
    assert files(tmp_path) == [str(KEY)]


def test_a_uid_folder_goes_with_its_last_entry(store: DirectoryStore, tmp_path: Path) -> None:
    """Lanes do not fill with empty folders, and one that has gone is made again."""
    key = quarantine_key("1.2.3", DIGEST)

    async def scenario() -> None:
        for _ in range(2):
            assert await store.put_new(key, [b"x"])
            await store.remove(key)
            assert not (tmp_path / str(key)).parent.exists()

    asyncio.run(scenario())


def test_a_shard_folder_that_vanishes_is_made_again(store: DirectoryStore, tmp_path: Path) -> None:
    """What a process remembers of folders is not trusted over the disk."""

    async def scenario() -> None:
        await store.put_new(KEY, [b"x"])
        (tmp_path / str(KEY)).unlink()
        (tmp_path / str(KEY)).parent.rmdir()
        assert await store.put_new(KEY, [b"y"])

    asyncio.run(scenario())


def test_errors_do_not_tell_paths(store: DirectoryStore, tmp_path: Path) -> None:
    """A message that may reach logs names the trouble and no UID."""
    (tmp_path / KEY.shard).write_bytes(b"a file where a folder should be")
    with pytest.raises(Unavailable) as caught:
        asyncio.run(store.put_new(KEY, [b"x"]))
    assert "1.2.3" not in str(caught.value)
    assert caught.value.retry_after > 0


def test_the_sweep_spares_the_living(tmp_path: Path) -> None:
    """What a killed writer left goes; what a writer holds stays."""
    store = DirectoryStore(tmp_path, "store-0")
    assert store.sweep() == 0
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "left").write_bytes(b"x")
    with (tmp_path / "tmp" / "held").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert store.sweep() == 1
        assert files(tmp_path) == ["tmp/held"]
    assert store.sweep() == 1
    store.close()
