"""Objects read back: sound, or damaged and set aside, so that the next good copy can take the key.

Otherwise rot would make every healthy resend a "duplicate". Nothing is set aside for one wrong answer of its store, which
says nothing of what is kept there: every byte is read a second time first, under the lock of the shard.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

import xxhash

from ingest.contract.records import Place
from workers.dataset.payload import EndOfPayload, Payload, SlicePayload, sha256
from workers.errors import BadPlace, Unavailable
from workers.storage.layout import Area, Key, damaged_key
from workers.storage.manifest import Manifest, UnreadableManifest
from workers.storage.moves import record_move
from workers.storage.object_store import ObjectStore, Start
from workers.storage.part10 import HEAD, Head, decode_head

_DAMAGED: Final = "/damaged-"
_OTHER_BYTES: Final = "the data set has not the digest that the manifest says"
_RETRY: Final = 1.0  # seconds


class Damaged(Exception):  # noqa: N818 - states what was found
    """An object that is not what was stored; the message says what is wrong."""


class Unreadable(Damaged):
    """An object that is what was stored, and that today's rules take for no data set; it is not set aside."""


class Found(NamedTuple):
    """What is under a key, its head proved."""

    manifest: Manifest
    head_size: int  # bytes before the data set


def check_start(key: Key, data: bytes | memoryview, size: int) -> Found:
    """Prove the head of an object of ``size`` bytes that begins with ``data``, and its length.

    Raises:
        Damaged: no readable manifest, another instance's, or a length other than the manifest says.
    """
    try:
        head: Head = decode_head(data)
    except UnreadableManifest as error:
        raise Damaged(str(error)) from None
    manifest = head.manifest
    if size != head.size + manifest.size:
        raise Damaged(f"{size} bytes instead of {head.size + manifest.size}")
    if key.area is Area.OBJECTS and f"{manifest.sop_instance_uid}.dcm" != key.name:
        raise Damaged("the manifest is another instance's")
    return Found(manifest, head.size)


async def first_bytes(store: ObjectStore, key: Key, length: int = HEAD) -> Start | None:
    """See `ObjectStore.start`; of what nobody can read any more, none.

    Raises:
        Unavailable: the store.
    """
    try:
        return await store.start(key, length)
    except BadPlace:
        return await store.start(key, 0)


async def find_object(store: ObjectStore, key: Key) -> Found | None:
    """What is under a key, durable and its head proved; None where there is nothing.

    Raises:
        Damaged: see `check_start`.
        Unavailable: the store.
    """
    try:
        start = await store.start(key, HEAD)
    except BadPlace as place:
        raise Damaged(str(place)) from None
    return None if start is None else check_start(key, start.data, start.size)


async def find_checked_object(store: ObjectStore, key: Key) -> Found | None:
    """What is under a key, durable and its head proved, if the store itself checked its bytes when they were put.

    None says nothing about it. See `ObjectStore.start_if_checked`.

    Raises:
        Damaged: see `check_start`.
        Unavailable: the store.
    """
    start = await store.start_if_checked(key, HEAD)
    return None if start is None else check_start(key, start.data, start.size)


async def prove_object(store: ObjectStore, key: Key) -> Found | None:
    """What is under a key, durable, every byte of it read back and proved; None where there is nothing.

    Raises:
        Damaged: it is not what was stored.
        Unavailable: the store.
    """
    found = await find_object(store, key)
    if found is None:
        return None
    payload = await store.open(key)
    if payload is None:
        raise Unavailable("an object was removed while it was read", _RETRY)
    with payload:
        await asyncio.to_thread(check_data_set, payload, found)
    return found


def check_blocks(key: Key, size: int, blocks: Iterator[memoryview]) -> Found:
    """Prove an object by its bytes in order, the first block of which holds any head; see `Look`.

    Raises:
        Damaged: it is not what was stored.
        OSError: it cannot be read.
    """
    first = next(blocks, memoryview(b""))
    found = check_start(key, first, size)
    digest = hashlib.sha256(first[found.head_size :])
    read = len(first)
    for block in blocks:
        digest.update(block)
        read += len(block)
    if read != size:
        raise Damaged(f"{read} bytes instead of {size}")
    if digest.hexdigest() != found.manifest.digest:
        raise Damaged(_OTHER_BYTES)
    return found


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
        raise Damaged(_OTHER_BYTES)
    return data_set


async def set_aside(store: ObjectStore, key: Key, place: Place, why: str) -> Key | None:
    """Move what is under ``key`` whole to quarantine, recorded, if it is still damaged; ``place``: as what it was counted.

    The caller holds the lock of the shard. Returns the new key; None where nothing is under ``key`` any more.

    Raises:
        Unavailable: the store, or it read a sound object wrongly before.
    """
    try:
        found = await prove_object(store, key)
    except Damaged:
        return await _move_aside(store, key, place, why)
    if found is None:
        return None
    raise Unavailable("a sound object was read wrongly", _RETRY)


async def set_aside_if_damaged(store: ObjectStore, key: Key, place: Place, why: str) -> Key | None:
    """As `set_aside`, for one who does not hold the lock, and to whom sound is as good as gone.

    Raises:
        Unavailable: the store.
    """
    async with store.lock(key.shard):
        try:
            await prove_object(store, key)
        except Damaged:
            return await _move_aside(store, key, place, why)
    return None


async def _move_aside(store: ObjectStore, key: Key, place: Place, why: str) -> Key | None:
    start = await first_bytes(store, key)
    if start is None:
        return None
    # The same after a crash: the record must not be made twice for what no manifest names.
    token = xxhash.xxh3_128_hexdigest(str(key).encode() + start.size.to_bytes(8, "big") + start.data)
    name = key.name.removesuffix(".dcm").partition("/")[0]
    target = damaged_key(name, token)
    while await store.start(target, 0) is not None and not await store.has_begun_to_move(key, target):
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
