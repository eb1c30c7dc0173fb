"""Deduplicate: is the instance known already, and is a second copy the same object or a conflict?

The first answer needs only the head of what is stored. The second, for bytes that differ, compares content
digest c1: the same elements and pixels in another encoding are a duplicate, all else is a conflict, classed
by what differs.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from ingest.contract.records import Place
from workers.dataset.digest import IDENTITY_TAGS, ContentDigests, differing_tags
from workers.dataset.elements import PIXEL_DATA
from workers.dataset.findings import tag_text
from workers.dataset.payload import SlicePayload
from workers.dataset.pixel_data import PHOTOMETRIC_INTERPRETATION
from workers.errors import Rejected, Unavailable
from workers.pixels.codec import Codec
from workers.pixels.decoding import is_jpeg_2000
from workers.pixels.digest import PixelDigest, pixel_digest
from workers.stages.transcode import pixel_data_of
from workers.stages.validate import Examination, validate
from workers.storage.damage import (
    Damaged,
    Found,
    Unreadable,
    check_data_set,
    find_object,
    set_aside,
    was_set_aside,
)
from workers.storage.lanes import Settled, known_conflict, settled_before
from workers.storage.layout import Key, object_key
from workers.storage.manifest import NO_PIXELS, Manifest, PixelProof
from workers.storage.object_store import ObjectStore
from workers.storage.stores import Stores

REPAIRED = "repaired"  # reason of a stored instance that took the place of a damaged object

# The classes of a conflict, the loudest first: another patient under the same UIDs is the commonest real one.
IDENTITY = "identity"
ELEMENTS = "elements"
PIXELS = "pixels"
_MOST_TAGS = 1024  # of a conflict; the manifest cuts the list, with a count, if it finds no room
_RETRY = 1.0  # seconds
_REPLACED = "the object was replaced while it was looked at"


class Fresh(NamedTuple):
    """No object has the key; ``repaired``: a damaged one had it."""

    repaired: bool


class Other(NamedTuple):
    """An object of other bytes has the key."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Difference:
    """Why a second copy is a conflict with ``first``, the object that is stored."""

    first: Manifest
    classes: tuple[str, ...]
    tags: tuple[str, ...]  # as the standard prints them; those of the identity first
    pixels: PixelDigest | None  # of the second copy


class _Content(NamedTuple):
    digests: ContentDigests | None
    pixels: PixelDigest | None
    is_rct: bool  # of samples that nobody turns back to RGB, as which c1 counts YBR_RCT everywhere


def stored_reason(manifest: Manifest) -> str:
    """The reason of the outcome of an object with this manifest; empty for a plain success."""
    return REPAIRED if manifest.repaired else manifest.passed_through


async def known(stores: Stores, manifest: Manifest, *, replayed: bool = True) -> Settled | Other | Fresh:
    """Whether the upload or its bytes are known; ``manifest``: as `received` makes it, with a valid UID.

    ``replayed``: the upload may have been given a place before. For one that came since, nobody has looked for
    it in the lanes: four requests to a store are saved, two of them listings.

    `Settled`: nothing is left to do for this upload. `Other`: see `compare`.

    Raises:
        Unavailable: the store.
    """
    uid = manifest.sop_instance_uid
    key = object_key(uid)
    store = stores.of(key)
    settled = await settled_before(stores, manifest) if replayed else None
    if settled is not None:
        return settled
    try:
        found = await find_object(store, key)
    except Damaged as damage:
        async with store.lock(key.shard):
            await set_aside(store, key, Place.STORED, str(damage))
        return Fresh(repaired=True)
    if found is None:
        return Fresh(await was_set_aside(store, key))
    stored = found.manifest
    if stored.upload_id == manifest.upload_id:  # our own write, before a crash
        return Settled(Place.STORED, stored_reason(stored), store.name, key)
    if (stored.source_digest, stored.source_transfer_syntax_uid) == (
        manifest.source_digest,
        manifest.source_transfer_syntax_uid,
    ):
        return Settled(Place.DUPLICATE, "", store.name, key)
    return await known_conflict(stores, manifest) or Other(stored)


async def compare(
    stores: Stores, other: Other, examination: Examination, codec: Codec, scratch: Path, *, settle: bool
) -> Settled | Difference | Fresh:
    """Compare an instance with the object that has its key.

    ``scratch``: folder for what a deflated data set inflates to. ``settle``: take a codec that keeps failing
    as a fact about the pixels.

    Raises:
        CodecFailed: not ``settle``, and the codec crashed or met a limit, so nothing is known.
        Unavailable: the store.
    """
    first = other.manifest
    key = object_key(first.sop_instance_uid)
    store = stores.of(key)
    mine = await _content(examination, codec, settle=settle)
    if _proved(first) == mine and mine.digests is not None:
        return Settled(Place.DUPLICATE, "", store.name, key)
    try:
        async with _opened(stores, first, scratch) as stored:
            theirs = await _content(stored, codec, settle=settle)
            if theirs == mine and mine.digests is not None:
                return Settled(Place.DUPLICATE, "", store.name, key)
            return await asyncio.to_thread(_difference, first, (stored, theirs), (examination, mine))
    except Unreadable:
        return Difference(first, (ELEMENTS,), (), mine.pixels)
    except Damaged as damage:
        async with store.lock(key.shard):
            with contextlib.suppress(Damaged):
                await _unchanged(store, key, first)
            await set_aside(store, key, Place.STORED, str(damage))
        return Fresh(repaired=True)


def _proved(manifest: Manifest) -> _Content | None:
    """What a manifest says of its object's content; None where it does not say all."""
    if not manifest.elements_digest or manifest.pixels is None:
        return None
    digests = ContentDigests(manifest.identity_digest, manifest.elements_digest)
    is_rct = _is_rct(manifest.photometric_interpretation, manifest.source_transfer_syntax_uid)
    return _Content(digests, digest_of(manifest.pixels), is_rct)


def proof_of(pixels: PixelDigest | None) -> PixelProof:
    """A pixel digest for a manifest; None where the instance has no pixels."""
    return NO_PIXELS if pixels is None else PixelProof(pixels.kind, pixels.hex)


def digest_of(proof: PixelProof) -> PixelDigest | None:
    """The pixel digest in a manifest; None where the instance has no pixels."""
    if proof == NO_PIXELS:
        return None
    return PixelDigest("native" if proof.kind == "native" else "encoded", proof.digest)


async def _content(examination: Examination, codec: Codec, *, settle: bool) -> _Content:
    pixels = pixel_data_of(examination)
    if pixels is None:
        return _Content(examination.digests, None, is_rct=False)
    digest = await pixel_digest(pixels, codec, settle=settle)
    photometric = pixels.description.photometric_interpretation
    return _Content(examination.digests, digest, _is_rct(photometric, examination.transfer_syntax_uid))


def _is_rct(photometric: str, transfer_syntax_uid: str) -> bool:
    return photometric == "YBR_RCT" and not is_jpeg_2000(transfer_syntax_uid)


@asynccontextmanager
async def _opened(stores: Stores, first: Manifest, scratch: Path) -> AsyncIterator[Examination]:
    """The stored object examined, its bytes proved.

    Raises:
        Damaged: they are not what was stored.
        Unreadable: they are, and no data set.
    """
    key = object_key(first.sop_instance_uid)
    store = stores.of(key)
    found = await _unchanged(store, key, first)
    payload = await store.open(key)
    if payload is None:
        raise Unavailable(_REPLACED, _RETRY)
    with payload:
        data_set = await asyncio.to_thread(check_data_set, payload, found)
        yield await asyncio.to_thread(examine_stored, data_set, found.manifest, scratch)


async def _unchanged(store: ObjectStore, key: Key, first: Manifest) -> Found:
    """The head of the object at a key, which must still be ``first``.

    Raises:
        Damaged: its head, by now.
        Unavailable: it is another object.
    """
    found = await find_object(store, key)
    if found is None or found.manifest.upload_id != first.upload_id:
        raise Unavailable(_REPLACED, _RETRY)
    return found


def examine_stored(data_set: SlicePayload, manifest: Manifest, scratch: Path) -> Examination:
    """Examine a stored data set; blocks.

    Raises:
        Unreadable: it is no data set by today's rules.
    """
    instance = msgspec.structs.replace(
        manifest.instance, transfer_syntax_uid=manifest.transfer_syntax_uid, size=manifest.size
    )
    try:
        return validate(data_set, instance, scratch)
    except Rejected as rejected:
        raise Unreadable(f"the data set cannot be read any more: {rejected.reason}") from None


def _difference(
    first: Manifest, theirs: tuple[Examination, _Content], mine: tuple[Examination, _Content]
) -> Difference:
    """What differs; blocks."""
    one, other = theirs[0], mine[0]
    tags = differing_tags((one.data_set, one.encoding), (other.data_set, other.encoding), _MOST_TAGS)
    if theirs[1].is_rct != mine[1].is_rct and PHOTOMETRIC_INTERPRETATION not in tags:
        tags = (*tags, PHOTOMETRIC_INTERPRETATION)
    classes = []
    if any(tag in IDENTITY_TAGS for tag in tags):
        classes.append(IDENTITY)
    if any(tag not in IDENTITY_TAGS for tag in tags):
        classes.append(ELEMENTS)
    if theirs[1].pixels != mine[1].pixels:
        classes.append(PIXELS)
        tags = (*tags, PIXEL_DATA)
    # Elements out of order (PS3.5 7.1) have no c1 to compare by, even where none of them differs.
    texts = tuple(tag_text(tag) for tag in tags)
    return Difference(first, tuple(classes) or (ELEMENTS,), texts, mine[1].pixels)
