"""A second copy is a duplicate, a conflict of the right class, or a repair; the first is never touched."""

import asyncio
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pydicom
import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Outcome, Place
from tests.support.datasets import data_set_bytes, read
from tests.support.placing import CORPUS, CT, Placing, instance_of, placing
from workers.dataset.payload import MemoryPayload
from workers.storage.damage import find_object
from workers.storage.entries import DAMAGED, Entry, entries
from workers.storage.layout import Area, move_key, object_key, parse_key
from workers.storage.moves import find_move, record_move
from workers.storage.part10 import HEAD, decode_head, pieces_of

UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
STORED = (Place.STORED, "")
DUPLICATE = (Place.DUPLICATE, "")


def place_of(outcome: Outcome) -> tuple[Place, str]:
    return outcome.place, outcome.reason


def converted(path: Path, target: Path, *options: str) -> Path:
    """A file in another encoding, by DCMTK."""
    subprocess.run(["dcmconv", *options, str(path), str(target)], check=True)
    return target


def changed(path: Path, target: Path, change: Callable[[pydicom.Dataset], None]) -> Path:
    """A file with other content under the same UIDs, by pydicom."""
    data_set = read(path)
    change(data_set)
    data_set.save_as(target)
    return target


async def lane(one: Placing, area: Area) -> list[Entry]:
    return [entry async for entry in entries(one.stores, area)]


def test_other_encodings_of_one_object_are_duplicates(tmp_path: Path) -> None:
    """Explicit and implicit little endian, big endian, RLE: no new object, by whichever the first came."""
    copies = [
        CT,
        converted(CT, tmp_path / "implicit", "+ti"),
        converted(CT, tmp_path / "big", "+tb"),
        converted(CT, tmp_path / "lengths", "+te", "-e", "+g"),  # explicit lengths, group lengths
    ]
    rle = tmp_path / "rle"
    subprocess.run(["dcmcrle", "+un", str(CT), str(rle)], check=True)

    async def scenario(first: Path) -> None:
        async with placing(tmp_path / f"data-{first.name}") as one:
            assert (await one.file(first)).place is Place.STORED
            for copy in [*copies, rle]:
                assert place_of(await one.file(copy)) == DUPLICATE, copy
            assert await lane(one, Area.CONFLICTS) == []

    for first in (CT, tmp_path / "implicit", rle):
        asyncio.run(scenario(first))


def of_all_classes(ds: pydicom.Dataset) -> None:
    ds.PatientID, ds.WindowCenter, ds.PixelData = "x", "9", bytes(len(ds.PixelData))


@pytest.mark.parametrize(
    ("classes", "tags", "change"),
    [
        (("identity",), ["(0010,0010)"], lambda ds: setattr(ds, "PatientName", "Other^Patient")),
        (("identity",), ["(0020,000D)"], lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3")),
        (("elements",), ["(0008,103E)"], lambda ds: setattr(ds, "SeriesDescription", "other")),
        (("elements",), ["(0009,0010)", "(0009,1001)"], lambda ds: [ds.pop(tag) for tag in list(ds.keys()) if tag.group == 9]),
        (("pixels",), ["(7FE0,0010)"], lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2] + b"\1\2")),
        (
            ("identity", "elements", "pixels"),
            ["(0010,0020)", "(0028,1050)", "(7FE0,0010)"],
            of_all_classes,
        ),
    ],
)  # fmt: skip
def test_other_content_is_a_conflict_classed_by_what_differs(
    tmp_path: Path, classes: tuple[str, ...], tags: list[str], change: Callable[[pydicom.Dataset], None]
) -> None:
    """Kept whole in the lane with classes and tags, the loudest first; the first object stays to the byte."""
    other = changed(CT, tmp_path / "other", change)

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            assert place_of(await one.file(CT)) == STORED
            path = tmp_path / "data" / "store" / str(object_key(UID))
            before = path.read_bytes()
            outcome = await one.file(other)
            assert place_of(outcome) == (Place.CONFLICT, classes[0])
            (entry,) = await lane(one, Area.CONFLICTS)
            assert entry.key == outcome.key
            assert entry.classes == classes
            assert [tag for tag in tags if tag not in entry.differing_tags] == []
            assert data_set_bytes(Path(entry.path)) == data_set_bytes(other)
            assert path.read_bytes() == before

    asyncio.run(scenario())


def test_the_same_conflict_again_is_a_reference(tmp_path: Path) -> None:
    """The same digest in the lane makes no second object; each upload leaves its trace; replays change nothing."""
    other = changed(CT, tmp_path / "other", lambda ds: setattr(ds, "PatientName", "Other"))
    data_set = data_set_bytes(other)

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            await one.file(CT)
            for _ in range(2):
                for sequence in (7, 8, 9):
                    instance = instance_of(data_set, other, calling_ae_title=f"AE{sequence}")
                    outcome = await one.upload(UploadId.of(1, 2, sequence), instance, data_set)
                    assert place_of(outcome) == (Place.CONFLICT, "identity")
            (entry,) = await lane(one, Area.CONFLICTS)
            assert entry.repeats == 2
            assert len(list(Path(entry.path).parent.iterdir())) == 3

    asyncio.run(scenario())


def test_a_lossy_original_decompressed_is_a_conflict(tmp_path: Path) -> None:
    """Digests of different kind never match: what a decoder made of a lossy image is another object."""
    lossy = CORPUS / "JPEGBaseline_SC_rgb_dcmtk_+eb+cy+np.dcm"
    plain = tmp_path / "plain"
    subprocess.run(["dcmdjpeg", str(lossy), str(plain)], check=True)

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            assert (await one.file(lossy)).place is Place.STORED
            outcome = await one.file(plain)
            assert outcome.place is Place.CONFLICT
            (entry,) = await lane(one, Area.CONFLICTS)
            assert "pixels" in entry.classes

    asyncio.run(scenario())


@pytest.mark.parametrize("syntax", ["native", "rle"])
def test_what_only_jpeg_2000_makes_rgb_is_no_rgb_elsewhere(tmp_path: Path, syntax: str) -> None:
    """The same samples called RGB and YBR_RCT look different, unless JPEG 2000 has the transform within (PS3.5 8.2.4)."""
    rgb = CORPUS / "SC_rgb.dcm"
    plain = changed(rgb, tmp_path / "plain", lambda ds: setattr(ds, "PhotometricInterpretation", "YBR_RCT"))
    rct = plain
    if syntax == "rle":
        rct = tmp_path / "rle"
        subprocess.run(["dcmcrle", "+un", str(plain), str(rct)], check=True)

    async def scenario(first: Path, second: Path) -> None:
        async with placing(tmp_path / f"data-{first.name}") as one:
            assert (await one.file(first)).place is Place.STORED
            assert place_of(await one.file(second)) == (Place.CONFLICT, "elements")
            (entry,) = await lane(one, Area.CONFLICTS)
            assert entry.classes == ("elements",)
            assert entry.differing_tags == ("(0028,0004)",)
            # What is stored of the RGB is called YBR_RCT, and is the same.
            back = tmp_path / "data-SC_rgb.dcm" / "store" / str(object_key(str(read(rgb).SOPInstanceUID)))
            if first == rgb:
                assert read(back).PhotometricInterpretation == "YBR_RCT"
                assert place_of(await one.file(back)) == DUPLICATE

    asyncio.run(scenario(rgb, rct))
    asyncio.run(scenario(rct, rgb))


def test_elements_out_of_order_are_compared_by_source_digest_only(tmp_path: Path) -> None:
    """Equal bytes are a duplicate; anything else is a conflict, even the same elements in order."""
    data_set = data_set_bytes(CT)
    # Two elements of the header change places.
    first, second = data_set.find(b"\x08\x00\x60\x00CS"), data_set.find(b"\x08\x00\x70\x00LO")
    end = second + 8 + int.from_bytes(data_set[second + 6 : second + 8], "little")
    shuffled = data_set[:first] + data_set[second:end] + data_set[first:second] + data_set[end:]
    assert len(shuffled) == len(data_set)
    assert shuffled != data_set

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            assert (await one.data_set(shuffled, CT)).place is Place.STORED
            assert place_of(await one.data_set(shuffled, CT)) == DUPLICATE
            assert place_of(await one.data_set(data_set, CT)) == (Place.CONFLICT, "elements")

    asyncio.run(scenario())


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def damage_record(path: str) -> None:
    Path(path).write_bytes(b"{")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def rot_manifest(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[decode_head(bytes(data[:HEAD])).size - 10] ^= 1
    path.write_bytes(data)


def be_foreign(path: Path) -> None:
    path.write_bytes(CT.read_bytes())


def be_empty(path: Path) -> None:
    path.write_bytes(b"")


def be_anothers(path: Path) -> None:
    """The manifest of another instance: a file moved by hand."""
    data = path.read_bytes()
    manifest = decode_head(data[:HEAD]).manifest
    assert manifest.sop_instance_uid == UID
    other = path.with_name("1.2.3.dcm")
    path.rename(other)
    path.write_bytes(other.read_bytes().replace(UID.encode(), UID[:-1].encode() + b"9"))
    other.unlink()


@pytest.mark.parametrize("damage", [cut, rot_manifest, be_foreign, be_empty, be_anothers])
def test_a_damaged_object_makes_way_for_the_next_good_copy(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Rot never makes a healthy resend a duplicate: set aside whole, recorded, and repaired."""

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            await one.file(CT)
            path = tmp_path / "data" / "store" / str(object_key(UID))
            damage(path)
            bad = path.read_bytes()
            assert place_of(await one.file(CT)) == (Place.STORED, "repaired")
            found = await find_object(one.stores.of(object_key(UID)), object_key(UID))
            assert found is not None
            assert found.manifest.repaired
            (entry,) = await lane(one, Area.QUARANTINE)
            assert entry.reason == DAMAGED
            assert content(entry.path) == bad
            assert place_of(await one.file(CT)) == DUPLICATE
            moves = [listed async for listed in one.stores.find(Area.MOVES)]
            assert len(moves) == 1
            move = await find_move(
                one.stores.of(moves[0].key), moves[0].key.shard, bytes.fromhex(moves[0].key.name[:32])
            )
            assert move is not None
            assert (move.source, move.target, move.key) == (Place.STORED, Place.QUARANTINED, entry.key)

    asyncio.run(scenario())


def test_rot_inside_the_data_set_is_found_when_it_is_read(tmp_path: Path) -> None:
    """A comparison that reads the stored object proves it first; what is damaged is no ground for a conflict."""
    other = changed(CT, tmp_path / "other", lambda ds: setattr(ds, "SeriesDescription", "other"))

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            await one.file(CT)
            path = tmp_path / "data" / "store" / str(object_key(UID))
            data = bytearray(path.read_bytes())
            data[-100] ^= 1
            path.write_bytes(data)
            assert place_of(await one.file(other)) == (Place.STORED, "repaired")
            assert place_of(await one.file(CT)) == (Place.CONFLICT, "elements")

    asyncio.run(scenario())


def test_what_is_whole_and_no_data_set_today_meets_other_content_as_a_conflict(tmp_path: Path) -> None:
    """An earlier release may have stored what this one would reject: it is not damaged, and stays to the byte."""
    other = changed(CT, tmp_path / "other", lambda ds: setattr(ds, "SeriesDescription", "other"))
    rejected = data_set_bytes(CT)[:400]
    digest = hashlib.sha256(rejected).hexdigest()

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            await one.file(CT)
            found = await find_object(one.stores.of(object_key(UID)), object_key(UID))
            assert found is not None
            earlier = msgspec.structs.replace(
                found.manifest, size=len(rejected), digest=digest, source_digest=digest, elements_digest=""
            )
            path = tmp_path / "data" / "store" / str(object_key(UID))
            path.write_bytes(b"".join(pieces_of(earlier, MemoryPayload([rejected]))))
            before = path.read_bytes()
            assert place_of(await one.file(other)) == (Place.CONFLICT, "elements")
            assert path.read_bytes() == before
            assert await lane(one, Area.QUARANTINE) == []

    asyncio.run(scenario())


def test_a_replay_of_our_own_write_is_no_duplicate(tmp_path: Path) -> None:
    """A crash between store and checkpoint replays: the same upload id counts as stored, repaired as repaired."""
    data_set = data_set_bytes(CT)
    instance = instance_of(data_set, CT)

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            path = tmp_path / "data" / "store" / str(object_key(UID))
            for _ in range(2):
                assert place_of(await one.upload(UploadId.of(1, 1, 1), instance, data_set)) == STORED
            cut(path)
            for _ in range(2):
                outcome = await one.upload(UploadId.of(1, 1, 2), instance, data_set)
                assert place_of(outcome) == (Place.STORED, "repaired")
            assert (
                place_of(await one.upload(UploadId.of(1, 1, 1), instance, data_set)) == STORED
            )  # by its move

    asyncio.run(scenario())


def test_an_upload_that_was_moved_counts_where_it_was(tmp_path: Path) -> None:
    """A worker that replays what an administrator has moved since places nothing and counts the old place."""
    data_set = data_set_bytes(CT)

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            key = object_key(UID)
            upload_id = UploadId.of(1, 1, 5)
            await record_move(
                one.stores.of(key), upload_id, (Place.QUARANTINED, Place.DISCARDED), key, "test"
            )
            outcome = await one.upload(upload_id, instance_of(data_set, CT), data_set)
            assert outcome.place is Place.QUARANTINED
            assert await find_object(one.stores.of(key), key) is None
            record = one.stores.of(key).locate(move_key(key.shard, upload_id))
            damage_record(record)
            with pytest.raises(Exception, match="damaged"):
                await one.upload(upload_id, instance_of(data_set, CT), data_set)

    asyncio.run(scenario())


def test_one_uid_at_once_from_many_senders_is_one_object(tmp_path: Path) -> None:
    """Concurrent uploads, whoever wins: one stored, equal copies duplicates, others conflicts."""
    other = data_set_bytes(changed(CT, tmp_path / "other", lambda ds: setattr(ds, "PatientName", "Other")))
    data_set = data_set_bytes(CT)

    async def scenario() -> None:
        async with placing(tmp_path / "data") as one:
            outcomes = await asyncio.gather(*(one.data_set(data, CT) for data in (data_set, other) * 4))
            places = sorted(outcome.place for outcome in outcomes)
            assert places == ["conflict"] * 4 + ["duplicate"] * 3 + ["stored"]
            (entry,) = await lane(one, Area.CONFLICTS)
            assert entry.repeats == 3
            assert parse_key(entry.key).area is Area.CONFLICTS

    asyncio.run(scenario())
