"""Stored objects are PS3.10 files, and only heads of ours are believed."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_file_meta_info

from tests.support.datasets import data_set_bytes
from tests.support.manifests import example
from tests.support.placing import CT
from workers.storage.manifest import (
    CREATOR_UID,
    MAXIMUM,
    Manifest,
    PixelProof,
    UnreadableManifest,
    encode_manifest,
)
from workers.storage.part10 import HEAD, decode_head, encode_head, encode_plain_head

EXPLICIT = "1.2.840.10008.1.2.1"
GOLDEN = Path(__file__).parents[2] / "vectors" / "object_head_1.bin"  # a head, and 4 bytes of a data set


def written(path: Path, head: bytes, data_set: bytes) -> Path:
    path.write_bytes(head + data_set)
    return path


def test_pydicom_and_dcmtk_open_it(tmp_path: Path) -> None:
    """Meta and data set come out as they went in, the manifest is Private Information of our creator."""
    manifest = example(sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT, calling_ae_title="CT 1")
    path = written(tmp_path / "x.dcm", encode_head(manifest), data_set_bytes(CT))
    meta = pydicom.dcmread(path).file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.SourceApplicationEntityTitle == meta.SendingApplicationEntityTitle == "CT 1"
    assert meta.PrivateInformationCreatorUID == CREATOR_UID
    assert [element.tag.element for element in meta] == sorted(element.tag.element for element in meta)
    assert pydicom.dcmread(path).PatientID == pydicom.dcmread(CT).PatientID
    dumped = subprocess.run(["dcmdump", "+W", str(tmp_path), str(path)], capture_output=True, check=True)
    assert b"E: " not in dumped.stderr


def test_meta_without_what_is_missing_is_still_a_file(tmp_path: Path) -> None:
    """Quarantine keeps what has no UIDs: the elements are left out, and tools still open it."""
    path = written(tmp_path / "x", encode_head(example()), b"\x08\x00\x05\x00CS\x04\x00ABCD")
    meta = read_file_meta_info(path)
    assert "MediaStorageSOPInstanceUID" not in meta
    assert decode_head(path.read_bytes()).manifest == example()
    assert subprocess.run(["dcmdump", str(path)], capture_output=True, check=False).returncode == 0


def test_the_plain_head_has_no_manifest(tmp_path: Path) -> None:
    """A copy in another transfer syntax makes no claim that does not hold for it."""
    path = written(tmp_path / "x", encode_plain_head(example(), EXPLICIT), data_set_bytes(CT))
    assert "PrivateInformation" not in read_file_meta_info(path)
    with pytest.raises(UnreadableManifest):
        decode_head(path.read_bytes())


def test_a_forged_meta_in_the_data_set_is_never_believed(tmp_path: Path) -> None:
    """A peer's group 0002 behind our meta, with a manifest of its own in it: pydicom takes it, we do not."""
    ours = example(sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT)
    forged = example(sop_instance_uid="6.6.6", source_digest="6" * 64, transfer_syntax_uid=EXPLICIT)
    smuggled = encode_head(forged)[132 + 12 :]  # group 0002 behind its length: seen as more of the same group
    path = written(tmp_path / "x", encode_head(ours), smuggled + data_set_bytes(CT))
    assert read_file_meta_info(path).MediaStorageSOPInstanceUID == "6.6.6"
    head = decode_head(path.read_bytes()[:HEAD])
    assert head.manifest == ours
    assert path.read_bytes()[head.size :].startswith(smuggled)


def test_a_forged_meta_alone_is_never_believed() -> None:
    """A whole forged file as a data set has no place to be read from; without our creator it is nobody's."""
    stolen = encode_head(example()).replace(CREATOR_UID.encode(), b"1.2.3".ljust(len(CREATOR_UID), b"\0"))
    with pytest.raises(UnreadableManifest, match="not ours"):
        decode_head(stolen)


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head[:-1],
        lambda head: b"MZ" + head[2:],
        lambda head: head[:128] + b"DICX" + head[132:],
        lambda head: head[:140] + b"\xff\xff\xff\x7f" + head[144:],
        lambda head: head[:140] + (len(head) - 144 - 2).to_bytes(4, "little") + head[144:],
        lambda head: head[:144] + b"\x08\x00" + head[146:],
        lambda head: b"",
    ],
)
def test_a_damaged_head_is_unreadable(change: Callable[[bytes], bytes]) -> None:
    """Cut, another preamble, a length that lies, another group: no manifest."""
    with pytest.raises(UnreadableManifest):
        decode_head(change(encode_head(example(sop_instance_uid="1.2.3"))))


def test_what_the_first_release_wrote_is_read() -> None:
    """Golden head of the first release: every field as it was. These bytes are never written anew."""
    head = decode_head(GOLDEN.read_bytes())
    assert head.size == len(GOLDEN.read_bytes()) - 4
    assert head.manifest == Manifest(
        schema=1,
        upload_id="00000001000000000002000000000003",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3.4",
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.1",
        source_digest="a" * 64,
        source_size=4096,
        source_transfer_syntax_uid=EXPLICIT,
        seal="b" * 32,
        calling_ae_title="MODALITY",
        called_ae_title="DICOM-INGEST",
        peer_address="192.0.2.1",
        received_at=1_700_000_000_000_000_000,
        transfer_syntax_uid="1.2.840.10008.1.2.4.90",
        size=2048,
        digest="c" * 64,
        placed_at=1_700_000_001_000_000_000,
        identity_digest="d" * 64,
        elements_digest="e" * 64,
        pixels=PixelProof("native", "f" * 64),
        photometric_interpretation="MONOCHROME2",
        planar_configuration=0,
        findings=("odd-length (0010,0010)",),
        versions={"dicom-ingest": "0.1.0"},
    )


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    """The CRC covers the whole head: a Transfer Syntax UID that rots misleads nobody."""
    manifest = example(sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT, called_ae_title="X")
    head = bytearray(encode_head(manifest))
    head[data.draw(st.integers(0, len(head) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UnreadableManifest):
        decode_head(bytes(head))


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_only_the_documented_error_escapes(rest: bytes, length: int) -> None:
    """Any bytes behind a plausible beginning."""
    start = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + length.to_bytes(4, "little")
    for data in (rest, start + rest, start[:140] + len(rest).to_bytes(4, "little") + rest):
        with pytest.raises(UnreadableManifest):
            decode_head(data)


def test_one_read_of_the_head_is_enough() -> None:
    """The largest head fits in `HEAD` bytes."""
    uids = dict.fromkeys(("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid"), "1" * 64)
    titles = {"calling_ae_title": "C" * 16, "called_ae_title": "D" * 16}
    room = MAXIMUM - len(encode_manifest(example(**uids, **titles, detail="d")))
    longest = example(**uids, **titles, detail="d" * room)
    head = encode_head(longest)
    assert MAXIMUM < len(head) <= HEAD
    assert decode_head(head).size == len(head)
