"""The ledger: rows and the position up to which their log is read, written in one transaction.

So a batch is in the ledger once: whoever reads the same of a log, another process or this one after a crash, finds the
position gone on.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import Connection, Engine, bindparam, text

from ingest.contract.records import CorruptRecord, Record
from workers.errors import Reason
from workers.ledger.database import clear_errors, reading
from workers.ledger.inserts import ALARMS, INSERT_RELATION, Insert, Row, inserts_of, relation_inserts
from workers.ledger.logs import Batch
from workers.ledger.tables import alarms, insert_new, moves, positions, upsert

logger = structlog.get_logger(__name__)

_SHOWN: Final = 16  # hex digits of a UID's SHA-256 in log lines
_BEGIN: Final = insert_new(positions)
_ADVANCE: Final = text(
    "UPDATE positions SET position = :after, lost = lost + :lost WHERE log = :log AND position = :before"
)
_RAISE: Final = insert_new(alarms)
_MOVE: Final = upsert(moves, ("source", "target", "key", "moved_at"), "excluded.moved_at > moves.moved_at")
_MORE_THAN_ONE: Final = text(
    "SELECT DISTINCT r.kind, r.uid FROM relations r WHERE r.kind = :kind AND r.uid IN :uids "
    "GROUP BY r.kind, r.uid, r.scope HAVING COUNT(*) > 1"
).bindparams(bindparam("uids", expanding=True))
_UPLOADS: Final = 500  # of one statement
_ENTERED: Final = text("SELECT upload_id FROM instances WHERE upload_id IN :uploads").bindparams(
    bindparam("uploads", expanding=True)
)
# Of an unknown source, and an administrator has replayed it: see `relation_inserts`.
_LET_IN: Final = text(
    "SELECT i.upload_id, i.study_instance_uid, i.series_instance_uid, i.patient, i.patient_scope "
    "FROM instances i JOIN moves m ON m.upload_id = i.upload_id "
    "WHERE i.reason = :unknown AND m.target NOT IN ('quarantined', 'discarded')"
).bindparams(unknown=Reason.UNKNOWN_SOURCE.value)


class Alarm(NamedTuple):
    """Something that must not be, seen for the first time."""

    kind: str
    uid: str
    source: str

    def tell(self) -> None:
        """In the log, by digests: the report has the UID."""
        digest = hashlib.sha256(self.uid.encode("ascii")).hexdigest()[:_SHOWN]
        logger.error("the ledger raises an alarm", alarm=self.kind, uid_sha256=digest, source=self.source)


class Ledger:
    """Of one database. Any number of processes may have it open."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def positions(self) -> dict[str, int]:
        """How far each log is read.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        with reading(self.engine) as connection:
            return {row.log: row.position for row in connection.execute(text("SELECT * FROM positions"))}

    def counts(self) -> tuple[dict[str, int], int]:
        """Alarms by kind, and what was lost of the logs.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        with reading(self.engine) as connection:
            raised = dict.fromkeys(ALARMS, 0)
            for row in connection.execute(text("SELECT kind, COUNT(*) AS times FROM alarms GROUP BY kind")):
                raised[row.kind] = row.times
            lost = connection.execute(text("SELECT COALESCE(SUM(lost), 0) FROM positions")).scalar()
        return raised, int(lost or 0)

    def take(self, batch: Batch) -> bool:
        """Enter a batch; False where somebody else has.

        Raises:
            LedgerUnavailable: the database does not answer; nothing of the batch is in it.
        """
        with clear_errors(), self.engine.begin() as connection:
            raised = take_batch(connection, batch)
        if raised is None:
            return False
        if batch.lost:
            logger.error(
                "the ledger has missed a part of a log: `dicom-ingest ledger rebuild` fills in what stores still tell",
                log=batch.log,
                stretches=batch.lost,
            )
        for alarm in raised:
            alarm.tell()
        return True

    def note_moves(self, rows: Iterable[Row]) -> None:
        """Enter move records.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        found = list(rows)
        if found:
            with clear_errors(), self.engine.begin() as connection:
                note_moves(connection, found)
                raised = let_in(connection)
            for alarm in raised:
                alarm.tell()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


def take_batch(connection: Connection, batch: Batch) -> list[Alarm] | None:
    """Within a transaction: claim the batch and enter it; None where somebody else has, and nothing is entered."""
    connection.execute(_BEGIN, {"log": batch.log, "position": 0, "lost": 0})
    row: Row = {"log": batch.log, "before": batch.before, "after": batch.after, "lost": batch.lost}
    if connection.execute(_ADVANCE, row).rowcount != 1:
        return None
    return enter(connection, [insert for record in batch.records for insert in _inserts(record)])


def note_moves(connection: Connection, rows: list[Row]) -> None:
    """Within a transaction: enter move records."""
    connection.execute(_MOVE, rows)


def let_in(connection: Connection) -> list[Alarm]:
    """Within a transaction: hold what was let in of unknown sources against others; the alarms that it raises."""
    return enter_relations(connection, connection.execute(_LET_IN).all())


def enter_relations(connection: Connection, uploads: Sequence[Sequence[Any]]) -> list[Alarm]:
    """Within a transaction: hold uploads against others; the alarms that it raises."""
    alarms: list[Alarm] = []
    for first in range(0, len(uploads), _UPLOADS):
        some = uploads[first : first + _UPLOADS]
        alarms += enter(connection, [insert for one in some for insert in relation_inserts(*one)])
    return alarms


def enter(connection: Connection, inserts: list[Insert]) -> list[Alarm]:
    """Within a transaction: enter rows, and say what alarms they raise."""
    for statement, same in groupby(_sorted(inserts), lambda insert: insert.statement):
        connection.execute(statement, [insert.row for insert in same])
    relations = [insert.row for insert in inserts if insert.statement is INSERT_RELATION]
    return [alarm for kind in ALARMS for alarm in _raise(connection, kind, relations)]


def _sorted(inserts: list[Insert]) -> list[Insert]:
    """Those of one statement together, each in their order: rows of different tables do not depend on each other."""
    order: dict[int, int] = {}
    for insert in inserts:
        order.setdefault(id(insert.statement), len(order))
    return sorted(inserts, key=lambda insert: order[id(insert.statement)])


def _raise(connection: Connection, kind: str, relations: list[Row]) -> Iterable[Alarm]:
    seen = {row["uid"]: row["upload_id"] for row in relations if row["kind"] == kind}
    if not seen:
        return
    for found in connection.execute(_MORE_THAN_ONE, {"kind": kind, "uids": list(seen)}).all():
        upload = connection.execute(
            text("SELECT source, received_at FROM instances WHERE upload_id = :upload_id"),
            {"upload_id": seen[found.uid]},
        ).first()
        source, at = (upload.source, upload.received_at) if upload is not None else ("", 0)
        row: Row = {"kind": kind, "uid": found.uid, "source": source, "raised_at": at}
        if connection.execute(_RAISE, row).rowcount == 1:
            yield Alarm(kind, found.uid, source)


def _inserts(record: Record) -> list[Insert]:
    """One that does not decode is told of by those who act on it."""
    try:
        return list(inserts_of([record]))
    except CorruptRecord:
        logger.warning("a record of the log is damaged", kind=record.kind.name)
        return []


def entered_of(connection: Connection, uploads: Sequence[str]) -> set[str]:
    """Within a transaction: which of these uploads are entered."""
    found: set[str] = set()
    for first in range(0, len(uploads), _UPLOADS):
        some = connection.execute(_ENTERED, {"uploads": uploads[first : first + _UPLOADS]})
        found.update(row.upload_id for row in some)
    return found


def read_positions(connection: Connection) -> Mapping[str, int]:
    """Within a transaction: how far each log is read."""
    return {row.log: row.position for row in connection.execute(text("SELECT * FROM positions"))}
