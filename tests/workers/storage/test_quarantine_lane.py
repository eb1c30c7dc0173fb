"""Quarantine keeps what was received; replay and discard may be killed anywhere, and the counts stay exact."""

import asyncio
import hashlib
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Outcome, Place
from tests.support.datasets import data_set_bytes
from tests.support.killing import killed_at_each_call
from tests.support.lanes import counts, current_digests, lane, on_disk, upload
from tests.support.placing import CT, instance_of, placing
from workers.dataset.payload import MemoryPayload, Payload
from workers.errors import Unavailable
from workers.log.upload import Upload
from workers.pipeline import UncountedTries
from workers.storage.damage import find_object, set_aside
from workers.storage.lanes import Settled, quarantine
from workers.storage.layout import Area, object_key
from workers.storage.manifest import Manifest, received
from workers.storage.quarantine import CannotReplay, Replayed, discard, replay
from workers.storage.stores import Stores, open_stores

UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
DATA_SET = data_set_bytes(CT)
DIGEST = hashlib.sha256(DATA_SET).hexdigest()
COUNTED = [Place.QUARANTINED] * 3


def rejected(number: int, data_set: bytes = DATA_SET, uid: str = UID) -> Manifest:
    """As of an upload that an older release could not read."""
    instance = instance_of(
        data_set, CT, calling_ae_title=f"AE{number}", received_at=number, sop_instance_uid=uid
    )
    manifest = received(upload(number), instance, hashlib.sha256(data_set).hexdigest())
    return msgspec.structs.replace(manifest, reason="structure", position=77, detail="a sentence")


def quarantined(data: Path, *manifests: Manifest, data_set: bytes = DATA_SET) -> None:
    async def keep(stores: Stores) -> None:
        for manifest in manifests:
            settled = await quarantine(stores, manifest, MemoryPayload([data_set]))
            assert settled.place is Place.QUARANTINED

    with open_stores([data / "store"]) as stores:
        asyncio.run(keep(stores))


def replayed(data: Path) -> list[Replayed]:
    """Replay all entries as the command does."""

    async def run() -> list[Replayed]:
        async with placing(data, replaying=True, encode=False) as one:

            async def place(upload_id: UploadId, instance: Instance, payload: Payload) -> Outcome:
                again = Upload(upload_id, 0, instance, payload, 0, 0)
                return await one.pipeline.place(again, UncountedTries())

            found = [
                listed.key async for listed in one.stores.find(Area.QUARANTINE) if "+" not in listed.key.name
            ]
            return [result for key in found for result in await replay(one.stores, key, place)]

    return asyncio.run(run())


def discarded(data: Path) -> int:
    async def run(stores: Stores) -> int:
        found = [listed.key async for listed in stores.find(Area.QUARANTINE) if "+" not in listed.key.name]
        return sum([await discard(stores, key, "no use") for key in found])

    with open_stores([data / "store"]) as stores:
        return asyncio.run(run(stores))


def stored_manifest(data: Path) -> Manifest:
    async def look(stores: Stores) -> Manifest:
        found = await find_object(stores.of(object_key(UID)), object_key(UID))
        assert found is not None
        return found.manifest

    with open_stores([data / "store"]) as stores:
        return asyncio.run(look(stores))


def test_an_entry_has_the_bytes_the_reason_and_the_source(tmp_path: Path) -> None:
    """A PS3.10 file with the data set as received; a second upload of the same bytes is a reference."""
    quarantined(tmp_path, rejected(1), rejected(2), rejected(1))
    (entry,) = lane(tmp_path, Area.QUARANTINE)
    assert data_set_bytes(Path(entry.path)) == DATA_SET
    assert (entry.reason, entry.position, entry.detail) == ("structure", 77, "a sentence")
    assert (entry.sop_instance_uid, entry.source_digest, entry.repeats) == (UID, DIGEST, 1)
    assert entry.manifest is not None
    assert entry.manifest.instance == rejected(1).instance


def test_what_has_no_uid_lies_under_its_digest(tmp_path: Path) -> None:
    """Bytes that nobody can name are kept all the same."""
    quarantined(tmp_path, rejected(1, b"garbage", uid=""), data_set=b"garbage")
    (entry,) = lane(tmp_path, Area.QUARANTINE)
    assert entry.sop_instance_uid == ""
    assert entry.key.split("/")[2] == entry.key.split("/")[3] == entry.source_digest


def test_a_damaged_entry_makes_way_for_the_same_bytes(tmp_path: Path) -> None:
    """A resend of what has rotted in quarantine is kept whole."""
    quarantined(tmp_path, rejected(1))
    (entry,) = lane(tmp_path, Area.QUARANTINE)
    Path(entry.path).write_bytes(Path(entry.path).read_bytes()[:-5])
    quarantined(tmp_path, rejected(2))
    reasons = sorted(entry.reason for entry in lane(tmp_path, Area.QUARANTINE))
    assert reasons == ["damaged", "structure"]
    assert counts(tmp_path, [Place.QUARANTINED] * 2) == {"quarantined": 2}


def test_an_entry_discarded_before_the_worker_has_the_lock_stays_away(tmp_path: Path) -> None:
    """A worker that replays an upload after a crash finds the move that was recorded while it waited for its turn."""
    quarantined(tmp_path, rejected(1))

    async def again(stores: Stores) -> Settled:
        (entry,) = [listed.key async for listed in stores.find(Area.QUARANTINE)]
        store = stores.of(entry)
        lock = store.lock

        @asynccontextmanager
        async def after_an_administrator(shard: str) -> AsyncIterator[None]:
            patch.undo()
            assert await discard(stores, entry, "no use") == 1
            async with lock(shard):
                yield

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "lock", after_an_administrator)
            return await quarantine(stores, rejected(1), MemoryPayload([DATA_SET]))

    with open_stores([tmp_path / "store"]) as stores:
        assert asyncio.run(again(stores)).place is Place.QUARANTINED
    assert lane(tmp_path, Area.QUARANTINE) == []
    assert counts(tmp_path, [Place.QUARANTINED]) == {"discarded": 1}


@pytest.mark.parametrize("name", ["upload_id", "seal"])
def test_a_reference_that_has_rotted_is_said_to_be_damaged(tmp_path: Path, name: str) -> None:
    """One digit of an id is enough: an administrator is told which file it is, and nothing is replayed without it."""
    quarantined(tmp_path, rejected(1), rejected(2))
    (reference,) = (tmp_path / "store" / "quarantine").rglob("*+*.json")
    whole = reference.read_bytes()
    at = whole.index(f'"{name}":"'.encode()) + len(f'"{name}":"')
    reference.write_bytes(whole[:at] + b"z" + whole[at + 1 :])
    with pytest.raises(Unavailable, match=r"reference .* is damaged"):
        replayed(tmp_path)


def test_replay_places_with_source_time_and_upload_id(tmp_path: Path) -> None:
    """What can be read now is stored, its repeats are duplicates, the entry is gone, nothing is received anew."""
    quarantined(tmp_path, *(rejected(number) for number in (1, 2, 3)))
    assert [result.place for result in replayed(tmp_path)] == [Place.STORED, Place.DUPLICATE, Place.DUPLICATE]
    manifest = stored_manifest(tmp_path)
    assert (manifest.upload, manifest.received_at, manifest.calling_ae_title) == (upload(1), 1, "AE1")
    assert manifest.reason == ""
    assert lane(tmp_path, Area.QUARANTINE) == []
    assert counts(tmp_path, COUNTED) == {"stored": 1, "duplicate": 2}
    assert current_digests(tmp_path) == {UID: DIGEST}


def test_a_replay_may_end_in_the_conflict_lane(tmp_path: Path) -> None:
    """Another content has taken the key meanwhile: all uploads of the entry are conflicts, none is lost."""
    other = DATA_SET.replace(b"CompressedSamples^CT1", b"CompressedSamples^CT2")
    quarantined(tmp_path, rejected(1), rejected(2))

    async def store() -> Outcome:
        async with placing(tmp_path, encode=False) as one:
            return await one.upload(upload(9), instance_of(other, CT), other)

    assert asyncio.run(store()).place is Place.STORED
    assert {result.place for result in replayed(tmp_path)} == {Place.CONFLICT}
    assert on_disk(tmp_path) == {"stored": 1, "conflict": 2}
    assert counts(tmp_path, [Place.STORED, *COUNTED[:2]]) == {"stored": 1, "conflict": 2}


def test_what_is_rejected_again_stays(tmp_path: Path) -> None:
    """Nothing moves, and it may be tried as often as one likes."""
    cut = DATA_SET[:300]
    quarantined(tmp_path, rejected(1, cut), rejected(2, cut), data_set=cut)
    for _ in range(2):
        assert {result.place for result in replayed(tmp_path)} == {Place.QUARANTINED}
        assert on_disk(tmp_path) == counts(tmp_path, COUNTED[:2]) == {"quarantined": 2}
    assert discarded(tmp_path) == 2
    assert counts(tmp_path, COUNTED[:2]) == {"discarded": 2}


def test_a_damaged_entry_is_not_replayed(tmp_path: Path) -> None:
    """Bytes that are no longer those received are placed nowhere."""
    quarantined(tmp_path, rejected(1))
    (entry,) = lane(tmp_path, Area.QUARANTINE)
    rotten = bytearray(Path(entry.path).read_bytes())
    rotten[-1] ^= 1
    Path(entry.path).write_bytes(rotten)
    with pytest.raises(CannotReplay, match="damaged"):
        replayed(tmp_path)
    assert Path(entry.path).read_bytes() == rotten


def test_discard_leaves_a_record(tmp_path: Path) -> None:
    """The bytes go, who and why stays."""
    quarantined(tmp_path, rejected(1), rejected(2))
    assert discarded(tmp_path) == 2
    assert lane(tmp_path, Area.QUARANTINE) == []
    assert not list((tmp_path / "store" / "quarantine").rglob("*.*"))
    assert counts(tmp_path, COUNTED[:2]) == {"discarded": 2}
    records = [path.read_text() for path in (tmp_path / "store" / "moves").rglob("*.json")]
    assert len(records) == 2
    assert all("no use" in record for record in records)


def aside(data: Path, why: str = "it looked so") -> None:
    async def run(stores: Stores) -> None:
        key = object_key(UID)
        async with stores.of(key).lock(key.shard):
            assert await set_aside(stores.of(key), key, Place.STORED, why) is not None

    with open_stores([data / "store"]) as stores:
        asyncio.run(run(stores))


def flip_the_end(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def spoil(data: Path) -> None:
    flip_the_end(data / "store" / str(object_key(UID)))


def stored(data: Path, number: int) -> Place:
    async def store() -> Place:
        async with placing(data, encode=False) as one:
            return (await one.upload(upload(number), instance_of(DATA_SET, CT), DATA_SET)).place

    return asyncio.run(store())


def test_what_is_sound_is_not_set_aside(tmp_path: Path) -> None:
    """Whatever was read before: it is read once more."""
    assert stored(tmp_path, 1) is Place.STORED
    with pytest.raises(Unavailable, match="sound"):
        aside(tmp_path)
    assert on_disk(tmp_path) == {"stored": 1}


def test_what_was_set_aside_wrongly_can_be_restored(tmp_path: Path) -> None:
    """An object that proves sound after all goes back, unless another has its key; and may be set aside again."""
    assert stored(tmp_path, 1) is Place.STORED
    before = (tmp_path / "store" / str(object_key(UID))).read_bytes()
    for _ in range(2):
        spoil(tmp_path)
        aside(tmp_path)
        assert on_disk(tmp_path) == {"quarantined": 1}
        (entry,) = lane(tmp_path, Area.QUARANTINE)
        flip_the_end(Path(entry.path))
        assert [result.place for result in replayed(tmp_path)] == [Place.STORED]
        assert (tmp_path / "store" / str(object_key(UID))).read_bytes() == before
        assert counts(tmp_path, [Place.STORED]) == {"stored": 1}
    spoil(tmp_path)
    aside(tmp_path)
    assert stored(tmp_path, 2) is Place.STORED
    (entry,) = lane(tmp_path, Area.QUARANTINE)
    flip_the_end(Path(entry.path))
    with pytest.raises(CannotReplay, match="another copy"):
        replayed(tmp_path)
    spoil(tmp_path)
    aside(tmp_path)
    assert len(lane(tmp_path, Area.QUARANTINE)) == 2
    assert counts(tmp_path, [Place.STORED] * 2) == {"quarantined": 2}
    assert discarded(tmp_path) == 2
    assert counts(tmp_path, [Place.STORED] * 2) == {"discarded": 2}


def test_a_set_aside_object_without_manifest_counts_too(tmp_path: Path) -> None:
    """Nobody knows its upload, yet the sum is exact before and after its discard."""
    assert stored(tmp_path, 1) is Place.STORED
    (tmp_path / "store" / str(object_key(UID))).write_bytes(b"rot")
    aside(tmp_path)
    assert counts(tmp_path, [Place.STORED]) == {"quarantined": 1}
    with pytest.raises(CannotReplay, match="damaged"):
        replayed(tmp_path)
    assert discarded(tmp_path) == 1
    assert counts(tmp_path, [Place.STORED]) == {"discarded": 1}


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("command", [replayed, discarded, aside])
def test_a_kill_at_any_step_loses_nothing_and_counts_once(
    tmp_path: Path, command: object, every: int
) -> None:
    """Until its place is durable the entry is there; a worker's replay in between, and the command again."""
    data = tmp_path / "data"
    uploads = (1, 2) if command is not aside else (1,)
    final = {
        replayed: {"stored": 1, "duplicate": 1},
        discarded: {"discarded": 2},
        aside: {"quarantined": 1},
    }[command]  # type: ignore[index]

    def prepare() -> None:
        shutil.rmtree(data, ignore_errors=True)
        if command is aside:
            assert stored(data, 1) is Place.STORED
            spoil(data)
        else:
            quarantined(data, *(rejected(number) for number in uploads))

    seen: Counter[int] = Counter()
    for _ in killed_at_each_call(prepare, lambda: command(data), every):  # type: ignore[operator]
        held = on_disk(data, damaged=command is aside)
        seen[sum(held.values())] += 1
        assert held or command is discarded
        counted = (
            [stored(data, 1)] if command is aside else [worker_again(data, number) for number in uploads]
        )
        if not (command is aside and on_disk(data, damaged=command is aside) == {"quarantined": 1}):
            command(data)  # type: ignore[operator]
        assert counts(data, counted) == final
        assert {
            place: count for place, count in final.items() if place not in ("duplicate", "discarded")
        } == on_disk(data)
    assert seen


def worker_again(data: Path, number: int) -> Place:
    """A worker that replays the upload, and rejects it as it did before, if it comes so far."""

    async def run(stores: Stores) -> Place:
        return (await quarantine(stores, rejected(number), MemoryPayload([DATA_SET]))).place

    with open_stores([data / "store"]) as stores:
        return asyncio.run(run(stores))
