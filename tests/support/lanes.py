"""The state of stores as an account and as files, for tests of what administrators do with them."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Place
from workers.storage.damage import check_data_set, find_object
from workers.storage.entries import Entry, entries
from workers.storage.layout import Area, uid_of
from workers.storage.moves import Move
from workers.storage.stores import Stores, open_stores


def counts(data: Path, counted: Iterable[Place]) -> dict[str, int]:
    """What `status` would say: what workers counted, and the moves."""
    places = Counter(counted)
    for path in (data / "store" / "moves").glob("*/*.json"):
        move = msgspec.json.decode(path.read_bytes(), type=Move)
        places[move.source] -= 1
        places[move.target] += 1
    return {place: count for place, count in places.items() if count}


def on_disk(data: Path, *, damaged: bool = False) -> dict[str, int]:
    """Objects, and uploads in the lanes, as they lie there; every object proved, unless ``damaged`` ones are looked for."""

    async def look(stores: Stores) -> dict[str, int]:
        found = {"stored": 0, "conflict": 0, "quarantined": 0}
        async for listed in stores.find(Area.OBJECTS):
            store = stores.of(listed.key)
            head = await find_object(store, listed.key)
            payload = await store.open(listed.key)
            assert head is not None
            assert payload is not None
            with payload:
                if not damaged:
                    check_data_set(payload, head)
            found["stored"] += 1
        for area, place in ((Area.CONFLICTS, "conflict"), (Area.QUARANTINE, "quarantined")):
            async for entry in entries(stores, area):
                found[place] += 1 + entry.repeats
        return {place: count for place, count in found.items() if count}

    with open_stores([data / "store"]) as stores:
        return asyncio.run(look(stores))


def lane(data: Path, area: Area) -> list[Entry]:
    """The entries of a lane."""

    async def look(stores: Stores) -> list[Entry]:
        return [entry async for entry in entries(stores, area)]

    with open_stores([data / "store"]) as stores:
        return asyncio.run(look(stores))


def current_digests(data: Path) -> dict[str, str]:
    """The source digest under each UID."""

    async def look(stores: Stores) -> dict[str, str]:
        digests = {}
        async for listed in stores.find(Area.OBJECTS):
            found = await find_object(stores.of(listed.key), listed.key)
            assert found is not None
            digests[uid_of(listed.key)] = found.manifest.source_digest
        return digests

    with open_stores([data / "store"]) as stores:
        return asyncio.run(look(stores))


def upload(number: int) -> UploadId:
    """An upload id."""
    return UploadId.of(1, 1, number)
