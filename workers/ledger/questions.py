"""Questions: where is an instance, and each of a study, an examination, a patient?"""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection, TextClause, bindparam, text

from workers.errors import Reason
from workers.ledger.database import reading
from workers.ledger.ledger import Ledger


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one upload; what scripts get. Keys stay, new ones may come."""

    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    source: str
    calling_ae_title: str
    received_at: str
    bytes: int
    place: str  # stored, duplicate, conflict, quarantined, discarded; waiting: received and not yet stored
    reason: str = ""
    moved_from: str = ""  # the place before an administrator or a repair moved it
    committed: bool = False
    store: str = ""
    shard: str = ""
    key: str = ""
    path: str = ""
    patient_within: str = ""  # of `find --patient` and `--accession`: what the number was found within
    upload_id: str = ""


class Row(msgspec.Struct, frozen=True):
    """A row of `fates`, as questions need it."""

    upload_id: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    source: str
    calling_ae_title: str
    received_at: int
    size: int
    place: str
    reason: str
    moved_from: str
    store: str
    key: str
    committed: int
    patient: str
    accession: str


# S608 is wrong of the questions below: all names in them are of this page.
_COLUMNS = ", ".join(Row.__struct_fields__)
_ORDER = "ORDER BY study_instance_uid, series_instance_uid, sop_instance_uid, received_at, upload_id"
_OF_STUDY = text(f"SELECT {_COLUMNS} FROM fates WHERE study_instance_uid = :uid {_ORDER}")  # noqa: S608
_OF_INSTANCE = text(f"SELECT {_COLUMNS} FROM fates WHERE sop_instance_uid = :uid {_ORDER}")  # noqa: S608
# A duplicate of another source may not tell its patient: its study does. Not the study that an unknown source names before an
# administrator has let it in, see `relation_inserts`.
_OF_PATIENT = text(
    f"SELECT {_COLUMNS} FROM fates WHERE patient IN :digests OR (study_instance_uid <> '' "  # noqa: S608
    "AND study_instance_uid IN (SELECT study_instance_uid FROM fates WHERE patient IN :digests "
    "AND NOT (place = 'quarantined' AND reason = :unknown)))"
).bindparams(bindparam("digests", expanding=True), unknown=Reason.UNKNOWN_SOURCE.value)
_OF_ACCESSION = text(
    f"SELECT {_COLUMNS} FROM fates WHERE accession IN :digests"  # noqa: S608
).bindparams(bindparam("digests", expanding=True))
_DIGESTS = 500  # of one statement: a number may stand for one patient of each AE title that anybody ever used
_AE_TITLES = text("SELECT DISTINCT calling_ae_title FROM instances WHERE source = ''")


def of_study(ledger: Ledger, study_instance_uid: str) -> list[Row]:
    """All uploads of a study.

    Raises:
        LedgerUnavailable: the database does not answer.
    """
    return _rows(ledger, _OF_STUDY, {"uid": study_instance_uid})


def of_instance(ledger: Ledger, sop_instance_uid: str) -> list[Row]:
    """All uploads of one SOP Instance UID.

    Raises:
        LedgerUnavailable: the database does not answer.
    """
    return _rows(ledger, _OF_INSTANCE, {"uid": sop_instance_uid})


def of_patient(ledger: Ledger, digests: Sequence[str]) -> list[Row]:
    """All uploads of the studies of patients.

    Raises:
        LedgerUnavailable: the database does not answer.
    """
    return _rows_of_any(ledger, _OF_PATIENT, digests)


def of_accession(ledger: Ledger, digests: Sequence[str]) -> list[Row]:
    """All uploads with an accession number.

    Raises:
        LedgerUnavailable: the database does not answer.
    """
    return _rows_of_any(ledger, _OF_ACCESSION, digests)


def _rows(ledger: Ledger, question: TextClause, parameters: Mapping[str, object]) -> list[Row]:
    with reading(ledger.engine) as connection:
        return _answer(connection, question, parameters)


def _rows_of_any(ledger: Ledger, question: TextClause, digests: Sequence[str]) -> list[Row]:
    found: dict[str, Row] = {}
    with reading(ledger.engine) as connection:
        for first in range(0, len(digests), _DIGESTS):
            some = _answer(connection, question, {"digests": digests[first : first + _DIGESTS]})
            found.update((row.upload_id, row) for row in some)
    return sorted(found.values(), key=_place_in_order)


def _answer(connection: Connection, question: TextClause, parameters: Mapping[str, object]) -> list[Row]:
    return msgspec.convert(list(map(dict, connection.execute(question, parameters).mappings())), list[Row])


def _place_in_order(row: Row) -> tuple[str, str, str, int, str]:
    """As `_ORDER`."""
    return (
        row.study_instance_uid,
        row.series_instance_uid,
        row.sop_instance_uid,
        row.received_at,
        row.upload_id,
    )


def unconfigured_ae_titles(ledger: Ledger) -> list[str]:
    """Senders that no table sources.NAME has: each is a source alone.

    Raises:
        LedgerUnavailable: the database does not answer.
    """
    with reading(ledger.engine) as connection:
        return [row.calling_ae_title for row in connection.execute(_AE_TITLES)]
