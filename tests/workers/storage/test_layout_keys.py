"""Keys are built in one place, from checked parts only."""

import hashlib
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.identifiers import InvalidIdentifier, UploadId
from workers.storage.layout import (
    Area,
    Key,
    conflict_key,
    damaged_key,
    entry_of,
    move_key,
    object_key,
    parse_key,
    quarantine_key,
    reference_key,
    resolution_key,
    resolved_key,
    shard_of,
    shards,
    uid_of,
)

UIDS = st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}", fullmatch=True).filter(lambda text: len(text) <= 64)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
UPLOADS = st.binary(min_size=16, max_size=16).map(UploadId)
UNSAFE = [
    "",
    ".",
    "..",
    "../1.2",
    "1.2/../3",
    "1.2/",
    "/1.2",
    "1..2",
    "1.2\0",
    "1.2\n",
    "a",
    "1" * 65,
    "1.2 ",
]
NO_DIGESTS = ["", "..", "a" * 63, "A" * 64, "g" * 64, "a" * 65, "a" * 63 + "/", "a" * 64 + "\n"]


@given(UIDS, DIGESTS, UPLOADS, st.integers(0, 2**63))
def test_every_key_lies_in_its_area_and_shard(uid: str, digest: str, upload: UploadId, at: int) -> None:
    """Whatever the checked parts are, a key has no part that leaves its folder, and is read back as it was."""
    keys = [
        object_key(uid),
        conflict_key(uid, digest),
        quarantine_key(uid, digest),
        quarantine_key("", digest),
        damaged_key(uid, digest[:32]),
        damaged_key(digest, digest[:32]),
        reference_key(conflict_key(uid, digest), upload),
        move_key(shard_of(uid), upload),
        resolution_key(uid),
        resolved_key(uid, upload, at),
    ]
    for key in keys:
        parts = str(key).split("/")
        assert not {"", ".", ".."} & set(parts)
        assert parts[:-1] == [*([key.area] if key.area else []), key.shard, *key.name.split("/")[:-1]]
        assert parse_key(str(key)) == key
    assert len(set(keys)) == len(keys)


@given(UIDS)
def test_an_administrator_can_compute_the_shard(uid: str) -> None:
    """SSS is the first 3 hex digits of the SHA-256 of the UID's text."""
    digits = hashlib.sha256(uid.encode()).hexdigest()[:3]
    assert str(object_key(uid)) == f"{digits}/{uid}.dcm"
    assert digits in shards()


def test_there_are_4096_shards() -> None:
    """Three hex digits, each once, in order."""
    assert len(set(shards())) == 4096
    assert shards()[0] == "000"
    assert shards()[-1] == "fff"
    assert shards() == sorted(shards())


@pytest.mark.parametrize("uid", UNSAFE)
def test_no_key_from_what_is_no_uid(uid: str) -> None:
    """A peer's string that is no UID becomes no path, whichever key is asked for (CVE-2022-2119 and kin)."""
    digest = "a" * 64
    builders = [
        partial(object_key, uid),
        partial(conflict_key, uid, digest),
        partial(damaged_key, uid, "a" * 32),
        partial(resolution_key, uid),
        partial(resolved_key, uid, UploadId(bytes(16)), 0),
    ]
    if uid:
        builders.append(partial(quarantine_key, uid, digest))
    for build in builders:
        with pytest.raises(InvalidIdentifier):
            build()


@pytest.mark.parametrize("digest", NO_DIGESTS)
def test_no_key_from_what_is_no_digest(digest: str) -> None:
    """A digest has 64 lowercase hex digits."""
    with pytest.raises(InvalidIdentifier):
        conflict_key("1.2", digest)
    with pytest.raises(InvalidIdentifier):
        quarantine_key("", digest)


@pytest.mark.parametrize("token", ["", "a" * 31, "../" + "a" * 29, "A" * 32])
def test_no_key_from_what_is_no_token(token: str) -> None:
    """A token has 32 lowercase hex digits."""
    with pytest.raises(InvalidIdentifier):
        damaged_key("1.2", token)


@pytest.mark.parametrize(
    "text", ["", "x", "../000/1.dcm", "000/", "000/../1", "quarantine/1.2", "zzz/1.2.dcm"]
)
def test_only_keys_are_read_as_keys(text: str) -> None:
    """What is no key is refused."""
    with pytest.raises(InvalidIdentifier):
        parse_key(text)


@given(UIDS, DIGESTS, UPLOADS)
def test_a_key_tells_its_uid_and_a_reference_its_entry(uid: str, digest: str, upload: UploadId) -> None:
    """So listings need no second source."""
    entry = quarantine_key(uid, digest)
    assert entry_of(reference_key(entry, upload)) == entry
    assert entry_of(entry) is None
    assert uid_of(object_key(uid)) == uid_of(entry) == uid_of(reference_key(entry, upload)) == uid
    assert not uid_of(quarantine_key("", digest))
    assert Key(Area.OBJECTS, shard_of(uid), f"{uid}.dcm") == object_key(uid)
