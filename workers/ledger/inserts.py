"""Inserts: what a record of a log becomes in the ledger. Pure.

Applying an insert again changes nothing: logs repeat themselves after a crash, and what is carried forward in the
commitment log comes twice by design.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sqlalchemy import TextClause

from ingest.contract.commitments import (
    MAX_ROUNDS,
    CommitAccepted,
    CommitClosed,
    CommitDecided,
    CommitProved,
    Found,
    commitment_of,
    first_round,
    found_of,
)
from ingest.contract.records import Kind, Outcome, Place, Record, outcome_of
from workers.errors import Reason
from workers.ledger.tables import insert_new, instances, proofs, relations, transactions, upsert

STUDY_OF_TWO_PATIENTS: Final = "study-of-two-patients"
SERIES_IN_TWO_STUDIES: Final = "series-in-two-studies"
ALARMS: Final = (STUDY_OF_TWO_PATIENTS, SERIES_IN_TWO_STUDIES)

Row = dict[str, str | int]

INSERT_INSTANCE: Final = insert_new(instances)
INSERT_RELATION: Final = insert_new(relations)
_ACCEPTED: Final = upsert(
    transactions,
    ("transaction_uid", "source", "base", "asked_for", "accepted_at"),
    "transactions.closed_at = 0",
)
_DECIDED: Final = upsert(transactions, ("decided_round", "decided_at"))
_CLOSED: Final = upsert(transactions, ("closed_how", "committed", "failed", "closed_at"))
_PROVED: Final = upsert(proofs, ("round", "finding"), "excluded.round >= proofs.round")


class Insert(NamedTuple):
    """One row, and how it gets in."""

    statement: TextClause
    row: Row


def inserts_of(records: Iterable[Record]) -> Iterator[Insert]:
    """The inserts of outcome and commitment records, in their order; other records have none.

    Raises:
        CorruptRecord: metadata or payload is not what the kind has.
    """
    for record in records:
        if record.kind is Kind.OUTCOME:
            yield from outcome_inserts(record.upload_id.hex(), outcome_of(record))
        elif record.kind in _COMMITMENTS:
            yield from _commitment_inserts(record)


_COMMITMENTS: Final = frozenset(
    (Kind.COMMIT_ACCEPTED, Kind.COMMIT_PROVED, Kind.COMMIT_DECIDED, Kind.COMMIT_CLOSED)
)


def outcome_inserts(upload_id: str, outcome: Outcome) -> Iterator[Insert]:
    """An upload that has its place, and what it says of study and patient."""
    yield Insert(
        INSERT_INSTANCE,
        {
            "upload_id": upload_id,
            "sop_instance_uid": outcome.sop_instance_uid,
            "study_instance_uid": outcome.study_instance_uid,
            "series_instance_uid": outcome.series_instance_uid,
            "source": outcome.source,
            "calling_ae_title": outcome.calling_ae_title,
            "received_at": outcome.received_at,
            "size": outcome.size,
            "place": outcome.place.value,
            "reason": outcome.reason,
            "store": outcome.store,
            "key": outcome.key,
            "source_digest": outcome.source_digest,
            "placed_at": outcome.at,
            "findings": " ".join(outcome.findings),
            "patient": outcome.patient,
            "patient_scope": outcome.patient_scope,
            "accession": outcome.accession,
        },
    )
    if not (outcome.place is Place.QUARANTINED and outcome.reason == Reason.UNKNOWN_SOURCE):
        yield from relation_inserts(
            upload_id,
            outcome.study_instance_uid,
            outcome.series_instance_uid,
            outcome.patient,
            outcome.patient_scope,
        )


def relation_inserts(upload_id: str, study: str, series: str, patient: str, scope: str) -> Iterator[Insert]:
    """What is held against others of the study and of the series.

    Not of what unknown sources sent, before an administrator has let it in: whoever can connect could say anything of
    any study, and bury an alarm that is true under a thousand that are not.
    """
    if study and patient:
        # Digests of different scopes may be of one patient: they are not held against each other.
        yield _relation(STUDY_OF_TWO_PATIENTS, study, scope, patient, upload_id)
    if study and series:
        yield _relation(SERIES_IN_TWO_STUDIES, series, "", study, upload_id)


def _relation(kind: str, uid: str, scope: str, other: str, upload_id: str) -> Insert:
    return Insert(
        INSERT_RELATION, {"kind": kind, "uid": uid, "scope": scope, "other": other, "upload_id": upload_id}
    )


def _commitment_inserts(record: Record) -> Iterator[Insert]:
    transaction_id = record.upload_id.hex()  # see `TransactionId`
    commitment = commitment_of(record)
    key: Row = {"transaction_id": transaction_id}
    match commitment:
        case CommitAccepted():
            yield Insert(
                _ACCEPTED,
                key
                | {
                    "transaction_uid": commitment.transaction_uid,
                    "source": commitment.source,
                    "base": first_round(commitment.digest, commitment.salt),
                    "asked_for": commitment.references,
                    "accepted_at": commitment.accepted_at,
                },
            )
        case CommitProved():
            yield from _finding_inserts(key, commitment.round, found_of(record))
        case CommitDecided():
            yield Insert(
                _DECIDED, key | {"decided_round": commitment.round, "decided_at": commitment.decided_at}
            )
        case CommitClosed():
            yield Insert(
                _CLOSED,
                key
                | {
                    "closed_how": commitment.how,
                    "committed": commitment.committed,
                    "failed": commitment.failed,
                    "closed_at": commitment.closed_at,
                },
            )
        case _:
            raise AssertionError(record.kind)


def _finding_inserts(key: Row, number: int, findings: Iterable[Found]) -> Iterator[Insert]:
    """What the round with this number found."""
    base = number - number % MAX_ROUNDS
    for found in findings:
        yield Insert(
            _PROVED,
            key
            | {
                "base": base,
                "sop_instance_uid": found.sop_instance_uid,
                "round": number,
                "finding": int(found.finding),
            },
        )
