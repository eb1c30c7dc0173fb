"""Rebuild: the ledger made anew, of what the logs still hold and of what the stores themselves tell.

The logs know all of an upload; heads of objects, the lanes with their references, and the move records tell of what has
left the logs. A duplicate leaves nothing in a store, and what was discarded little: of those that have left the logs, the
account of `status` alone knows the number. Commitments are in no store at all: what the ledger has of them stays.

First the stores, which takes hours where they are large: what they tell goes into a temporary table. Then all is made anew
in one transaction: others see the old ledger until the new one is whole, and one that is interrupted changes nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    select,
    text,
)

from ingest.contract.identifiers import InvalidIdentifier
from ingest.contract.records import Outcome, Place
from ingest.contract.settings import Settings
from workers.dataset.payload import MemoryPayload
from workers.dataset.subject import HEAD as SUBJECT_HEAD
from workers.dataset.subject import Subject, read_subject
from workers.errors import Reason
from workers.ledger.consumer import move_rows
from workers.ledger.database import reading
from workers.ledger.inserts import INSERT_INSTANCE, Insert, outcome_inserts
from workers.ledger.inserts import Row as InstanceRow
from workers.ledger.ledger import (
    Alarm,
    enter,
    enter_relations,
    entered_of,
    let_in,
    note_moves,
    read_positions,
    take_batch,
)
from workers.ledger.logs import Logs
from workers.ledger.tables import alarms, moves, positions, relations
from workers.stages.deduplicate import stored_reason
from workers.stages.outcome import Outcomes
from workers.storage.damage import first_bytes
from workers.storage.lanes import Repeat, Settled, is_reference, repeats
from workers.storage.layout import Area, Key, counted_as, is_object, parse_key, uid_of
from workers.storage.manifest import Manifest, UnreadableManifest
from workers.storage.object_store import Listed, ObjectStore
from workers.storage.part10 import HEAD, decode_head
from workers.storage.stores import Stores

_ROWS: Final = 500  # in memory, and of one statement
_READS: Final = 8  # heads at a time
_TOLD_BY_STORES: Final = Table(
    "told_by_stores",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("upload_id", String, nullable=False),
    Column("outcome", LargeBinary, nullable=False),
    prefixes=["TEMPORARY"],
)
_IN_ORDER: Final = select(_TOLD_BY_STORES).order_by(_TOLD_BY_STORES.c.number)
_FORGET: Final = text(
    "DELETE FROM instances WHERE placed_at < :begun AND NOT EXISTS (SELECT 1 FROM moves m "
    "WHERE m.upload_id = instances.upload_id AND m.moved_at >= :begun)"
)
# Not of unknown sources that are not let in: see `relation_inserts`.
_KEPT: Final = text(
    "SELECT upload_id, study_instance_uid, series_instance_uid, patient, patient_scope FROM instances "
    "WHERE NOT (place = 'quarantined' AND reason = :unknown)"
).bindparams(unknown=Reason.UNKNOWN_SOURCE.value)


class Rebuilt(NamedTuple):
    """What it was made of."""

    records: int  # of logs
    objects: int  # and entries of lanes whose head was read
    unreadable: int  # of these, without a manifest
    moves: int


class _Told(NamedTuple):
    """An upload, as what is in a store tells of it."""

    upload_id: str
    outcome: Outcome


class _Read(NamedTuple):
    """What one object of a store tells."""

    told: list[_Told]
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
    begun = time.time_ns()
    raised: list[Alarm] = []
    with reading(engine) as store:
        objects, unreadable = await _read_stores(store, stores, settings, progress)
        moved = list(move_rows(settings))
        with engine.begin() as connection:
            raised += _empty(connection, begun, moved)
            records = _read_logs(connection, logs, raised)
            for rows in store.execute(_IN_ORDER, execution_options={"yield_per": _ROWS}).partitions():
                raised += enter(connection, _untold(connection, list(_inserts_of(rows))))
            raised += let_in(connection)
            _enter_moved(connection)
    for alarm in raised:
        alarm.tell()
    return Rebuilt(records, objects, unreadable, len(moved))


async def _read_stores(
    connection: Connection, stores: Stores, settings: Settings, progress: Callable[[int], None]
) -> tuple[int, int]:
    """All that stores tell into the temporary table; how many objects that were, and how many unreadable."""
    _TOLD_BY_STORES.create(connection)
    objects = unreadable = 0
    pending: list[dict[str, object]] = []
    async for read in _objects(stores, Outcomes(settings)):
        objects += 1
        unreadable += not read.is_readable
        pending += [
            {"upload_id": told.upload_id, "outcome": msgspec.json.encode(told.outcome)} for told in read.told
        ]
        if objects % _ROWS == 0:
            if pending:
                connection.execute(_TOLD_BY_STORES.insert(), pending)
            pending = []
            progress(objects)
    if pending:
        connection.execute(_TOLD_BY_STORES.insert(), pending)
    return objects, unreadable


def _inserts_of(rows: Iterable[Row[Any]]) -> Iterator[Insert]:
    for row in rows:
        yield from outcome_inserts(row.upload_id, msgspec.json.decode(row.outcome, type=Outcome))


def _empty(connection: Connection, begun: int, moved: Sequence[InstanceRow]) -> list[Alarm]:
    """But for moves, commitments, and what was placed or moved since ``begun``, of which logs and stores may not tell any more."""
    for table in (alarms, relations, moves, positions):
        connection.execute(table.delete())
    for first in range(0, len(moved), _ROWS):
        note_moves(connection, list(moved[first : first + _ROWS]))
    connection.execute(_FORGET, {"begun": begun})
    return enter_relations(connection, connection.execute(_KEPT).all())


def _read_logs(connection: Connection, logs: Logs, raised: list[Alarm]) -> int:
    records = 0
    while batches := logs.read(read_positions(connection)):
        for batch in batches:
            raised += take_batch(connection, batch) or ()
            records += len(batch.records)
    return records


def _untold(connection: Connection, inserts: list[Insert]) -> list[Insert]:
    """Those of uploads that the logs have not told of: hashes of today's settings are not held against theirs."""
    told = entered_of(connection, list({str(insert.row["upload_id"]) for insert in inserts}))
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
    start = await first_bytes(store, key, HEAD + SUBJECT_HEAD)
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
    told = [_told(manifest, store, key, subject, outcomes)]
    if key.area is not Area.OBJECTS:
        told += [
            _told(_repeated(manifest, repeat), store, key, subject, outcomes)
            for repeat in await repeats(store, key)
        ]
    return _Read(told, is_readable=True)


def _told(manifest: Manifest, store: ObjectStore, key: Key, subject: Subject, outcomes: Outcomes) -> _Told:
    """As the worker announced it."""
    place = counted_as(key)
    reason = stored_reason(manifest) if place is Place.STORED else manifest.reason
    outcome: Outcome = outcomes.of(
        manifest, Settled(place, reason, store.name, key), subject, manifest.findings
    )
    return _Told(manifest.upload_id, msgspec.structs.replace(outcome, at=manifest.placed_at))


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
