"""The lanes: other content under a known UID, and what cannot be read or identified.

An entry is a PS3.10 file whose data set is the bytes as received and whose manifest says why it is there.
The same bytes again make no second entry but a reference beside it, so that every upload has its trace and
the counts stay exact. Whoever changes a lane holds the lock of its shard.
"""

import re
import time
from typing import Final, NamedTuple

import msgspec

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Place
from workers.dataset.payload import Payload
from workers.errors import Unavailable
from workers.storage.damage import Damaged, Found, find_object, set_aside
from workers.storage.layout import (
    Key,
    conflict_key,
    move_key,
    object_key,
    quarantine_key,
    reference_key,
)
from workers.storage.manifest import Manifest
from workers.storage.moves import find_move
from workers.storage.object_store import ObjectStore
from workers.storage.part10 import pieces_of
from workers.storage.stores import Stores

_RETRY: Final = 1.0  # seconds
_TRIES: Final = 3
_REFERENCE = re.compile(r"\+([0-9a-f]{32})\.json\Z")


class Settled(NamedTuple):
    """Where an upload has its place, durably."""

    place: Place
    reason: str  # a word from a closed list; empty for a plain success
    store: str  # name
    key: Key


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """A reference: an upload that brought the bytes of an entry once more."""

    upload_id: str  # 32 hex digits
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    received_at: int  # nanoseconds since 1970-01-01 UTC, receiver's clock
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    seal: str = ""  # 32 hex digits

    def __post_init__(self) -> None:
        """Refuse what is no reference, as msgspec does for types."""
        if len(self.upload) != UploadId.SIZE:
            raise ValueError("a reference names an upload")
        bytes.fromhex(self.seal)

    @property
    def upload(self) -> UploadId:
        """The upload."""
        return UploadId(bytes.fromhex(self.upload_id))

    def instance(self, entry: Manifest) -> Instance:
        """What the receiver said of it, for a replay."""
        return msgspec.structs.replace(
            entry.instance,
            sop_class_uid=self.sop_class_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            seal=bytes.fromhex(self.seal),
            calling_ae_title=self.calling_ae_title,
            called_ae_title=self.called_ae_title,
            peer_address=self.peer_address,
            received_at=self.received_at,
        )


async def settled_by_move(stores: Stores, key: Key, upload_id: UploadId) -> Settled | None:
    """The place of an upload that an administrator has moved: it counts where it was before.

    ``key``: of the same shard as everything about the upload. The caller holds the lock of the shard.

    Raises:
        Unavailable: the store.
    """
    store = stores.of(key)
    move = None if stores.replaying else await find_move(store, key.shard, upload_id)
    return None if move is None else Settled(move.source, "", store.name, key)


async def settled_before(stores: Stores, manifest: Manifest) -> Settled | None:
    """The place of an upload from before a crash: where a move or a lane has it, though it would go elsewhere today.

    Another release may read more, and what a conflict was with may have been set aside since.

    Raises:
        Unavailable: the store.
    """
    if stores.replaying:
        return None
    uid, digest = manifest.sop_instance_uid, manifest.source_digest
    lanes = {
        quarantine_key(uid, digest): Place.QUARANTINED,
        conflict_key(uid, digest): Place.CONFLICT,
    }
    key = object_key(uid)
    store = stores.of(key)
    traces = [trace for entry in lanes for trace in (entry, reference_key(entry, manifest.upload))]
    # The move last: whoever moves an entry has recorded that before it is gone.
    if not await store.which([*traces, move_key(key.shard, manifest.upload)]):
        return None
    async with store.lock(key.shard):  # whoever moves it has recorded that, or has not begun
        moved = await settled_by_move(stores, key, manifest.upload)
        if moved is not None:
            return moved
        for entry, place in lanes.items():
            settled = await _settled_in(store, entry, manifest, place)
            if settled is not None:
                return settled
    return None


async def _settled_in(store: ObjectStore, key: Key, manifest: Manifest, place: Place) -> Settled | None:
    """Whether an upload made the entry at ``key`` or is one of its repeats."""
    try:
        found = await find_object(store, key)
    except Damaged:
        found = None
    made_it = found is not None and found.manifest.upload_id == manifest.upload_id
    if not made_it and await store.start(reference_key(key, manifest.upload), 0) is None:
        return None
    return Settled(place, "" if found is None else found.manifest.reason, store.name, key)


async def quarantine(stores: Stores, manifest: Manifest, payload: Payload) -> Settled:
    """Keep what cannot be read or identified; the manifest has the reason, position and detail.

    Raises:
        Unavailable: the store.
    """
    key = quarantine_key(manifest.sop_instance_uid, manifest.source_digest)
    store = stores.of(key)
    async with store.lock(key.shard):  # as in `settled_before`
        moved = await settled_by_move(stores, key, manifest.upload)
        if moved is not None:
            return moved
        await keep(store, key, manifest, payload, Place.QUARANTINED)
    return Settled(Place.QUARANTINED, manifest.reason, store.name, key)


async def conflict(stores: Stores, manifest: Manifest, payload: Payload, first: Manifest) -> Settled | None:
    """Keep other content under a known UID; ``manifest`` has its classes and tags.

    None: what is under the UID's key is no longer ``first``, with which it was compared; compare again.

    Raises:
        Unavailable: the store.
    """
    key = conflict_key(manifest.sop_instance_uid, manifest.source_digest)
    store = stores.of(key)
    async with store.lock(key.shard):
        try:
            found = await find_object(store, object_key(manifest.sop_instance_uid))
        except Damaged:
            return None
        if found is None or found.manifest.upload_id != first.upload_id:
            return None
        await keep(store, key, manifest, payload, Place.CONFLICT)
    return Settled(Place.CONFLICT, manifest.reason, store.name, key)


async def known_conflict(stores: Stores, manifest: Manifest) -> Settled | None:
    """Note a repeat of what is in the conflict lane already; None where it is not there, or damaged.

    Raises:
        Unavailable: the store.
    """
    key = conflict_key(manifest.sop_instance_uid, manifest.source_digest)
    store = stores.of(key)
    async with store.lock(key.shard):
        try:
            found = await find_object(store, key)
        except Damaged:
            return None
        if found is None or found.manifest.source_transfer_syntax_uid != manifest.source_transfer_syntax_uid:
            return None
        await _note_repeat(store, key, manifest, found)
    return Settled(Place.CONFLICT, found.manifest.reason, store.name, key)


async def repeats(store: ObjectStore, key: Key) -> list[Repeat]:
    """The references of an entry, in order of their upload ids.

    Raises:
        Unavailable: the store, or a reference is damaged.
    """
    found = []
    for listed in await store.find(key.area, key.shard, key.name + "+"):
        start = await store.start(listed.key, listed.size)
        if start is None:
            continue
        try:
            found.append(msgspec.json.decode(start.data, type=Repeat))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Unavailable(f"the reference {listed.key} is damaged", _RETRY) from None
    return found


def is_reference(key: Key) -> bool:
    """Whether a key of a lane is a reference and no entry."""
    return _REFERENCE.search(key.name) is not None


async def keep(store: ObjectStore, key: Key, manifest: Manifest, payload: Payload, place: Place) -> None:
    """Make the entry, or a reference where its bytes are there already. The caller holds the lock.

    Raises:
        Unavailable: the store.
    """
    placed = msgspec.structs.replace(manifest, placed_at=time.time_ns())
    for _ in range(_TRIES):
        if await store.put_new(key, pieces_of(placed, payload)):
            return
        try:
            found = await find_object(store, key)
        except Damaged as damage:
            await set_aside(store, key, place, str(damage))
            continue
        if found is not None:
            await _note_repeat(store, key, manifest, found)
            return
    raise Unavailable("a lane's entry comes and goes", _RETRY)


async def _note_repeat(store: ObjectStore, key: Key, manifest: Manifest, found: Found) -> None:
    if found.manifest.upload_id == manifest.upload_id:
        return  # our own earlier write
    repeat = Repeat(
        upload_id=manifest.upload_id,
        calling_ae_title=manifest.calling_ae_title,
        called_ae_title=manifest.called_ae_title,
        peer_address=manifest.peer_address,
        received_at=manifest.received_at,
        sop_class_uid=manifest.sop_class_uid,
        transfer_syntax_uid=manifest.source_transfer_syntax_uid,
        seal=manifest.seal,
    )
    await store.put_new(reference_key(key, manifest.upload), [msgspec.json.encode(repeat) + b"\n"])
