"""`get` hands out what is proved; `verify` names what is not."""

import asyncio
import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.support.command import Done, run
from tests.support.datasets import differing_elements, pixels, read
from tests.support.placing import CORPUS, CT, placing
from tests.support.small_disk import SmallDisk
from workers.storage.layout import object_key

UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
# Transcoded gray and colour, implicit, big endian, planar, RLE, JPEG Lossless, no transcode for its size.
LOSSLESS = [
    "LittleEndianExplicit_CT_small.dcm",
    "OBXXXX1A.dcm",
    "OBXXXX1A_expb.dcm",
    "color-pl.dcm",
    "emri_small_RLE.dcm",
    "SC_ybr_full_uncompressed.dcm",
    "JPEG-LL.dcm",
    "RLELossless_SC_rgb_rle_16bit_2frame.dcm",
    "gdcm-US-ALOKA-16_big.dcm",
    "liver.dcm",
]
LOSSY = "JPEGBaseline_SC_rgb_dcmtk_+eb+cr.dcm"


def filled(data: Path, *names: str) -> None:
    async def scenario() -> None:
        async with placing(data) as one:
            for name in names:
                await one.file(CORPUS / name)

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("template")
    filled(data, *LOSSLESS[:1], *LOSSLESS[3:6], LOSSY)
    return data


@pytest.fixture
def data(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "data")
    return tmp_path / "data"


def stored(data: Path, uid: str = UID) -> Path:
    return data / "store" / str(object_key(uid))


def test_get_copies_the_object(data: Path) -> None:
    """To a file or into a folder; nothing else is left beside it."""
    (data / "out").mkdir()
    assert run(data, "get", "--sop", UID, str(data / "out")).out.strip() == str(data / "out" / f"{UID}.dcm")
    assert run(data, "get", "--sop", UID, str(data / "out" / "x")).code == 0
    assert sorted(path.name for path in (data / "out").iterdir()) == [f"{UID}.dcm", "x"]
    assert (data / "out" / "x").read_bytes() == stored(data).read_bytes()


@pytest.mark.parametrize("name", LOSSLESS)
def test_decompressed_is_the_same_image(tmp_path: Path, name: str) -> None:
    """Explicit VR Little Endian, the same UID, elements and pixels as what was sent, opened by pydicom."""
    filled(tmp_path, name)
    source = read(CORPUS / name)
    target = tmp_path / "x.dcm"
    assert run(tmp_path, "get", "--sop", str(source.SOPInstanceUID), str(target), "--decompress").code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = pydicom.dcmread(target)
    assert got.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert got.file_meta.MediaStorageSOPInstanceUID == got.SOPInstanceUID == source.SOPInstanceUID
    assert "PrivateInformation" not in got.file_meta
    assert got.get("PhotometricInterpretation") == source.get("PhotometricInterpretation")
    if source.file_meta.TransferSyntaxUID.is_little_endian:  # else pydicom leaves the words of OW turned
        assert differing_elements(source, got) == []
    if name == "JPEG-LL.dcm":  # for which pydicom has no decoder here
        subprocess.run(["dcmdjpeg", str(CORPUS / name), str(tmp_path / "decoded")], check=True)
        source = read(tmp_path / "decoded")
    one, other = pixels(source), pixels(got)
    assert one is not None
    assert other is not None
    assert np.array_equal(one, other)


def test_lossy_is_not_decompressed(data: Path) -> None:
    """No proof is possible: exit code 1, and no file."""
    uid = str(read(CORPUS / LOSSY).SOPInstanceUID)
    done = run(data, "get", "--sop", uid, str(data / "x.dcm"), "--decompress")
    assert done.code == 1
    assert "lossy" in done.err
    assert not (data / "x.dcm").exists()
    assert run(data, "get", "--sop", uid, str(data / "x.dcm")).code == 0


def test_get_hands_out_nothing_that_is_damaged(data: Path) -> None:
    """Not stored, damaged, or no UID: no file, and what is there already stays."""
    target = data / "x.dcm"
    target.write_bytes(b"mine")
    assert run(data, "get", "--sop", "1.2.3", str(target)).code == 1
    assert run(data, "get", "--sop", "../../etc/passwd", str(target)).code == 2
    rotten = bytearray(stored(data).read_bytes())
    rotten[-1] ^= 1
    stored(data).write_bytes(rotten)
    for options in ([], ["--decompress"]):
        done = run(data, "get", "--sop", UID, str(target), *options)
        assert done.code == 1
        assert "digest" in done.err
    assert target.read_bytes() == b"mine"
    assert not list(data.glob(".*"))


def test_get_names_the_disk_that_is_full(data: Path, tmp_path: Path) -> None:
    """That of the file, and not the store."""
    with SmallDisk(tmp_path / "disk", "1m") as disk:
        disk.fill()
        done = run(data, "get", "--sop", UID, str(disk.path / "one.dcm"))
        assert (done.code, done.err) == (1, f"Error: {disk.path / 'one.dcm'}: No space left on device\n")
        assert not (disk.path / "one.dcm").exists()


def verified(data: Path, *options: str) -> Done:
    return run(data, "verify", "--json", "--processes", "1", *options)


def problems(done: Done) -> list[dict[str, object]]:
    report: dict[str, list[dict[str, object]]] = json.loads(done.out)
    return report["problems"]


def test_verify_of_a_sound_store(data: Path) -> None:
    """Exit code 0, and everything was counted."""
    done = verified(data)
    assert done.code == 0
    report = json.loads(done.out)
    assert report["objects"] == 5
    assert report["bytes"] == sum(path.stat().st_size for path in (data / "store").glob("???/*.dcm"))
    assert "5 objects" in run(data, "verify").out


@pytest.mark.parametrize("position", [3, 150, 400, 3000, -1])
def test_verify_finds_a_changed_byte(data: Path, position: int) -> None:
    """Anywhere in the file: preamble, meta, manifest, elements, pixels."""
    rotten = bytearray(stored(data).read_bytes())
    rotten[position] ^= 1
    stored(data).write_bytes(rotten)
    done = verified(data, "--report-only")
    assert done.code == 1
    (problem,) = problems(done)
    assert problem["path"] == str(stored(data))
    assert problem["sop_instance_uid"] == UID
    assert problem["damaged"] is True
    assert stored(data).read_bytes() == rotten
    assert str(stored(data)) in run(data, "verify").out
    assert not stored(data).exists()


def test_verify_finds_what_is_cut_longer_or_misplaced(data: Path) -> None:
    """Each is named; what is not ours is named as such and never set aside."""
    whole = stored(data).read_bytes()
    stored(data).write_bytes(whole + b"\0")
    others = [path for path in (data / "store").glob("???/*.dcm") if path != stored(data)]
    others[0].write_bytes(others[0].read_bytes()[:100])
    stray = data / "store" / "abc" / "notes.txt"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"hello")
    elsewhere = data / "store" / "abc" / "1.2.3.dcm"
    elsewhere.write_bytes(whole)
    done = verified(data)
    assert {problem["path"]: problem["damaged"] for problem in problems(done)} == {
        str(stored(data)): True,
        str(others[0]): True,
        str(stray): False,
        str(elsewhere): False,
    }
    assert stray.read_bytes() == b"hello"
    assert elsewhere.exists()


def test_damage_is_set_aside_and_repaired_by_the_next_resend(data: Path) -> None:
    """verify finds it, sets it aside, and is content; the next good copy takes the key, reported as repaired."""
    stored(data).write_bytes(stored(data).read_bytes()[:-3])
    (problem,) = problems(verified(data))
    assert not stored(data).exists()
    (entry,) = run(data, "quarantine", "list", "--json").json
    assert entry["key"] == problem["set_aside"]
    done = verified(data)
    assert done.code == 0
    assert json.loads(done.out)["set_aside_before"] == 1

    async def resend() -> str:
        async with placing(data) as one:
            one.sequence = 100
            return (await one.file(CT)).reason

    assert asyncio.run(resend()) == "repaired"
    assert stored(data).exists()
    assert verified(data).code == 0


def test_verify_reads_the_lanes_too(data: Path) -> None:
    """What waits for an administrator must not rot unseen."""
    other = CT.read_bytes().replace(b"CompressedSamples^CT1", b"CompressedSamples^CT2")
    path = data / "other.dcm"
    path.write_bytes(other)

    async def send() -> str:
        async with placing(data) as one:
            one.sequence = 200
            return (await one.file(path)).key

    key = asyncio.run(send())
    assert key.startswith("conflicts/")
    entry = data / "store" / key
    entry.write_bytes(entry.read_bytes()[:-1])
    (problem,) = problems(verified(data))
    assert problem["key"] == key


def test_verify_goes_on_past_what_cannot_be_opened(data: Path) -> None:
    """One object on a bad place of the disk: it is named as not proved, and the damage behind it is found, and told."""
    unreadable = data / "store" / str(object_key("1.2.3"))
    unreadable.parent.mkdir(exist_ok=True)
    unreadable.symlink_to(unreadable.name)  # ELOOP, where EIO cannot be had
    stored(data).write_bytes(stored(data).read_bytes()[:-1])
    found = {problem["key"]: problem for problem in problems(verified(data))}
    assert found.keys() == {str(object_key("1.2.3")), str(object_key(UID))}
    assert found[str(object_key(UID))]["set_aside"]
    assert not found[str(object_key("1.2.3"))]["damaged"]


@pytest.mark.parametrize("area", ["", "quarantine/"])
def test_verify_tells_of_names_that_are_not_utf_8(data: Path, area: str) -> None:
    """A stranger's file, named on a machine with Latin-1: it is shown escaped, and all that was found with it."""
    folder = os.fsencode(data / "store" / f"{area}0c2")
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - of bytes, which Path has no word for
    with open(folder + b"/Caf\xe9.dcm", "wb") as file:  # noqa: PTH123 - likewise
        file.write(b"no image")
    stored(data).write_bytes(stored(data).read_bytes()[:-1])
    shown = run(data, "verify", "--report-only", "--processes", "1")
    assert shown.code == 1
    assert f"{area}0c2/Caf\\xe9.dcm: not an object of ours" in shown.out
    found = {problem["key"]: problem for problem in problems(verified(data))}
    assert found.keys() == {f"{area}0c2/Caf\\xe9.dcm", str(object_key(UID))}
    assert found[str(object_key(UID))]["set_aside"]
