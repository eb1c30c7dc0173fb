"""Stored objects are PS3.10 files, and only heads of ours are believed."""

import contextlib
import subprocess
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_file_meta_info

from tests.support.datasets import data_set_bytes
from tests.support.manifests import example
from tests.support.placing import CT
from workers.storage.manifest import CREATOR_UID, MAXIMUM, UnreadableManifest, encode_manifest
from workers.storage.part10 import HEAD, decode_head, encode_head, encode_plain_head

EXPLICIT = "1.2.840.10008.1.2.1"


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
def test_a_damaged_head_is_unreadable(change: object) -> None:
    """Cut, another preamble, a length that lies, another group: no manifest."""
    with pytest.raises(UnreadableManifest):
        decode_head(change(encode_head(example(sop_instance_uid="1.2.3"))))  # type: ignore[operator]


@pytest.mark.parametrize("field", ["1.2.3", EXPLICIT, "CALLED"])
def test_rot_before_the_manifest_is_noticed(field: str) -> None:
    """The elements that the CRC does not cover, such as the Transfer Syntax UID, must agree with the manifest."""
    head = encode_head(
        example(sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT, called_ae_title="CALLED")
    )
    at = head.index(field.encode()) + len(field) - 1
    with pytest.raises(UnreadableManifest, match="contradicts"):
        decode_head(head[:at] + b"8" + head[at + 1 :])


@given(st.data())
def test_no_changed_byte_changes_the_manifest(data: st.DataObject) -> None:
    """Whatever single byte rots, the manifest read is the one written, or none."""
    manifest = example(sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT, called_ae_title="X")
    head = bytearray(encode_head(manifest))
    head[data.draw(st.integers(0, len(head) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(UnreadableManifest):
        assert decode_head(head).manifest == manifest


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
