"""The entries of a lane as an administrator sees them: listed, found by what he knows of them, described."""

import re
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from workers.storage.damage import Damaged, find_object, is_damaged
from workers.storage.lanes import is_reference
from workers.storage.layout import Area, Key, entry_of, is_entry, parse_key, uid_of
from workers.storage.manifest import Manifest
from workers.storage.moves import find_move
from workers.storage.object_store import ObjectStore
from workers.storage.stores import Stores

DAMAGED: Final = "damaged"  # reason of an object that was set aside
UNREADABLE: Final = "unreadable"  # reason where an entry's own manifest is damaged
_PREFIX = re.compile(r"[0-9a-f]{8,64}\Z")
_KEY_OR_PATH = re.compile(r"(?:\A|/)[0-9a-f]{3}/([0-9a-f]{64}|[0-9]+(?:\.[0-9]+)*)/[^/]+\Z")
_UID = re.compile(r"([0-9]+(?:\.[0-9]+)+)\Z")  # with a dot: digits alone may be the beginning of a digest


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a lane; what scripts get. Keys stay, new ones may come."""

    sop_instance_uid: str
    source_digest: str
    reason: str
    path: str
    store: str
    key: str
    size: int  # bytes of the file
    repeats: int  # further uploads that brought the same bytes
    position: int = 0  # byte of the data set where the parser stood
    detail: str = ""
    classes: tuple[str, ...] = ()
    differing_tags: tuple[str, ...] = ()
    moved_to: str = ""  # a move that was recorded and then interrupted: the same command ends it
    manifest: Manifest | None = None

    @property
    def name(self) -> Key:
        """Its key."""
        return parse_key(self.key)


class NoSuchEntry(LookupError):  # noqa: N818 - states what was found
    """No entry, or more than one, fits what was asked for."""


async def entries(stores: Stores, area: Area, folder: str = "") -> AsyncIterator[Entry]:
    """The entries of a lane, in order of their keys within each store; of one ``folder``: a UID's or digest's.

    A stranger's file is none: `verify` names it.

    Raises:
        Unavailable: a store.
    """
    pending: tuple[Key, int] | None = None
    repeats = 0
    async for listed in stores.find(area, folder):
        # Sorted, an entry comes right before its references.
        if is_reference(listed.key):
            if pending is not None and entry_of(listed.key) == pending[0]:
                repeats += 1
            continue
        if not is_entry(listed.key):
            continue
        if pending is not None:
            yield await describe(stores.of(pending[0]), *pending, repeats)
        pending, repeats = (listed.key, listed.size), 0
    if pending is not None:
        yield await describe(stores.of(pending[0]), *pending, repeats)


async def find_entry(stores: Stores, area: Area, wanted: str) -> Entry:
    """The one entry of a lane that ``wanted`` names: a key, a path, a SOP Instance UID or 8 digits of a digest.

    Raises:
        NoSuchEntry: none or several.
        Unavailable: a store.
    """
    found = [entry async for entry in entries(stores, area, _folder(wanted)) if _is_named(entry, wanted)]
    if len(found) != 1:
        raise NoSuchEntry(
            f"{len(found)} entries of {area} are named {wanted!r}: name one by its key"
            if found
            else f"no entry of {area} is named {wanted!r}: `dicom-ingest {area} list` shows those that are there"
        )
    return found[0]


def _folder(wanted: str) -> str:
    """The UID or digest that an entry lies under, where that is said; empty where all must be looked at."""
    match = _KEY_OR_PATH.search(wanted) or _UID.match(wanted)
    return match[1] if match else ""


def _is_named(entry: Entry, wanted: str) -> bool:
    if wanted in (entry.key, entry.path, entry.sop_instance_uid):
        return True
    return bool(_PREFIX.match(wanted)) and entry.source_digest.startswith(wanted)


async def describe(store: ObjectStore, key: Key, size: int, repeats: int) -> Entry:
    """An entry with what its manifest says; an unreadable one with what its key says."""
    try:
        found = await find_object(store, key)
        manifest = None if found is None else found.manifest
        reason = DAMAGED if is_damaged(key) else "" if manifest is None else manifest.reason
        detail = "" if manifest is None else manifest.detail
    except Damaged as damage:
        manifest, reason, detail = None, DAMAGED if is_damaged(key) else UNREADABLE, str(damage)
    moved_to = ""
    if manifest is not None:
        move = await find_move(store, key.shard, manifest.upload)
        if move is not None and move.key != str(key):
            moved_to = move.target
    return Entry(
        sop_instance_uid=uid_of(key),
        source_digest=_digest(key, manifest),
        reason=reason,
        path=store.locate(key),
        store=store.name,
        key=str(key),
        size=size,
        repeats=repeats,
        position=0 if manifest is None else manifest.position,
        detail=detail,
        classes=() if manifest is None else manifest.classes,
        differing_tags=() if manifest is None else manifest.differing_tags,
        moved_to=moved_to,
        manifest=manifest,
    )


def _digest(key: Key, manifest: Manifest | None) -> str:
    if manifest is not None:
        return manifest.source_digest
    return "" if is_damaged(key) else key.name.rpartition("/")[2]
