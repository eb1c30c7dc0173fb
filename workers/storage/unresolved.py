"""What the lanes hold under one UID that nobody has decided about yet, and who sent it.

Decided is what an administrator has replayed, discarded or resolved. What was discarded is gone, and says nothing any
more. Content that made way in a resolution is kept in the lane: no open question, and yet the only copy of it. Whose
an entry is that cannot be read, nobody can tell: it may be anybody's.
"""

import asyncio
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

import msgspec

from ingest.contract.records import Place
from workers.errors import Unavailable
from workers.storage.damage import Damaged, find_object, first_bytes, is_damaged
from workers.storage.lanes import Repeat, is_reference
from workers.storage.layout import Area, Key, entry_of, shard_of
from workers.storage.manifest import Manifest, UnreadableManifest
from workers.storage.moves import find_move
from workers.storage.object_store import ObjectStore
from workers.storage.part10 import decode_head
from workers.storage.resolution import SUPERSEDED

_REFERENCE = 64 * 1024  # bytes; one has under 1 KiB
_TOKEN = 32  # digits at the end of the key of what was set aside


class Claim(NamedTuple):
    """An upload in a lane, or an object that was set aside."""

    upload_id: str = ""  # 32 hex digits; empty where it cannot be told
    calling_ae_title: str | None = None  # None: likewise
    source_digest: str = ""  # of what was set aside; empty: likewise

    def may_be_of(self, ae_titles: Container[str]) -> bool:
        """Whether a source of these AE titles may have sent it."""
        return self.calling_ae_title is None or self.calling_ae_title in ae_titles


UNKNOWN = Claim()


class Kept(NamedTuple):
    """Content that was stored until a conflict was resolved, and where it is in the lane."""

    key: Key
    claim: Claim


class Unresolved(NamedTuple):
    """What waits for an administrator under one UID, and what has waited."""

    claims: tuple[Claim, ...] = ()  # content that was not stored
    set_aside: tuple[Claim, ...] = ()  # objects that were, until they were found damaged
    made_way: tuple[Kept, ...] = ()


async def filled_lanes(stores: Iterable[ObjectStore]) -> Mapping[str, Container[str]]:
    """By the names of stores, the shards that may have lane entries; spares the look at all others.

    A store that does not answer is left out.
    """
    names = {store.name: store for store in stores}

    async def of(store: ObjectStore) -> frozenset[str] | None:
        try:
            return frozenset([*await store.filled(Area.QUARANTINE), *await store.filled(Area.CONFLICTS)])
        except Unavailable:
            return None

    found = await asyncio.gather(*map(of, names.values()))
    return {name: shards for name, shards in zip(names, found, strict=True) if shards is not None}


async def unresolved(store: ObjectStore, uid: str) -> Unresolved:
    """What the lanes of the store have under a UID.

    Raises:
        Unavailable: the store, or a record of a move is damaged.
    """
    claims: list[Claim] = []
    set_aside: list[Claim] = []
    shard = shard_of(uid)
    for listed in await store.find(Area.QUARANTINE, shard, uid + "/"):
        if is_damaged(listed.key):
            damaged, was_stored = await _damaged(store, listed.key)
            (set_aside if was_stored else claims).append(damaged)
            continue
        claim = await (_repeat if is_reference(listed.key) else _entry)(store, listed.key)
        if claim is not None and not await _has_left(store, shard, claim):
            claims.append(claim)
    conflicts, made_way = await _conflicts(store, shard, uid)
    return Unresolved((*claims, *conflicts), tuple(set_aside), tuple(made_way))


async def _conflicts(store: ObjectStore, shard: str, uid: str) -> tuple[list[Claim], list[Kept]]:
    claims: list[Claim] = []
    superseded: dict[Key | None, Kept] = {}
    for listed in await store.find(Area.CONFLICTS, shard, uid + "/"):  # an entry comes before its repeats
        key = listed.key
        if is_reference(key):
            claim = None if entry_of(key) in superseded else await _repeat(store, key)
        else:
            manifest = await _manifest(store, key)
            if manifest is not None and manifest.reason == SUPERSEDED:
                superseded[key] = Kept(key, _claim_of(manifest))
                continue
            claim = await _entry(store, key)
        if claim is not None:
            claims.append(claim)
    return claims, list(superseded.values())


async def _entry(store: ObjectStore, key: Key) -> Claim | None:
    """Who made an entry; None where it has gone meanwhile."""
    try:
        found = await find_object(store, key)
    except Damaged:
        return UNKNOWN
    return None if found is None else _claim_of(found.manifest)


async def _repeat(store: ObjectStore, key: Key) -> Claim | None:
    """Who brought the bytes of an entry once more."""
    start = await first_bytes(store, key, _REFERENCE)
    if start is None:
        return None
    try:
        repeat = msgspec.json.decode(start.data, type=Repeat)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return UNKNOWN
    return Claim(repeat.upload_id, repeat.calling_ae_title)


async def _has_left(store: ObjectStore, shard: str, claim: Claim) -> bool:
    """Whether an upload has been placed elsewhere or discarded, and only its entry is still to be removed."""
    if not claim.upload_id:
        return False
    move = await find_move(store, shard, bytes.fromhex(claim.upload_id))
    return move is not None and move.target is not Place.QUARANTINED


async def _damaged(store: ObjectStore, key: Key) -> tuple[Claim, bool]:
    """Whose an object is that was set aside, and whether it was stored or came from a lane."""
    manifest = await _manifest(store, key)
    if manifest is not None:
        return _claim_of(manifest), not manifest.reason
    move = await find_move(store, key.shard, bytes.fromhex(key.name[-_TOKEN:]))
    return UNKNOWN, move is not None and move.source is Place.STORED


async def _manifest(store: ObjectStore, key: Key) -> Manifest | None:
    """What the head says, whatever is behind it."""
    start = await first_bytes(store, key)
    try:
        return None if start is None else decode_head(start.data).manifest
    except UnreadableManifest:
        return None


def _claim_of(manifest: Manifest) -> Claim:
    return Claim(manifest.upload_id, manifest.calling_ae_title or None, manifest.source_digest)
