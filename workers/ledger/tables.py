"""The tables, the same in SQLite and PostgreSQL, and the few statements that insert.

Times are nanoseconds since 1970-01-01 UTC. `fates` is what questions are put to: each upload as it is now. A proof is of
the content that is stored under a UID, so other content of that UID, in a lane, is not committed by it.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, TextClause, text

SCHEMA: Final = 1  # another one is made anew by `ledger rebuild`

metadata = MetaData()

ledger = Table("ledger", metadata, Column("version", BigInteger, primary_key=True, autoincrement=False))
# How far each log is read, in the same transaction as its rows.
positions = Table(
    "positions",
    metadata,
    Column("log", String, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),  # stretches that were gone or damaged before they were read
)
# An upload as its worker announced it, and never changed.
instances = Table(
    "instances",
    metadata,
    Column("upload_id", String, primary_key=True),  # 32 hex digits
    Column("sop_instance_uid", String, nullable=False),
    Column("study_instance_uid", String, nullable=False),
    Column("series_instance_uid", String, nullable=False),
    Column("source", String, nullable=False),
    Column("calling_ae_title", String, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("place", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("store", String, nullable=False),
    Column("key", String, nullable=False),
    Column("source_digest", String, nullable=False),
    Column("placed_at", BigInteger, nullable=False),
    Column("findings", String, nullable=False),  # words with a space between
    Column("patient", String, nullable=False),  # keyed hash
    Column("patient_scope", String, nullable=False),
    Column("accession", String, nullable=False),  # keyed hash
    *(
        Index(f"instances_by_{name}", name)
        for name in ("sop_instance_uid", "study_instance_uid", "received_at", "patient", "accession")
    ),
)
# What administrators and repairs have moved since.
moves = Table(
    "moves",
    metadata,
    Column("upload_id", String, primary_key=True),
    Column("source", String, nullable=False),
    Column("target", String, nullable=False),
    Column("key", String, nullable=False),
    Column("moved_at", BigInteger, nullable=False),
)
transactions = Table(
    "transactions",
    metadata,
    Column("transaction_id", String, primary_key=True),  # 32 hex digits
    Column("transaction_uid", String, nullable=False, server_default=""),
    Column("source", String, nullable=False, server_default=""),
    Column("base", BigInteger, nullable=False, server_default="-1"),  # first round's number
    Column("asked_for", BigInteger, nullable=False, server_default="0"),  # instances
    Column("accepted_at", BigInteger, nullable=False, server_default="0"),
    Column("decided_round", BigInteger, nullable=False, server_default="-1"),
    Column("decided_at", BigInteger, nullable=False, server_default="0"),
    Column("closed_at", BigInteger, nullable=False, server_default="0"),
    Column("closed_how", String, nullable=False, server_default=""),
    Column("committed", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
)
# What workers found of each instance, the last round's; of each try of the request apart.
proofs = Table(
    "proofs",
    metadata,
    Column("transaction_id", String, primary_key=True),
    Column("base", BigInteger, primary_key=True, autoincrement=False),
    Column("sop_instance_uid", String, primary_key=True),
    Column("round", BigInteger, nullable=False),
    Column("finding", BigInteger, nullable=False),
    Index("proofs_by_sop_instance_uid", "sop_instance_uid"),
)
# Which patients a study was seen with, and which studies a series: more than one is an alarm.
relations = Table(
    "relations",
    metadata,
    Column("kind", String, primary_key=True),
    Column("uid", String, primary_key=True),
    Column("scope", String, primary_key=True),
    Column("other", String, primary_key=True),
    Column("upload_id", String, nullable=False),  # the first that said so
)
alarms = Table(
    "alarms",
    metadata,
    Column("kind", String, primary_key=True),
    Column("uid", String, primary_key=True),
    Column("source", String, nullable=False),  # of the upload that raised it
    Column("raised_at", BigInteger, nullable=False),  # when that was received
)
# The newest first, so that none refers to one that is gone.
ALL: Final[Sequence[Table]] = (alarms, relations, proofs, transactions, moves, instances, positions)

FATES: Final = text(
    """
    CREATE VIEW fates AS
    SELECT i.upload_id, i.sop_instance_uid, i.study_instance_uid, i.series_instance_uid, i.source,
           i.calling_ae_title, i.received_at, i.size, i.source_digest, i.placed_at, i.findings, i.patient,
           i.patient_scope, i.accession,
           COALESCE(m.target, i.place) AS place,
           CASE WHEN m.upload_id IS NULL THEN i.reason ELSE '' END AS reason,
           CASE WHEN m.upload_id IS NULL THEN '' ELSE m.source END AS moved_from,
           i.store,
           COALESCE(m.key, i.key) AS key,
           CASE WHEN COALESCE(m.target, i.place) IN ('stored', 'duplicate') AND EXISTS (
               SELECT 1 FROM proofs p JOIN transactions t
                   ON t.transaction_id = p.transaction_id AND t.base = p.base
               WHERE p.sop_instance_uid = i.sop_instance_uid AND p.finding = 0
                   AND t.decided_at > 0 AND p.round <= t.decided_round
           ) THEN 1 ELSE 0 END AS committed
    FROM instances i LEFT JOIN moves m ON m.upload_id = i.upload_id
    """
)


def insert_new(table: Table) -> TextClause:
    """INSERT of what is not there yet."""
    return text(f"{_insert(table, [column.name for column in table.columns])} DO NOTHING")


def upsert(table: Table, columns: Sequence[str], condition: str = "") -> TextClause:
    """INSERT of the key and these columns; what is there has them replaced, where ``condition`` holds."""
    keys = [column.name for column in table.primary_key.columns]
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    where = f" WHERE {condition}" if condition else ""
    return text(f"{_insert(table, [*keys, *columns])} DO UPDATE SET {changes}{where}")


def _insert(table: Table, columns: Sequence[str]) -> str:
    """All names are of this page."""
    values = ", ".join(f":{name}" for name in columns)
    keys = ", ".join(column.name for column in table.primary_key.columns)
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({values}) ON CONFLICT ({keys})"  # noqa: S608
