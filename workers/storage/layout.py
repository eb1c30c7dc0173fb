"""Keys of objects: UID -> shard -> key. Pure, and the only place that builds keys.

    SSS/<SOP Instance UID>.dcm                                an object
    conflicts/SSS/<SOP Instance UID>/<source digest>          other content under a known UID
    quarantine/SSS/<SOP Instance UID or source digest>/<source digest>
    <entry>+<upload id>.json                                  a repeat of that entry's bytes
    quarantine/SSS/<SOP Instance UID>/damaged-<token>         an object set aside
    moves/SSS/<upload id>.json                                what an administrator moved
    resolutions/SSS/<SOP Instance UID>.json                   a conflict being resolved
    resolutions/SSS/<SOP Instance UID>/<upload id>-<time>.json  one that was

SSS is the shard: the first 3 hex digits of the SHA-256 of the name's text (the UID, else the digest), which
an administrator can compute too. Every part of a key is checked here, whoever asks (CVE-2022-2119 and its
kin: a peer's string became a path).
"""

import enum
import hashlib
import re
from typing import Final, NamedTuple

from ingest.contract.identifiers import InvalidIdentifier, UploadId, check_uid
from ingest.contract.records import Place

SHARDS: Final = 4096
_SHARD_DIGITS: Final = 3

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")
_ENTRY = re.compile(r"(?:[0-9a-f]{64}|damaged-[0-9a-f]{32})\Z")
_SUFFIX = ".dcm"
_KEY = re.compile(
    r"(?:(?P<area>conflicts|quarantine|moves|resolutions)/)?(?P<shard>[0-9a-f]{3})/"
    r"(?P<name>[0-9a-z][0-9a-z.+-]*(?:/[0-9a-z][0-9a-z.+-]*)?)\Z"
)


class Area(enum.StrEnum):
    """The parts of a store."""

    OBJECTS = ""
    CONFLICTS = "conflicts"
    QUARANTINE = "quarantine"
    MOVES = "moves"
    RESOLUTIONS = "resolutions"


class Key(NamedTuple):
    """The name of one object in a store; ``name`` is below the shard."""

    area: Area
    shard: str
    name: str

    def __str__(self) -> str:
        """The whole key, as stores, outcomes and reports write it."""
        prefix = f"{self.area}/" if self.area else ""
        return f"{prefix}{self.shard}/{self.name}"


def parse_key(text: str) -> Key:
    """The key that `Key.__str__` wrote.

    Raises:
        InvalidIdentifier: it is none.
    """
    match = _KEY.match(text)
    if match is None:
        raise InvalidIdentifier("not a key")
    return Key(Area(match["area"] or ""), match["shard"], match["name"])


def shards() -> list[str]:
    """All shards in order."""
    return [f"{number:0{_SHARD_DIGITS}x}" for number in range(SHARDS)]


def shard_of(name: str) -> str:
    """The shard of a UID or digest."""
    return hashlib.sha256(name.encode("ascii")).hexdigest()[:_SHARD_DIGITS]


def check_digest(text: str) -> str:
    """Return ``text`` unchanged when it is a SHA-256 as 64 lowercase hex digits.

    Raises:
        InvalidIdentifier: for anything else.
    """
    if not _DIGEST.match(text):
        raise InvalidIdentifier("a digest has 64 lowercase hex digits")
    return text


def object_key(sop_instance_uid: str) -> Key:
    """Where the instance is stored.

    Raises:
        InvalidIdentifier: not a UID.
    """
    uid = check_uid(sop_instance_uid)
    return Key(Area.OBJECTS, shard_of(uid), uid + _SUFFIX)


def conflict_key(sop_instance_uid: str, source_digest: str) -> Key:
    """Where other content under a known UID is kept.

    Raises:
        InvalidIdentifier: not a UID or not a digest.
    """
    uid = check_uid(sop_instance_uid)
    return Key(Area.CONFLICTS, shard_of(uid), f"{uid}/{check_digest(source_digest)}")


def quarantine_key(sop_instance_uid: str, source_digest: str) -> Key:
    """Where what cannot be read or identified is kept; an empty UID means that it has none.

    Raises:
        InvalidIdentifier: not a UID or not a digest.
    """
    digest = check_digest(source_digest)
    name = check_uid(sop_instance_uid) if sop_instance_uid else digest
    return Key(Area.QUARANTINE, shard_of(name), f"{name}/{digest}")


def damaged_key(name: str, token: str) -> Key:
    """Where a damaged object goes; ``name``: its UID or, in quarantine, digest; ``token``: 32 hex digits.

    Raises:
        InvalidIdentifier: not a UID or digest, or not a token.
    """
    if not _DIGEST.match(name):
        check_uid(name)
    if not _TOKEN.match(token):
        raise InvalidIdentifier("a token has 32 lowercase hex digits")
    return Key(Area.QUARANTINE, shard_of(name), f"{name}/damaged-{token}")


def reference_key(entry: Key, upload_id: UploadId) -> Key:
    """Where a repeat of the bytes at ``entry``, a key of a lane, is noted."""
    return Key(entry.area, entry.shard, f"{entry.name}+{upload_id.hex()}.json")


def move_key(shard: str, upload_id: bytes) -> Key:
    """Where an administrator's move of an upload is recorded; ``shard``: that of the entry moved."""
    return Key(Area.MOVES, shard, f"{upload_id.hex()}.json")


def resolution_key(sop_instance_uid: str) -> Key:
    """Where a resolution in progress is recorded.

    Raises:
        InvalidIdentifier: not a UID.
    """
    uid = check_uid(sop_instance_uid)
    return Key(Area.RESOLUTIONS, shard_of(uid), f"{uid}.json")


def resolved_key(sop_instance_uid: str, upload_id: bytes, at: int) -> Key:
    """Where a resolution that is done is recorded; ``at``: nanoseconds since 1970.

    Raises:
        InvalidIdentifier: not a UID.
    """
    uid = check_uid(sop_instance_uid)
    return Key(Area.RESOLUTIONS, shard_of(uid), f"{uid}/{upload_id.hex()}-{at:020d}.json")


def entry_of(key: Key) -> Key | None:
    """The lane's entry that a reference's key belongs to; None for a key that is no reference."""
    entry, plus, _ = key.name.partition("+")
    return Key(key.area, key.shard, entry) if plus else None


def uid_of(key: Key) -> str:
    """The SOP Instance UID in a key of an object, entry or reference; empty where the name is a digest."""
    name = key.name.removesuffix(_SUFFIX) if key.area is Area.OBJECTS else key.name.partition("/")[0]
    return "" if _DIGEST.match(name) else name


def is_object(key: Key) -> bool:
    """Whether an object of ours can be under a key; a stranger's file below a store has another."""
    try:
        return object_key(uid_of(key)) == key
    except InvalidIdentifier:
        return False


def is_entry(key: Key) -> bool:
    """Whether an entry of ours can be under a key of a lane, as `is_object`; references are none."""
    folder, _, name = key.name.partition("/")
    try:
        return bool((_DIGEST.match(folder) or check_uid(folder)) and _ENTRY.match(name))
    except InvalidIdentifier:
        return False


def counted_as(key: Key) -> Place:
    """Where an upload is whose object or entry is under a key."""
    return {Area.OBJECTS: Place.STORED, Area.CONFLICTS: Place.CONFLICT}.get(key.area, Place.QUARANTINED)
