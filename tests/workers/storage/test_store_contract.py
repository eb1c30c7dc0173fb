"""What every store promises, folder or bucket: created whole or not at all, never overwritten."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from ingest.contract.identifiers import UploadId
from tests.support.buckets import MiB, names, opened_bucket, store_settings
from workers.errors import Unavailable
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import Area, Key, conflict_key, object_key, quarantine_key, reference_key
from workers.storage.object_store import ObjectStore

KEY = object_key("1.2.3")
DIGEST = "a" * 64
STAGED = 2 * MiB  # objects above it are staged


class Place:
    """One store, as several processes open it."""

    def __init__(self, where: Path | str, resources: ExitStack) -> None:
        self.where = where
        self._resources = resources

    def open(self) -> ObjectStore:
        """The store, opened once more."""
        if isinstance(self.where, str):
            settings = store_settings(single_put_limit=STAGED, part_size=5 * MiB)
            return self._resources.enter_context(opened_bucket(self.where, settings))
        store = DirectoryStore(self.where, "store-0")
        self._resources.callback(store.close)
        return store

    def names(self) -> list[str]:
        """All that is there."""
        if isinstance(self.where, str):
            return [name for name in names(self.where) if not name.startswith("locks/")]
        return sorted(str(path.relative_to(self.where)) for path in self.where.rglob("*") if path.is_file())


@pytest.fixture(
    params=[
        "directory",
        pytest.param("minio", marks=pytest.mark.real),
        pytest.param("versitygw", marks=[pytest.mark.real, pytest.mark.servers]),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_credentials: None) -> Iterator[Place]:
    with ExitStack() as resources:
        if request.param == "directory":
            yield Place(tmp_path, resources)
        else:
            yield Place(request.getfixturevalue(request.param).url(tmp_path.name), resources)


def bytes_of(store: ObjectStore, key: Key = KEY) -> bytes:
    payload = asyncio.run(store.open(key))
    assert payload is not None
    with payload:
        return b"".join(payload.blocks())


def large(seed: int) -> Iterator[memoryview]:
    """7 MiB in blocks, more than one part."""
    for number in range(7):
        yield memoryview(hashlib.sha256(b"%d %d" % (seed, number)).digest() * (MiB // 32))


def test_many_are_read_back_whole(place: Place) -> None:
    """Each once, in blocks whatever its size, several readers beside each other; what is not there is passed over."""
    store = place.open()
    wanted = {object_key(f"1.2.{number}"): bytes([number]) * (number * 1000 + 1) for number in range(1, 12)}
    wanted[object_key("1.2.0")] = b"".join(large(3))
    read: dict[Key, tuple[int, bytes]] = {}

    def look(key: Key, size: int, blocks: Iterator[memoryview]) -> None:
        assert key not in read
        read[key] = size, b"".join(bytes(block) for block in blocks)

    async def scenario() -> None:
        for key, data in wanted.items():
            assert await store.put_new(key, [data])
        keys = deque([object_key("1.2.99"), *wanted, object_key("1.2.98")])

        async def reader() -> None:
            while keys:
                await store.read_back(keys, look)

        await asyncio.gather(reader(), reader(), reader())
        await store.sync()

    asyncio.run(scenario())
    assert read == {key: (len(data), data) for key, data in wanted.items()}


def test_which_of_several_keys_are_taken(place: Place) -> None:
    """In the order they were asked for; an entry is not taken because a repeat of it is there."""
    store = place.open()
    entry = conflict_key("1.2.3", DIGEST)
    keys = [
        reference_key(entry, UploadId.of(1, 1, 1)),
        entry,
        KEY,
        object_key("1.2.4"),
        quarantine_key("", DIGEST),
    ]

    async def scenario() -> None:
        assert await store.which(keys) == []
        await store.put_new(KEY, [b"object"])
        assert await store.which(keys) == [KEY]
        await store.put_new(keys[0], [b"repeat"])
        assert await store.which(keys) == [keys[0], KEY]

    asyncio.run(scenario())


def test_the_first_creates_and_the_second_finds(place: Place) -> None:
    """One create; a second changes nothing and says so."""
    store = place.open()

    async def scenario() -> None:
        assert await store.put_new(KEY, [b"head", memoryview(b"data")]) is True
        assert await store.put_new(KEY, [b"other"]) is False
        assert await store.put_new(KEY, [b"longer than the first"]) is False
        start = await store.start(KEY, 6)
        assert start is not None
        assert (start.data, start.size) == (b"headda", 8)

    asyncio.run(scenario())
    assert bytes_of(store) == b"headdata"
    assert place.names() == [str(KEY)]


def test_a_large_object_is_created_once_and_whole(place: Place) -> None:
    """Above the limit of one PUT: the same promise, and nothing left of the way there."""
    store = place.open()
    assert asyncio.run(store.put_new(KEY, large(1))) is True
    assert asyncio.run(store.put_new(KEY, large(2))) is False
    assert bytes_of(store) == b"".join(large(1))
    assert place.names() == [str(KEY)]


def test_of_many_that_create_at_once_one_succeeds(place: Place) -> None:
    """From several openings, small and large, over several rounds."""
    stores = [place.open() for _ in range(4)]

    async def round_of(number: int) -> None:
        key = object_key(f"1.2.{number}")
        contents: list[Sequence[bytes | memoryview]] = [[b"%d of %d" % (store, number)] for store in range(4)]
        if number % 5 == 0:
            contents = [list(large(store)) for store in range(4)]
        created = await asyncio.gather(
            *(store.put_new(key, pieces) for store, pieces in zip(stores, contents, strict=True))
        )
        assert created.count(True) == 1
        payload = await stores[0].open(key)
        assert payload is not None
        with payload:
            found = b"".join(await asyncio.to_thread(lambda: list(payload.blocks())))
        assert found == b"".join(contents[created.index(True)])

    async def scenario() -> None:
        for number in range(10):
            await round_of(number)

    asyncio.run(scenario())


def test_what_is_not_there(place: Place) -> None:
    """Absence is an answer, not an error, and makes nothing."""
    store = place.open()

    async def scenario() -> None:
        assert await store.start(KEY, 10) is None
        assert await store.start(KEY, 0) is None
        assert await store.open(KEY) is None
        assert await store.find(Area.OBJECTS, KEY.shard) == []
        assert await store.filled(Area.QUARANTINE) == []
        assert await store.move(KEY, quarantine_key("1.2.3", DIGEST)) is False
        await store.remove(KEY)

    asyncio.run(scenario())
    assert place.names() == []


def test_an_empty_object_and_short_starts(place: Place) -> None:
    """Starts are cut at the end of the object, and of nothing there is nothing."""
    store = place.open()

    async def scenario() -> None:
        assert await store.put_new(KEY, [b""])
        for length in (0, 10):
            start = await store.start(KEY, length)
            assert start is not None
            assert (start.data, start.size) == (b"", 0)
        key = object_key("1.2.4")
        await store.put_new(key, [b"abc"])
        assert await store.start(key, 0) == (b"", 3)
        assert await store.start(key, 99) == (b"abc", 3)

    asyncio.run(scenario())
    assert bytes_of(store) == b""


@pytest.mark.parametrize("after", [0, 5], ids=["small", "large"])
def test_a_reader_that_fails_leaves_nothing(place: Place, after: int) -> None:
    """Nothing incomplete is ever visible, nor left."""
    store = place.open()

    def pieces() -> Iterator[bytes]:
        yield b"half"
        for _ in range(after):
            yield bytes(MiB)
        raise OSError(5, "Input/output error")

    with pytest.raises(Unavailable):
        asyncio.run(store.put_new(KEY, pieces()))
    assert place.names() == []
    assert asyncio.run(store.put_new(KEY, [b"whole"]))


def test_reading_by_position(place: Place) -> None:
    """Any range, in any order, and never beyond the end."""
    store = place.open()
    whole = b"".join(large(3))
    asyncio.run(store.put_new(KEY, [whole]))
    payload = asyncio.run(store.open(KEY))
    assert payload is not None
    with payload:
        assert payload.size == len(whole)
        for offset, length in ((0, 10), (5 * MiB, MiB), (len(whole) - 3, 3), (17, 0), (100, 2 * MiB)):
            assert bytes(payload.read(offset, length)) == whole[offset : offset + length]
        with pytest.raises(Exception, match="bytes at"):
            payload.read(len(whole) - 1, 2)


def test_a_listing_has_what_is_there(place: Place) -> None:
    """By area and shard, in order, with sizes; narrowed to the folder of one UID."""
    store = place.open()

    async def scenario() -> None:
        keys = [conflict_key("1.2.3", digit * 64) for digit in "cab"]
        for size, key in enumerate(keys):
            await store.put_new(key, [b"x" * size])
        await store.put_new(KEY, [b"object"])
        found = await store.find(Area.CONFLICTS, KEY.shard)
        assert [listed.key for listed in found] == sorted(keys)
        assert [listed.size for listed in found] == [1, 2, 0]
        assert await store.find(Area.CONFLICTS, KEY.shard, "1.2.3/a") == found[:1]
        assert await store.find(Area.CONFLICTS, KEY.shard, "1.2/") == []
        assert [listed.key for listed in await store.find(Area.OBJECTS, KEY.shard)] == [KEY]
        assert await store.filled(Area.CONFLICTS) == await store.filled(Area.OBJECTS) == [KEY.shard]
        reference = reference_key(found[0].key, bytes(16))  # type: ignore[arg-type]
        await store.put_new(reference, [b"{}"])
        again = await store.find(Area.CONFLICTS, KEY.shard, f"{found[0].key.name}+")
        assert [listed.key for listed in again] == [reference]

    asyncio.run(scenario())


def test_setting_aside_keeps_the_bytes_and_never_overwrites(place: Place) -> None:
    """The object goes whole; a key that is taken is left alone."""
    store = place.open()
    target = quarantine_key("1.2.3", DIGEST)

    async def scenario() -> None:
        await store.put_new(KEY, [b"first"])
        assert await store.move(KEY, target)
        await store.put_new(KEY, [b"other"])
        with pytest.raises(Unavailable):
            await store.move(KEY, target)

    asyncio.run(scenario())
    assert bytes_of(store, target) == b"first"
    assert bytes_of(store) == b"other"


def test_replacing_is_atomic_and_leaves_nothing(place: Place) -> None:
    """The key has the old bytes or the new ones, small or large."""
    store = place.open()

    async def scenario() -> None:
        await store.replace(KEY, [b"first"])
        await store.replace(KEY, [b"second", b"!"])

        def broken() -> Iterator[bytes]:
            yield b"third"
            raise OSError(28, "No space left on device")

        with pytest.raises(Unavailable):
            await store.replace(KEY, broken())

    asyncio.run(scenario())
    assert bytes_of(store) == b"second!"
    asyncio.run(store.replace(KEY, large(4)))
    assert bytes_of(store) == b"".join(large(4))
    asyncio.run(store.replace(KEY, [b"small again"]))
    assert bytes_of(store) == b"small again"
    assert place.names() == [str(KEY)]


def test_an_uid_folder_goes_with_its_last_entry(place: Place) -> None:
    """A lane's key may be used again."""
    store = place.open()
    key = quarantine_key("1.2.3", DIGEST)

    async def scenario() -> None:
        for _ in range(2):
            assert await store.put_new(key, [b"x"])
            await store.remove(key)

    asyncio.run(scenario())
    assert place.names() == []


def test_the_lock_of_a_shard_has_one_holder(place: Place) -> None:
    """Whoever changes a lane is alone in its shard, also against another process."""
    one, other = place.open(), place.open()
    inside = 0

    async def enter(store: ObjectStore) -> None:
        nonlocal inside
        async with store.lock("abc"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.005)
            assert inside == 1
            inside -= 1

    async def scenario() -> None:
        async with one.lock("abd"):  # another shard's
            await asyncio.gather(*(enter(store) for store in (one, other) * 4))

    asyncio.run(scenario())


def test_errors_do_not_tell_keys(place: Place) -> None:
    """A message that may reach logs names the trouble and no UID."""
    store = place.open()

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise OSError(5, "Input/output error", "/somewhere/1.2.3")

    with pytest.raises(Unavailable) as caught:
        asyncio.run(store.put_new(KEY, pieces()))
    assert "1.2.3" not in str(caught.value)
    assert caught.value.retry_after > 0


def test_a_location_for_administrators(place: Place) -> None:
    """Where to look: a path or URL that ends in the key, without what leads to secrets."""
    located = place.open().locate(KEY)
    assert located.endswith(f"/{KEY}")
    assert "?" not in located
