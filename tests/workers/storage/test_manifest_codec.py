"""The manifest comes back as it went in, never longer than 32 KiB, or not at all."""

import msgspec
import pytest
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


@pytest.mark.parametrize(
    "changes",
    [
        *({"upload_id": text} for text in ("zz" * 16, "ab", "", "AB" * 16, "ab cd" * 6 + "abcd", "ü" * 32)),
        *({"seal": text} for text in ("zz", "abc")),
        *({"source_digest": text} for text in ("", "A" * 64, "../../x")),
        *({"sop_instance_uid": text} for text in ("../../x", "1." * 40, "\x1b[2J")),
    ],
)
def test_what_keys_and_records_are_made_of_is_looked_at(changes: dict[str, str]) -> None:
    """A head that adds up may still be damaged, or somebody's who can write to the store."""
    with pytest.raises(UnreadableManifest):
        decode_manifest(encode_manifest(example(**changes)))


def test_a_later_release_may_add_fields() -> None:
    """Unknown fields are passed over, so that an older reader goes on."""
    body = msgspec.json.encode(msgspec.to_builtins(example()) | {"later": [1, {"x": 2}]})
    value = b"DICMMNF1" + bytes(4) + len(body).to_bytes(4, "little") + body
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
