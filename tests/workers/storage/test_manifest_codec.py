"""The manifest comes back as it went in, never longer than 32 KiB, or not at all."""

import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance
from tests.support.manifests import example
from workers.storage.manifest import (
    MAXIMUM,
    SCHEMA,
    Manifest,
    PixelProof,
    UnreadableManifest,
    decode_manifest,
    encode_manifest,
    received,
)

TEXTS = st.text(max_size=40)
HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
MANIFESTS = st.builds(
    Manifest,
    schema=st.just(SCHEMA),
    upload_id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    source_digest=HEX,
    source_size=st.integers(0, 2**40),
    size=st.integers(0, 2**40),
    digest=HEX,
    pixels=st.none() | st.builds(PixelProof, kind=st.sampled_from(["native", "encoded"]), digest=HEX),
    planar_configuration=st.none() | st.integers(0, 1),
    findings=st.lists(TEXTS, max_size=5).map(tuple),
    differing_tags=st.lists(TEXTS, max_size=5).map(tuple),
    detail=TEXTS,
    versions=st.dictionaries(TEXTS, TEXTS, max_size=3),
)

# Objects that are stored today must be readable for ever: these bytes are never regenerated.
GOLDEN = (
    b'DICMMNF1\x4c\x81\x05\x82\xd8\x02\x00\x00{"schema":1,"upload_id":"00000001000000000002000000000003","sop_class_uid":'
    b'"1.2.840.10008.5.1.4.1.1.2","sop_instance_uid":"1.2.3.4","source_digest":"' + b"a" * 64 + b'",'
    b'"source_size":4096,"source_transfer_syntax_uid":"1.2.840.10008.1.2.1","seal":"' + b"b" * 32 + b'",'
    b'"calling_ae_title":"MODALITY","received_at":1700000000000000000,'
    b'"transfer_syntax_uid":"1.2.840.10008.1.2.4.90","size":2048,"digest":"' + b"c" * 64 + b'",'
    b'"pixels":{"kind":"native","digest":"' + b"f" * 64 + b'"},"planar_configuration":0,'
    b'"findings":["odd-length (0010,0010)"],"versions":{"dicom-ingest":"0.1.0"}}'
)


@given(MANIFESTS)
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    """Decode undoes encode, and the value has even length (PS3.5 7.1)."""
    value = encode_manifest(manifest)
    assert decode_manifest(value) == manifest
    assert len(value) % 2 == 0


@given(st.integers(0, 40_000), st.integers(0, 40_000), st.integers(1, 200))
def test_long_lists_are_cut_with_a_count(findings: int, tags: int, length: int) -> None:
    """Whatever a peer provokes, the manifest stays within 32 KiB and says how much it left out."""
    manifest = example(findings=("f" * length,) * findings, differing_tags=("t" * length,) * tags)
    value = encode_manifest(manifest)
    assert len(value) <= MAXIMUM
    back = decode_manifest(value)
    assert len(back.findings) + back.findings_cut == findings
    assert len(back.differing_tags) + back.differing_tags_cut == tags
    if findings + tags and length < 50 and findings + tags < 500:
        assert back == manifest


@given(MANIFESTS, st.data())
def test_a_changed_byte_is_noticed(manifest: Manifest, data: st.DataObject) -> None:
    """The CRC covers every byte but the pad."""
    value = bytearray(encode_manifest(manifest))
    position = data.draw(st.integers(0, len(value) - 2))
    value[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UnreadableManifest):
        decode_manifest(value)


@given(st.binary(max_size=200))
def test_no_other_bytes_are_a_manifest(data: bytes) -> None:
    """Only the documented error escapes."""
    with pytest.raises(UnreadableManifest):
        decode_manifest(data)


@given(MANIFESTS, st.integers(0, 400))
def test_a_cut_manifest_is_none(manifest: Manifest, length: int) -> None:
    """Never half a manifest."""
    value = encode_manifest(manifest)
    with pytest.raises(UnreadableManifest):
        decode_manifest(value[: min(length, len(value) - 2)])


def test_what_the_first_release_wrote_is_read() -> None:
    """Golden bytes of the first release: every field as it was."""
    assert decode_manifest(GOLDEN) == Manifest(
        schema=1,
        upload_id="00000001000000000002000000000003",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3.4",
        source_digest="a" * 64,
        source_size=4096,
        source_transfer_syntax_uid="1.2.840.10008.1.2.1",
        seal="b" * 32,
        calling_ae_title="MODALITY",
        received_at=1_700_000_000_000_000_000,
        transfer_syntax_uid="1.2.840.10008.1.2.4.90",
        size=2048,
        digest="c" * 64,
        pixels=PixelProof("native", "f" * 64),
        planar_configuration=0,
        findings=("odd-length (0010,0010)",),
        versions={"dicom-ingest": "0.1.0"},
    )


def test_a_later_release_may_add_fields() -> None:
    """Unknown fields are passed over, so that an older reader goes on."""
    body = msgspec.json.encode(msgspec.to_builtins(example()) | {"later": [1, {"x": 2}]})
    length = len(body).to_bytes(4, "little")
    value = b"DICMMNF1" + crc32c(body, crc32c(length)).to_bytes(4, "little") + length + body
    assert decode_manifest(value + bytes(len(value) % 2)) == example()


@given(TEXTS, TEXTS, TEXTS)
def test_what_is_no_identifier_stays_out(uid: str, title: str, address: str) -> None:
    """A damaged record's strings reach no UID and no AE title of the manifest, and cannot swell it."""
    instance = Instance(uid, "", uid, 3, b"\1" * 16, title, title, address * 100, 5)
    manifest = received(UploadId(bytes(16)), instance, "2" * 64)
    assert set(manifest.sop_class_uid) <= set("0123456789.")
    assert all(" " <= character <= "~" and character != "\\" for character in manifest.calling_ae_title)
    assert len(manifest.peer_address) <= 64
    assert len(encode_manifest(manifest)) <= MAXIMUM


def test_an_instance_can_be_made_again_for_a_replay() -> None:
    """All that the receiver recorded comes back."""
    instance = Instance("1.2", "1.3", "1.2.840.10008.1.2", 9, b"\7" * 16, "A", "B", "127.0.0.1", 11)
    assert received(UploadId(bytes(16)), instance, "3" * 64).instance == instance
