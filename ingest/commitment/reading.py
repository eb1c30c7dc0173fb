"""What was found of a transaction's instances so far, read again from the log; what is damaged is left out."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, ParamSpec, TypeVar

import structlog

from ingest.commitment.rounds import Findings, findings_from
from ingest.commitment.transaction import Transaction
from ingest.contract.commitments import CommitAccepted, Found, Reference, found_of, references_of
from ingest.contract.records import CorruptRecord, Record
from ingest.log import CommitmentLog
from ingest.log.commitment_log import Location

logger = structlog.get_logger(__name__)

# What is done with so many may not hold up the event loop: some 2 ms.
_ASIDE: Final = 1000  # instances


P = ParamSpec("P")
T = TypeVar("T")


class Known(NamedTuple):
    """What can be read of a transaction."""

    findings: Findings
    lost: int  # records that cannot be


async def aside(instances: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that takes as long as ``instances`` are many: in a thread where that is long."""
    if instances <= _ASIDE:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


async def known_of(log: CommitmentLog, transaction: Transaction, last_round: int) -> Known:
    """All that was found in the rounds up to the one with this number. What is lost is forgotten.

    Raises:
        LogUnavailable: not now.
        ProofsDoNotFit: which instances were asked about cannot be told any more.
    """
    accepted = transaction.accepted
    assert accepted is not None
    requested, proofs, lost = await records_of(log, transaction, last_round)
    return await aside(accepted.references, known_from, accepted, requested, proofs, lost)


async def records_of(
    log: CommitmentLog, transaction: Transaction, last_round: int | None = None
) -> tuple[list[Record], list[Record], int]:
    """Those of its request and its proofs, and how many are lost, and from now on forgotten.

    Raises:
        LogUnavailable: not now.
    """
    while True:
        try:
            requested, lost = await _fetch(log, transaction, transaction.request_locations())
            proofs, more_lost = await _fetch(log, transaction, transaction.proof_locations(last_round))
        except _Moved:
            continue
        return requested, proofs, lost + more_lost


class _Moved(Exception):  # noqa: N818 - states what was found
    """A record was carried forward since we looked where it was."""


async def _fetch(
    log: CommitmentLog, transaction: Transaction, locations: Sequence[Location]
) -> tuple[list[Record], int]:
    records = []
    for location in locations:
        try:
            records.append(await log.fetch(location))
        except CorruptRecord as error:
            if not transaction.lose(location):
                raise _Moved from None
            name = transaction.id.hex()
            logger.error("a record of a commitment is lost", transaction=name, error=str(error))  # noqa: TRY400 - it says all
    return records, len(locations) - len(records)


def known_from(
    accepted: CommitAccepted, requested: Sequence[Record], proofs: Sequence[Record], lost: int
) -> Known:
    """The same from the records themselves.

    Raises:
        ProofsDoNotFit: see `known_of`.
    """
    references: list[Reference] = []
    for record in requested:
        references += _read(references_of, record)
    found: list[list[Found]] = [_read(found_of, record) for record in proofs]
    return Known(findings_from(accepted, references, found), lost)


def _read(read: Callable[[Record], list[T]], record: Record) -> list[T]:
    """The payload of a record that is whole by its checksum; what is nothing that we write says nothing."""
    try:
        return read(record)
    except CorruptRecord as error:
        logger.error("a record of a commitment says nothing", error=str(error))  # noqa: TRY400 - it says all
        return []
