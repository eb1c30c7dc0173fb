"""What an administrator does with a quarantine entry: have its uploads placed anew, or discard them.

Both may be interrupted anywhere and done again. For each upload of an entry, the one that made it and those
that repeated its bytes:

    1 begun      a move record from quarantine to quarantine, so that a worker which replays the upload after
                 a crash of its own counts it where it was
    2 placed     the new place is durable
    3 moved      the move record says where

and when that is done for all:

    4 removed    the references are gone, and the entry last
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import xxhash

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Outcome, Place
from workers.dataset.payload import Payload
from workers.storage.damage import Damaged, check_data_set, find_object, is_damaged
from workers.storage.lanes import repeats
from workers.storage.layout import Key, object_key, parse_key, reference_key
from workers.storage.manifest import Manifest
from workers.storage.moves import find_move, record_move
from workers.storage.object_store import ObjectStore
from workers.storage.stores import Stores

Placing = Callable[[UploadId, Instance, Payload], Awaitable[Outcome]]


class CannotReplay(Exception):  # noqa: N818 - named for the fact
    """The entry is gone, or its bytes are not those that were received."""


class Replayed(NamedTuple):
    """What became of one upload of an entry."""

    upload_id: UploadId
    place: Place  # `QUARANTINED`: it was rejected again, and the entry stays
    reason: str


class _Waiting(NamedTuple):
    upload_id: UploadId
    instance: Instance


async def replay(stores: Stores, key: Key, place: Placing) -> list[Replayed]:
    """Have the uploads of the entry at ``key`` placed anew by ``place``, and remove the entry then.

    Source, receive time and upload id stay what they were.

    Raises:
        CannotReplay: no entry, or a damaged one.
        Unavailable: a store, or what ``place`` needs.
    """
    store = stores.of(key)
    if is_damaged(key):
        return [await _restore(store, key)]
    done: dict[UploadId, Replayed] = {}
    try:
        found = await find_object(store, key)
        payload = None if found is None else await store.open(key)
        if found is None or payload is None:
            raise CannotReplay("there is no such entry")
        with payload:
            data_set = await asyncio.to_thread(check_data_set, payload, found)
            while True:
                waiting = [
                    one for one in await _uploads(store, key, found.manifest) if one.upload_id not in done
                ]
                for one in waiting:
                    done[one.upload_id] = await _place(store, key, one, data_set, place)
                if any(one.place is Place.QUARANTINED for one in done.values()):
                    break
                if await _remove_if_done(store, key, found.manifest, done):
                    break
    except Damaged as damage:
        raise CannotReplay(f"the entry is damaged: {damage}") from None
    return list(done.values())


async def discard(stores: Stores, key: Key, reason: str) -> int:
    """Give up the uploads of the entry at ``key`` for good; the number of them.

    Raises:
        Unavailable: a store.
    """
    store = stores.of(key)
    places = Place.QUARANTINED, Place.DISCARDED
    async with store.lock(key.shard):
        if await store.start(key, 0) is None:
            return 0
        ids = [await _first_upload(store, key)]
        ids += [repeat.upload for repeat in await repeats(store, key)]
        for upload_id in ids:
            await record_move(store, upload_id, places, key, reason)
        await _remove(store, key, ids[1:])
    return len(ids)


async def _uploads(store: ObjectStore, key: Key, manifest: Manifest) -> list[_Waiting]:
    first = _Waiting(manifest.upload, manifest.instance)
    return [first, *(_Waiting(one.upload, one.instance(manifest)) for one in await repeats(store, key))]


async def _place(store: ObjectStore, key: Key, one: _Waiting, data_set: Payload, place: Placing) -> Replayed:
    async with store.lock(key.shard):
        move = await find_move(store, key.shard, one.upload_id)
        if move is not None and move.target is not Place.QUARANTINED:
            return Replayed(one.upload_id, move.target, "")  # before an interruption
        stay = Place.QUARANTINED, Place.QUARANTINED
        await record_move(store, one.upload_id, stay, key, "replay begun")
    outcome = await place(one.upload_id, one.instance, data_set)
    if outcome.place is not Place.QUARANTINED:
        async with store.lock(key.shard):
            places = Place.QUARANTINED, outcome.place
            await record_move(store, one.upload_id, places, parse_key(outcome.key), "replayed")
    return Replayed(one.upload_id, outcome.place, outcome.reason)


async def _remove_if_done(
    store: ObjectStore, key: Key, manifest: Manifest, done: dict[UploadId, Replayed]
) -> bool:
    """Remove the entry, unless a worker has added a repeat since."""
    async with store.lock(key.shard):
        uploads = [one.upload_id for one in await _uploads(store, key, manifest)]
        if not done.keys() >= set(uploads):
            return False
        await _remove(store, key, uploads[1:])
        return True


async def _remove(store: ObjectStore, key: Key, repeated: list[UploadId]) -> None:
    for upload_id in repeated:
        await store.remove(reference_key(key, upload_id))
    await store.remove(key)


async def _first_upload(store: ObjectStore, key: Key) -> UploadId:
    """The upload that made an entry; of one that does not tell, what stands for it."""
    try:
        found = await find_object(store, key)
    except Damaged:
        found = None
    if found is not None:
        return found.manifest.upload
    if is_damaged(key):
        return UploadId(bytes.fromhex(key.name[-2 * UploadId.SIZE :]))  # as `set_aside` has it
    return UploadId(xxhash.xxh3_128_digest(str(key).encode()))


async def _restore(store: ObjectStore, key: Key) -> Replayed:
    """Put back an object that was set aside, if it is proved to be sound after all.

    Raises:
        CannotReplay: it is not, or another copy has its key.
    """
    async with store.lock(key.shard):
        try:
            found = await find_object(store, key)
            payload = None if found is None else await store.open(key)
            if found is None or payload is None:
                raise CannotReplay("there is no such entry")
            with payload:
                await asyncio.to_thread(check_data_set, payload, found)
                manifest = found.manifest
                if manifest.reason:
                    raise CannotReplay("it was set aside from a lane, not from the store")
                home = object_key(manifest.sop_instance_uid)
                if not await store.put_new(home, payload.blocks()) and not await _is_ours(
                    store, home, manifest
                ):
                    raise CannotReplay("another copy has taken its place: it can only be discarded")
        except Damaged as damage:
            raise CannotReplay(f"it is damaged ({damage}): have it sent again, then discard it") from None
        await record_move(store, manifest.upload, (Place.QUARANTINED, Place.STORED), home, "restored")
        await store.remove(key)
    return Replayed(manifest.upload, Place.STORED, "restored")


async def _is_ours(store: ObjectStore, home: Key, manifest: Manifest) -> bool:
    """Whether an interrupted restoration has put it there already."""
    found = await find_object(store, home)
    return found is not None and found.manifest == manifest
