"""Open transactions outlive segments and retention: their records are written again before they leave the log.

What a later round has found of an instance is left out of the proofs before it, so that a transaction never takes
more than its request and one answer to each of its instances, however often it was asked.
"""

import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from ingest.commitment.reading import aside, records_of
from ingest.commitment.transaction import Clock, Transaction
from ingest.commitment.transactions import Transactions
from ingest.contract.commitments import CommitProved, CommitRequested, commitment_of, found_of, references_of
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import CorruptRecord, Record
from ingest.log import CommitmentLog
from ingest.log.commitment_log import Location, Written

_BATCH: Final = 16_000  # instances in records that are written at a time
_SMALL_BATCH: Final = 256  # records without payload


Write = Callable[[Sequence[Written]], Awaitable[None]]


async def carry_forward(
    log: CommitmentLog, transactions: Transactions, clock: Callable[[], Clock], write: Write
) -> None:
    """Do it for all that need it, then let go of what nobody needs; ``write`` returns when records are applied.

    Raises:
        LogUnavailable, OutOfResources: not all could be done; nothing is lost by that.
    """
    thresholds = await log.threshold()
    if not thresholds:
        return
    endangered = [one for one in transactions if one.is_below(thresholds)]
    if log.shared:  # the others do so, too: each begins with another
        random.shuffle(endangered)
    else:
        endangered.sort(key=lambda one: one.oldest)
    for transaction in endangered:
        if transactions.get(transaction.id) is not transaction or not transaction.is_below(thresholds):
            continue  # closed meanwhile, or carried by another
        if log.shared and transaction.claim_until > clock().now and not transaction.claim_mine:
            continue
        await _carry(log, transaction, write)
        if transactions.is_closed(transaction.id):  # meanwhile: a start must not find it without its end
            await _carry_closed(log, [(transaction.id, transactions.closed_at(transaction.id))], write)
    if not log.shared:  # Kafka keeps what is closed as long as its retention says
        await _carry_closed(log, _endangered(transactions, thresholds), write)
    _forget_unknown(transactions, thresholds)
    _release(log, transactions, thresholds)


async def _carry(log: CommitmentLog, transaction: Transaction, write: Write) -> None:
    accepted = transaction.accepted
    assert accepted is not None
    requested, proofs, _ = await records_of(log, transaction)
    decided = transaction.decided
    last = transaction.base + transaction.round if decided is None else decided.round
    records = await aside(accepted.references, carried_payloads, transaction, requested, proofs, last)
    records.append(Written(transaction.id, accepted, carried=True))
    if decided is not None:
        records.append(Written(transaction.id, decided, carried=True))
    if transaction.attempted is not None:
        records.append(Written(transaction.id, transaction.attempted, carried=True))
    while records:
        batch: list[Written] = []
        size = 0
        while records and size + len(records[0].found) <= _BATCH:
            size += len(records[0].found)
            batch.append(records.pop(0))
        await write(batch)


def carried_payloads(
    transaction: Transaction, requested: Sequence[Record], proofs: Sequence[Record], last: int
) -> list[Written]:
    """The records with instances, each of these once: with what the last complete round found of it."""
    kept = []
    known: set[tuple[str, str]] = set()
    for record in reversed(proofs):
        proved, found = commitment_of(record), found_of(record)
        assert isinstance(proved, CommitProved)
        if proved.round <= last:
            found = [one for one in found if (one.sop_class_uid, one.sop_instance_uid) not in known]
            known.update((one.sop_class_uid, one.sop_instance_uid) for one in found)
        kept.append(Written(transaction.id, proved, found, carried=True))
    for record in reversed(requested):
        part = commitment_of(record)
        assert isinstance(part, CommitRequested)
        kept.append(Written(transaction.id, part, references_of(record), carried=True))
    return kept[::-1]


def _endangered(
    transactions: Transactions, thresholds: Mapping[int, int]
) -> list[tuple[TransactionId, Location]]:
    """Those that are over, and whose end is about to leave the log."""
    return [
        (transaction_id, location)
        for transaction_id, location in transactions.closed()
        if location.position < thresholds.get(location.partition, 0)
    ]


async def _carry_closed(
    log: CommitmentLog, endangered: Sequence[tuple[TransactionId, Location]], write: Write
) -> None:
    """Their UIDs are to be refused when they come again."""
    for at in range(0, len(endangered), _SMALL_BATCH):
        batch = []
        for transaction_id, location in endangered[at : at + _SMALL_BATCH]:
            with contextlib.suppress(CorruptRecord):
                commitment = commitment_of(await log.fetch(location))
                batch.append(Written(transaction_id, commitment, carried=True))
        if batch:
            await write(batch)


def _forget_unknown(transactions: Transactions, thresholds: Mapping[int, int]) -> None:
    """Proofs of requests that were never accepted."""
    for transaction in list(transactions.unknown()):
        if transaction.is_below(thresholds):
            transactions.forget_unknown(transaction.id)


def _release(log: CommitmentLog, transactions: Transactions, thresholds: Mapping[int, int]) -> None:
    if log.shared:
        return
    needed = [thresholds.get(0, 0)]
    needed += [transaction.oldest for transaction in transactions]
    needed += [location.position for _, location in transactions.closed()]
    needed += [transaction.oldest for transaction in transactions.unknown()]
    log.release(max(0, min(needed)))
