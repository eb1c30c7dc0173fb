"""Objects read back: sound, or damaged and set aside, so that the next good copy can take the key.

Otherwise rot would make every healthy resend a "duplicate".
"""

from typing import Final, NamedTuple

import xxhash

from ingest.contract.records import Place
from workers.dataset.payload import EndOfPayload, Payload, SlicePayload, sha256
from workers.storage.layout import Area, Key, damaged_key
from workers.storage.manifest import Manifest, UnreadableManifest
from workers.storage.moves import record_move
from workers.storage.object_store import ObjectStore, Start
from workers.storage.part10 import HEAD, Head, decode_head

_DAMAGED: Final = "/damaged-"


class Damaged(Exception):  # noqa: N818 - states what was found
    """An object that is not what was stored; the message says what is wrong."""


class Found(NamedTuple):
    """What is under a key, its head proved."""

    manifest: Manifest
    head_size: int  # bytes before the data set


def check_start(key: Key, start: Start) -> Found:
    """Prove the head of an object, and its length.

    Raises:
        Damaged: no readable manifest, another instance's, or a length other than the manifest says.
    """
    try:
        head: Head = decode_head(start.data)
    except UnreadableManifest as error:
        raise Damaged(str(error)) from None
    manifest = head.manifest
    if start.size != head.size + manifest.size:
        raise Damaged(f"{start.size} bytes instead of {head.size + manifest.size}")
    if key.area is Area.OBJECTS and f"{manifest.sop_instance_uid}.dcm" != key.name:
        raise Damaged("the manifest is another instance's")
    return Found(manifest, head.size)


async def find_object(store: ObjectStore, key: Key) -> Found | None:
    """What is under a key, durable and its head proved; None where there is nothing.

    Raises:
        Damaged: see `check_start`.
        Unavailable: the store.
    """
    start = await store.start(key, HEAD)
    return None if start is None else check_start(key, start)


def check_data_set(payload: Payload, found: Found) -> SlicePayload:
    """Prove the data set of an opened object against its manifest; blocks. Returns the data set.

    Raises:
        Damaged: cut, or of other bytes.
    """
    manifest = found.manifest
    try:
        data_set = SlicePayload(payload, found.head_size, manifest.size)
        digest = sha256(data_set)
    except EndOfPayload as error:
        raise Damaged(str(error)) from None
    except OSError as error:
        raise Damaged(f"cannot be read: {error.strerror}") from None
    if digest != manifest.digest:
        raise Damaged("the data set has not the digest that the manifest says")
    return data_set


async def set_aside(store: ObjectStore, key: Key, place: Place, why: str) -> Key | None:
    """Move what is under ``key`` whole to quarantine, recorded; ``place``: as what it was counted.

    The caller holds the lock of the shard and has just found it damaged. Returns the new key; None where
    nothing is under ``key`` any more.

    Raises:
        Unavailable: the store.
    """
    start = await store.start(key, HEAD)
    if start is None:
        return None
    # The same after a crash: the record must not be made twice for what no manifest names.
    token = xxhash.xxh3_128_hexdigest(str(key).encode() + start.size.to_bytes(8, "big") + start.data)
    name = key.name.removesuffix(".dcm").partition("/")[0]
    target = damaged_key(name, token)
    while await store.start(target, 0) is not None:
        token = xxhash.xxh3_128_hexdigest(bytes.fromhex(token))
        target = damaged_key(name, token)
    try:
        upload_id: bytes = decode_head(start.data).manifest.upload
    except UnreadableManifest:
        upload_id = bytes.fromhex(token)
    await record_move(store, upload_id, (place, Place.QUARANTINED), target, f"damaged: {why}")
    await store.move(key, target)
    return target


async def was_set_aside(store: ObjectStore, key: Key) -> bool:
    """Whether a damaged object has had this key: what takes it now repairs it."""
    uid = key.name.removesuffix(".dcm")
    return bool(await store.find(Area.QUARANTINE, key.shard, uid + _DAMAGED))


def is_damaged(key: Key) -> bool:
    """Whether a key of the quarantine is that of an object set aside."""
    return _DAMAGED in key.name
