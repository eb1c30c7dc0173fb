"""`conflicts resolve`: the other content becomes current, the first is kept, at every kill both are there."""

import asyncio
import hashlib
import shutil
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from ingest.contract.records import Place
from tests.support.datasets import data_set_bytes
from tests.support.killing import killed_at_each_call
from tests.support.lanes import counts, current_digests, lane, on_disk, upload
from tests.support.placing import CT, instance_of, placing
from workers.errors import Unavailable
from workers.storage.layout import Area, object_key, resolution_key
from workers.storage.resolution import CannotResolve, Resolution, finish_resolutions, resolve
from workers.storage.stores import open_stores

UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
FIRST = data_set_bytes(CT)
OTHER = FIRST.replace(b"CompressedSamples^CT1", b"CompressedSamples^CT2")
PIXEL = FIRST.index(b"\xe0\x7f\x10\x00OW") + 12
THIRD = FIRST[:PIXEL] + b"\x07" + FIRST[PIXEL + 1 :]
# Two conflicts, one of them sent twice, and a duplicate.
SENT = (FIRST, FIRST, OTHER, OTHER, THIRD)
COUNTED = [Place.STORED, Place.DUPLICATE, Place.CONFLICT, Place.CONFLICT, Place.CONFLICT]
RESOLVED = {"stored": 1, "duplicate": 2, "conflict": 2}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("template") / "data"
    assert places(data) == COUNTED
    return data


def places(data: Path) -> list[Place]:
    """Send all, or replay all: where the pipeline places or counts them."""

    async def place() -> list[Place]:
        async with placing(data) as one:
            found = []
            for number, data_set in enumerate(SENT):
                instance = instance_of(data_set, CT, calling_ae_title=f"AE{number}")
                found.append((await one.upload(upload(number), instance, data_set)).place)
            return found

    return asyncio.run(place())


@pytest.fixture
def data(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "data")
    return tmp_path / "data"


def digest_of(data_set: bytes) -> str:
    return hashlib.sha256(data_set).hexdigest()


def prefer(data: Path, data_set: bytes, reason: str = "the name was corrected") -> None:
    with open_stores([data / "store"]) as stores:
        asyncio.run(resolve(stores, UID, digest_of(data_set), reason))


def stored(data: Path) -> Path:
    return data / "store" / str(object_key(UID))


def test_the_other_becomes_current_and_the_first_is_kept(data: Path) -> None:
    """The bytes received are current, the first is in the lane, all is counted, and the decision is recorded."""
    prefer(data, OTHER)
    assert current_digests(data) == {UID: digest_of(OTHER)}
    assert data_set_bytes(stored(data)) == OTHER
    kept = {entry.source_digest: entry.reason for entry in lane(data, Area.CONFLICTS)}
    assert kept == {digest_of(FIRST): "superseded", digest_of(THIRD): "pixels"}
    assert counts(data, COUNTED) == RESOLVED
    assert on_disk(data) == {"stored": 1, "conflict": 2}
    (record,) = (data / "store" / "resolutions").rglob("*.json")
    assert "the name was corrected" in record.read_text()
    assert not list((data / "store" / "tmp").glob("*"))


@pytest.mark.parametrize(
    ("name", "digit"),
    [("prefer", b"z"), ("prefer_upload", b"z"), ("prefer_upload", b""), ("sop_instance_uid", b"2")],
)
def test_a_decision_that_has_rotted_is_not_carried_out(data: Path, name: str, digit: bytes) -> None:
    """One digit is enough: a worker that starts goes on without it, and nobody else's object is touched."""
    prefer(data, OTHER)
    (record,) = (data / "store" / "resolutions").rglob("*.json")
    whole = record.read_bytes()
    at = whole.index(f'"{name}":"'.encode()) + len(f'"{name}":"')
    pending = record.parent.with_name(f"{UID}.json")
    pending.write_bytes(whole[:at] + digit + whole[at + 1 :])
    before = on_disk(data)
    with open_stores([data / "store"]) as stores, pytest.raises(Unavailable, match="damaged"):
        asyncio.run(finish_resolutions(stores))
    assert on_disk(data) == before
    assert current_digests(data) == {UID: digest_of(OTHER)}
    assert pending.exists()


def test_an_entry_that_rots_before_its_resolution_ends(data: Path) -> None:
    """A kill after the record, then a flipped byte in the entry: workers start, and the first content stays current."""
    (entry,) = (one for one in lane(data, Area.CONFLICTS) if one.source_digest == digest_of(OTHER))
    assert entry.manifest is not None
    resolution = Resolution(
        sop_instance_uid=UID, prefer=entry.source_digest, prefer_upload=entry.manifest.upload_id,
        first=digest_of(FIRST), first_upload=upload(0).hex(), reason="", at=1,
    )  # fmt: skip
    pending = data / "store" / str(resolution_key(UID))
    pending.parent.mkdir(parents=True)
    pending.write_bytes(msgspec.json.encode(resolution))
    rotten = bytearray(Path(entry.path).read_bytes())
    rotten[-1] ^= 1
    Path(entry.path).write_bytes(rotten)
    with open_stores([data / "store"]) as stores, pytest.raises(Unavailable, match="is damaged"):
        asyncio.run(finish_resolutions(stores))
    assert current_digests(data) == {UID: digest_of(FIRST)}
    assert pending.exists()


def test_it_can_be_taken_back(data: Path) -> None:
    """Preferring the first again restores its object to the pixel, and the counts."""
    before = data_set_bytes(stored(data))
    prefer(data, OTHER)
    prefer(data, FIRST)
    assert data_set_bytes(stored(data)) == before
    assert {entry.source_digest for entry in lane(data, Area.CONFLICTS)} == {
        digest_of(OTHER),
        digest_of(THIRD),
    }
    assert on_disk(data) == {"stored": 1, "conflict": 2}
    assert counts(data, COUNTED) == RESOLVED
    prefer(data, THIRD)
    assert counts(data, COUNTED) == RESOLVED
    assert len(list((data / "store" / "resolutions").rglob("*.json"))) == 3


def test_a_worker_that_replays_counts_all_where_they_were(data: Path) -> None:
    """The moves stand for what the checkpoint will say, and nothing is placed anew.

    Of a duplicate nothing is kept: replayed, it is a repeat of what is in the lane now.
    """
    prefer(data, OTHER)
    counted = places(data)
    assert counted == [Place.STORED, Place.CONFLICT, *COUNTED[2:]]
    assert on_disk(data) == {"stored": 1, "conflict": 3}
    assert counts(data, counted) == {"stored": 1, "duplicate": 1, "conflict": 3}


def test_resends_find_their_new_place(data: Path) -> None:
    """The preferred bytes are a duplicate now; the first's are a conflict that the lane has already."""
    prefer(data, OTHER)

    async def resend() -> list[Place]:
        async with placing(data) as one:
            one.sequence = 100
            return [(await one.data_set(data_set, CT)).place for data_set in (OTHER, FIRST, THIRD)]

    assert asyncio.run(resend()) == [Place.DUPLICATE, Place.CONFLICT, Place.CONFLICT]
    assert on_disk(data) == {"stored": 1, "conflict": 4}


def test_what_cannot_be_resolved_changes_nothing(data: Path) -> None:
    """No such content, or content that is damaged: refused, and nothing is touched."""
    before = sorted((path, path.read_bytes()) for path in data.rglob("*") if path.is_file())
    with pytest.raises(CannotResolve, match="no content"):
        prefer(data, b"never sent")
    entry = next(entry for entry in lane(data, Area.CONFLICTS) if entry.source_digest == digest_of(OTHER))
    rotten = bytearray(Path(entry.path).read_bytes())
    rotten[-1] ^= 1
    Path(entry.path).write_bytes(rotten)
    with pytest.raises(CannotResolve, match="damaged"):
        prefer(data, OTHER)
    rotten[-1] ^= 1
    Path(entry.path).write_bytes(rotten)
    assert sorted((path, path.read_bytes()) for path in data.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("position", [-1, 200])
def test_a_damaged_first_makes_way(data: Path, position: int) -> None:
    """A first that has rotted, in its data or its head, goes to quarantine and not into the lane."""
    rotten = bytearray(stored(data).read_bytes())
    rotten[position] ^= 1
    stored(data).write_bytes(rotten)
    prefer(data, OTHER)
    assert data_set_bytes(stored(data)) == OTHER
    (entry,) = lane(data, Area.QUARANTINE)
    assert Path(entry.path).read_bytes() == rotten
    assert entry.reason == "damaged"
    assert counts(data, COUNTED) == {"stored": 1, "duplicate": 2, "conflict": 1, "quarantined": 1}
    assert on_disk(data) == {"stored": 1, "conflict": 1, "quarantined": 1}


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("ending", ["again", "worker"])
def test_a_kill_at_any_step_loses_nothing(template: Path, tmp_path: Path, ending: str, every: int) -> None:
    """One of the two is current and whole, all three contents are kept; again, or a worker's start, ends it."""
    data = tmp_path / "data"

    def prepare() -> None:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(template, data)

    seen: Counter[str] = Counter()
    for _ in killed_at_each_call(prepare, lambda: prefer(data, OTHER), every):
        current = current_digests(data)[UID]
        assert current in (digest_of(FIRST), digest_of(OTHER))
        seen[current] += 1
        kept = {current, *(entry.source_digest for entry in lane(data, Area.CONFLICTS))}
        assert kept == {digest_of(FIRST), digest_of(OTHER), digest_of(THIRD)}
        on_disk(data)  # every byte proved
        if ending == "again":
            begun = list((data / "store" / "resolutions").glob("*/*.json"))
            try:
                prefer(data, OTHER)
            except CannotResolve:
                assert current == digest_of(OTHER)
                assert not begun
        else:
            with open_stores([data / "store"]) as stores:
                finished = asyncio.run(finish_resolutions(stores))
            if not finished and current == digest_of(FIRST):
                prefer(data, OTHER)  # it was killed before it had recorded anything
        assert current_digests(data) == {UID: digest_of(OTHER)}
        assert on_disk(data) == {"stored": 1, "conflict": 2}
        assert counts(data, COUNTED) == RESOLVED
        assert not list((data / "store" / "resolutions").glob("*/*.json"))
    assert min(seen.values()) > 1
