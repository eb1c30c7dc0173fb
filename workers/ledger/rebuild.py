"""Rebuild: the ledger made anew, of what the logs still hold and of what the stores themselves tell.

First the logs, which know all of an upload; then heads of objects, the lanes with their references, and the move
records, for what has left the logs. A duplicate leaves nothing in a store, and what was discarded little: of those that
have left the logs, the account of `status` alone knows the number.

All in one transaction: others see the old ledger until the new one is whole, and one that is interrupted changes nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, bindparam, text

from ingest.contract.identifiers import InvalidIdentifier
from ingest.contract.records import Outcome, Place
from ingest.contract.settings import Settings
from workers.dataset.payload import MemoryPayload
from workers.dataset.subject import HEAD as SUBJECT_HEAD
from workers.dataset.subject import Subject, read_subject
from workers.ledger.consumer import move_rows
from workers.ledger.database import clear_errors
from workers.ledger.inserts import INSERT_INSTANCE, Insert, outcome_inserts
from workers.ledger.ledger import Alarm, enter, let_in, note_moves, read_positions, take_batch
from workers.ledger.logs import Logs
from workers.ledger.tables import ALL
from workers.stages.deduplicate import stored_reason
from workers.stages.outcome import Outcomes
from workers.storage.lanes import Repeat, Settled, is_reference, repeats
from workers.storage.layout import Area, Key, counted_as, is_object, parse_key, uid_of
from workers.storage.manifest import Manifest, UnreadableManifest
from workers.storage.object_store import Listed, ObjectStore
from workers.storage.part10 import HEAD, decode_head
from workers.storage.stores import Stores

_ROWS: Final = 500  # in memory, and of one statement
_READS: Final = 8  # heads at a time
_TOLD: Final = text("SELECT upload_id FROM instances WHERE upload_id IN :uploads").bindparams(
    bindparam("uploads", expanding=True)
)


class Rebuilt(NamedTuple):
    """What it was made of."""

    records: int  # of logs
    objects: int  # and entries of lanes whose head was read
    unreadable: int  # of these, without a manifest
    moves: int


class _Read(NamedTuple):
    """What one object of a store tells."""

    inserts: list[Insert]
    is_readable: bool


async def rebuild(
    engine: Engine, logs: Logs, stores: Stores, settings: Settings, progress: Callable[[int], None]
) -> Rebuilt:
    """Make the ledger anew; ``progress`` is told of every so many objects.

    Raises:
        LedgerUnavailable: the database.
        Unavailable, WrongStores: a store.
        KafkaUnreachable, SpoolMismatch, OSError: the logs'.
    """
    alarms: list[Alarm] = []
    with clear_errors(), engine.begin() as connection:
        for table in ALL:
            connection.execute(table.delete())
        records = _read_logs(connection, logs, alarms)
        objects = unreadable = 0
        pending: list[Insert] = []
        async for read in _objects(stores, Outcomes(settings)):
            objects += 1
            unreadable += not read.is_readable
            pending += read.inserts
            if objects % _ROWS == 0:
                alarms += enter(connection, _untold(connection, pending))
                pending = []
                progress(objects)
        alarms += enter(connection, _untold(connection, pending))
        moves = list(move_rows(settings))
        for first in range(0, len(moves), _ROWS):
            note_moves(connection, moves[first : first + _ROWS])
        alarms += let_in(connection)
        _enter_moved(connection)
    for alarm in alarms:
        alarm.tell()
    return Rebuilt(records, objects, unreadable, len(moves))


def _read_logs(connection: Connection, logs: Logs, alarms: list[Alarm]) -> int:
    records = 0
    while batches := logs.read(read_positions(connection)):
        for batch in batches:
            alarms += take_batch(connection, batch) or ()
            records += len(batch.records)
    return records


def _untold(connection: Connection, inserts: list[Insert]) -> list[Insert]:
    """Those of uploads that the logs have not told of: hashes of today's settings are not held against theirs."""
    uploads = list({insert.row["upload_id"] for insert in inserts})
    if not uploads:
        return []
    told = {row.upload_id for row in connection.execute(_TOLD, {"uploads": uploads})}
    return [insert for insert in inserts if insert.row["upload_id"] not in told]


async def _objects(stores: Stores, outcomes: Outcomes) -> AsyncIterator[_Read]:
    """All objects and entries, some read at a time."""
    for area in (Area.OBJECTS, Area.CONFLICTS, Area.QUARANTINE):
        found: list[Listed] = []
        async for listed in stores.find(area):
            if is_reference(listed.key) or (area is Area.OBJECTS and not is_object(listed.key)):
                continue
            found.append(listed)
            if len(found) == _READS:
                for read in await asyncio.gather(*(_read(stores, one, outcomes) for one in found)):
                    yield read
                found = []
        for listed in found:
            yield await _read(stores, listed, outcomes)


async def _read(stores: Stores, listed: Listed, outcomes: Outcomes) -> _Read:
    store, key = stores.of(listed.key), listed.key
    start = await store.start(key, HEAD + SUBJECT_HEAD)
    if start is None:
        # An administrator or a repair has taken it away since it was listed.
        return _Read([], is_readable=True)
    try:
        head = decode_head(start.data)
    except UnreadableManifest:
        return _Read([], is_readable=False)
    manifest = head.manifest
    payload = MemoryPayload([memoryview(start.data)[head.size :]])
    subject = await asyncio.to_thread(read_subject, payload, manifest.transfer_syntax_uid)
    inserts = list(_inserts(manifest, store, key, subject, outcomes))
    if key.area is not Area.OBJECTS:
        for repeat in await repeats(store, key):
            inserts += _inserts(_repeated(manifest, repeat), store, key, subject, outcomes)
    return _Read(inserts, is_readable=True)


def _inserts(
    manifest: Manifest, store: ObjectStore, key: Key, subject: Subject, outcomes: Outcomes
) -> list[Insert]:
    """As the worker announced it."""
    place = counted_as(key)
    reason = stored_reason(manifest) if place is Place.STORED else manifest.reason
    outcome: Outcome = outcomes.of(
        manifest, Settled(place, reason, store.name, key), subject, manifest.findings
    )
    return list(outcome_inserts(manifest.upload_id, msgspec.structs.replace(outcome, at=manifest.placed_at)))


def _repeated(entry: Manifest, repeat: Repeat) -> Manifest:
    return msgspec.structs.replace(
        entry,
        upload_id=repeat.upload_id,
        calling_ae_title=repeat.calling_ae_title,
        received_at=repeat.received_at,
        placed_at=repeat.received_at,
    )


def _enter_moved(connection: Connection) -> None:
    """What was moved counts where it was before; of what is nowhere any more, its move is all that is left."""
    connection.execute(
        text(
            "UPDATE instances SET place = (SELECT m.source FROM moves m WHERE m.upload_id = instances.upload_id) "
            "WHERE upload_id IN (SELECT upload_id FROM moves)"
        )
    )
    lost = connection.execute(
        text(
            "SELECT m.* FROM moves m LEFT JOIN instances i ON i.upload_id = m.upload_id WHERE i.upload_id IS NULL"
        )
    ).all()
    if lost:
        connection.execute(INSERT_INSTANCE, [_remnant(row.upload_id, row.source, row.key) for row in lost])


def _remnant(upload_id: str, source: str, key: str) -> dict[str, str | int]:
    try:
        uid = uid_of(parse_key(key))
    except InvalidIdentifier:
        uid = ""
    outcome = Outcome(
        sop_instance_uid=uid, place=Place(source), reason="", source_digest="", store="", key=key, at=0
    )
    return next(outcome_inserts(upload_id, outcome)).row
