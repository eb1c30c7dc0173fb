"""`conflicts resolve`: other content becomes current under its UID, and the first is kept in the lane.

The steps, each durable before the next. A kill between two of them leaves the first or the other content
under the key, whole, and both kept; the same command again, or the next start of a worker, ends it.

    1 recorded   resolutions/SSS/<UID>.json says what is to be done
    2 kept       the first content is in the lane
    3 moved      both uploads and the repeats have their move records
    4 replaced   the key has the other content
    5 removed    the other's references and entry are gone from the lane
    6 done       the record is history at resolutions/SSS/<UID>/
"""

import asyncio
import contextlib
import time
from typing import Final

import msgspec

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Place
from workers.errors import Unavailable
from workers.storage.damage import Damaged, Found, check_data_set, find_object, set_aside
from workers.storage.lanes import keep, repeats
from workers.storage.layout import (
    Area,
    Key,
    conflict_key,
    object_key,
    reference_key,
    resolution_key,
    resolved_key,
)
from workers.storage.moves import record_move
from workers.storage.object_store import ObjectStore
from workers.storage.part10 import pieces_of
from workers.storage.stores import Stores

SUPERSEDED: Final = "superseded"  # reason of content that was the first until a conflict was resolved
RESOLVED: Final = "resolved"  # why content that was in conflict is stored as it was received
_MAXIMUM: Final = 64 * 1024  # bytes of a record
_TEXT: Final = 512  # characters of an administrator's reason
_RETRY: Final = 60.0  # seconds; an administrator must mend it


class CannotResolve(Exception):  # noqa: N818 - named for the fact
    """The conflict is not there, or cannot be resolved as asked; nothing has been changed."""


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, as it is recorded."""

    sop_instance_uid: str
    prefer: str  # source digest that becomes current
    prefer_upload: str  # 32 hex digits
    first: str  # source digest that was; empty where the key was vacant
    first_upload: str
    reason: str
    at: int  # nanoseconds since 1970-01-01 UTC

    def __post_init__(self) -> None:
        """Refuse what names no entry, as msgspec does for types."""
        conflict_key(self.sop_instance_uid, self.prefer)
        if len(bytes.fromhex(self.prefer_upload)) != UploadId.SIZE:
            raise ValueError("a resolution names an upload")


async def resolve(stores: Stores, uid: str, prefer: str, reason: str) -> Resolution:
    """Make the content of source digest ``prefer`` current.

    A resolution of the same UID that was interrupted is ended first; if it was this one, that is all.

    Raises:
        CannotResolve: no such entry, or it is damaged.
        Unavailable: a store.
    """
    key = object_key(uid)
    store = stores.of(key)
    async with store.lock(key.shard):
        pending = await _pending(store, uid)
        if pending is not None:
            await _Work(store, pending).run()
            if pending.prefer == prefer:
                return pending
        resolution = await _decide(store, uid, prefer, reason)
        await store.put_new(resolution_key(uid), [msgspec.json.encode(resolution) + b"\n"])
        await _Work(store, resolution).run()
    return resolution


async def finish_resolutions(stores: Stores) -> int:
    """End every resolution that was interrupted; the number of them.

    Raises:
        Unavailable: a store.
    """
    finished = 0
    async for listed in stores.find(Area.RESOLUTIONS):
        if "/" in listed.key.name:
            continue  # history
        store = stores.of(listed.key)
        async with store.lock(listed.key.shard):
            pending = await _pending(store, listed.key.name.removesuffix(".json"))
            if pending is not None:
                await _Work(store, pending).run()
                finished += 1
    return finished


async def _pending(store: ObjectStore, uid: str) -> Resolution | None:
    key = resolution_key(uid)
    start = await store.start(key, _MAXIMUM)
    if start is None:
        return None
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        resolution = msgspec.json.decode(start.data, type=Resolution)
        if resolution.sop_instance_uid == uid:
            return resolution
    raise Unavailable(f"the record {key} is damaged", _RETRY)


async def _decide(store: ObjectStore, uid: str, prefer: str, reason: str) -> Resolution:
    """Check that it can be done.

    Raises:
        CannotResolve: it cannot.
    """
    key, entry = object_key(uid), conflict_key(uid, prefer)
    if await _is_current(store, key, prefer) and await store.start(entry, 0) is None:
        raise CannotResolve("that content is current already")
    other = await _proved_entry(store, entry)
    try:
        first = await find_object(store, key)
    except Damaged as damage:
        await set_aside(store, key, Place.STORED, str(damage))
        first = None
    return Resolution(
        sop_instance_uid=uid,
        prefer=prefer,
        prefer_upload=other.manifest.upload_id,
        first="" if first is None else first.manifest.source_digest,
        first_upload="" if first is None else first.manifest.upload_id,
        reason=reason[:_TEXT],
        at=time.time_ns(),
    )


async def _is_current(store: ObjectStore, key: Key, source_digest: str) -> bool:
    try:
        found = await find_object(store, key)
    except Damaged:
        return False
    return found is not None and found.manifest.source_digest == source_digest


async def _proved_entry(store: ObjectStore, key: Key) -> Found:
    """The entry, every byte of it proved."""
    try:
        found = await find_object(store, key)
        payload = await store.open(key)
        if found is None or payload is None:
            raise CannotResolve("the conflict lane has no content of that digest under that UID")
        with payload:
            await asyncio.to_thread(check_data_set, payload, found)
    except Damaged as damage:
        raise CannotResolve(f"the entry is damaged: {damage}") from None
    return found


class _Work:
    """Steps 2 to 6 of one resolution; each may have been done before. The caller holds the lock."""

    def __init__(self, store: ObjectStore, resolution: Resolution) -> None:
        self._store = store
        self._resolution = resolution
        uid = resolution.sop_instance_uid
        self._key = object_key(uid)
        self._entry = conflict_key(uid, resolution.prefer)

    async def run(self) -> None:
        """Do what is left to do."""
        current = await self._current()
        if current is None or current.manifest.upload_id != self._resolution.prefer_upload:
            if current is not None and not await self._keep_first(current):
                current = None
            await self._record_moves(current)
            await self._replace()
        await self._remove_entry()
        await self._file()

    async def _current(self) -> Found | None:
        """What is under the key; a damaged object makes way."""
        try:
            return await find_object(self._store, self._key)
        except Damaged as damage:
            await set_aside(self._store, self._key, Place.STORED, str(damage))
            return None

    async def _keep_first(self, current: Found) -> bool:
        """Keep the first content in the lane; False where it is damaged, and so goes to quarantine."""
        manifest = msgspec.structs.replace(
            current.manifest,
            reason=SUPERSEDED,
            detail=f"made way for source digest {self._resolution.prefer}",
        )
        key = conflict_key(manifest.sop_instance_uid, manifest.source_digest)
        payload = await self._store.open(self._key)
        if payload is None:
            raise Unavailable("the object has gone while a conflict was resolved", 1.0)
        with payload:
            try:
                data_set = await asyncio.to_thread(check_data_set, payload, current)
            except Damaged as damage:
                await set_aside(self._store, self._key, Place.STORED, str(damage))
                return False
            await keep(self._store, key, manifest, data_set, Place.CONFLICT)
        return True

    async def _record_moves(self, current: Found | None) -> None:
        """Before the key changes, so that a worker that replays one of the uploads counts it where it was."""
        reason = f"{RESOLVED}: {self._resolution.reason}"
        if current is not None:
            first = current.manifest
            lane = conflict_key(first.sop_instance_uid, first.source_digest)
            await record_move(self._store, first.upload, (Place.STORED, Place.CONFLICT), lane, reason)
        other = bytes.fromhex(self._resolution.prefer_upload)
        await record_move(self._store, other, (Place.CONFLICT, Place.STORED), self._key, reason)
        await self._move_repeats(reason)

    async def _move_repeats(self, reason: str) -> None:
        for repeat in await repeats(self._store, self._entry):
            places = Place.CONFLICT, Place.DUPLICATE
            await record_move(self._store, repeat.upload, places, self._key, reason)

    async def _replace(self) -> None:
        try:
            await self._replace_proved()
        except Damaged as damage:  # since it was decided: the first content stays under the key
            raise Unavailable(f"the preferred content {self._entry} is damaged: {damage}", _RETRY) from None

    async def _replace_proved(self) -> None:
        """Put the preferred content under the key.

        Raises:
            Damaged: it is not what was kept.
        """
        found = await find_object(self._store, self._entry)
        payload = await self._store.open(self._entry)
        if found is None or payload is None:
            raise Unavailable("the preferred content has gone while a conflict was resolved", _RETRY)
        with payload:
            data_set = await asyncio.to_thread(check_data_set, payload, found)
            before = found.manifest
            manifest = msgspec.structs.replace(
                before,
                reason="",
                detail="",
                classes=(),
                differing_tags=(),
                differing_tags_cut=0,
                passed_through=before.passed_through if before.reason == SUPERSEDED else RESOLVED,
                placed_at=time.time_ns(),
            )
            await self._store.replace(self._key, pieces_of(manifest, data_set))

    async def _remove_entry(self) -> None:
        await self._move_repeats(f"{RESOLVED}: {self._resolution.reason}")
        for repeat in await repeats(self._store, self._entry):
            await self._store.remove(reference_key(self._entry, repeat.upload))
        await self._store.remove(self._entry)

    async def _file(self) -> None:
        resolution = self._resolution
        uid = resolution.sop_instance_uid
        history = resolved_key(uid, bytes.fromhex(resolution.prefer_upload), resolution.at)
        await self._store.put_new(history, [msgspec.json.encode(resolution) + b"\n"])
        await self._store.remove(resolution_key(uid))
