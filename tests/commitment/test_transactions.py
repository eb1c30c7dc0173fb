"""The state machine of storage commitment, step by step."""

import itertools
import tracemalloc

import pytest
from msgspec.structs import replace

from ingest.commitment.deliveries import NO_ASSOCIATION, REFUSED
from ingest.commitment.transaction import Clock
from ingest.commitment.transactions import Action, State
from ingest.contract.commitments import (
    CommitAccepted,
    CommitAttempted,
    CommitClosed,
    CommitDecided,
    Commitment,
    CommitProved,
    CommitRequested,
    CommitTaken,
    Reference,
    digest_of,
    first_round,
)
from ingest.contract.identifiers import TransactionId
from ingest.log.commitment_log import Entry, Location
from tests.support.commitment_world import CLAIM, CT, START, machine


def accepted(number: int, references: int = 1000, ae_title: str = "CT", at: int = START) -> CommitAccepted:
    digest = digest_of([Reference(CT, f"1.2.{number}")])
    return CommitAccepted(f"1.2.840.9.{number}", ae_title, "US", "", references, digest, 16, 1, 1, 0.0, at)


def entry(number: int, position: int, commitment: Commitment, *, stamp: int = 0, absent: int = 0) -> Entry:
    return Entry(
        Location(0, position),
        9000,
        TransactionId.of("CT", f"1.2.840.9.{number}"),
        commitment,
        False,
        stamp,
        absent,
    )


def test_ten_thousand_open_transactions_are_small() -> None:
    """Positions only: 1,000 instances each, in 16 parts and 3 rounds, take far less than 64 MiB."""
    tracemalloc.start()
    transactions = machine()
    clock = Clock(0.0, START)
    positions = itertools.count(10**12)
    for number in range(250):
        request = accepted(number)
        transactions.apply(entry(number, next(positions), request), clock)
        for again, part in itertools.product(range(3), range(16)):
            proved = CommitProved(first_round(request.digest) + again, part, 16, part, START)
            transactions.apply(entry(number, next(positions), proved, stamp=part, absent=1), clock)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(transactions) == 250
    assert 40 * peak < 48 * 2**20, f"{40 * peak / 2**20:.0f} MiB"


def test_closed_transactions_are_remembered_up_to_a_number() -> None:
    """The oldest is forgotten first; one that is asked again after that is a new one."""
    transactions = machine(remember=2)
    clock = Clock(0.0, START)
    for number in range(3):
        transactions.apply(entry(number, 2 * number, accepted(number)), clock)
        transactions.apply(
            entry(number, 2 * number + 1, CommitClosed("reported", 1, 0, START + number)), clock
        )
    known = [transactions.is_closed(TransactionId.of("CT", f"1.2.840.9.{number}")) for number in range(3)]
    assert known == [False, True, True]
    transactions.apply(entry(1, 7, accepted(1)), clock)
    assert not len(transactions), "an acceptance of before is no new one"
    transactions.apply(entry(1, 8, accepted(1, at=START + 10 * 10**9)), clock)
    assert len(transactions) == 1


def test_a_claim_keeps_others_off_and_lapses() -> None:
    """The first valid claim wins; a claim of an earlier start of ours is none."""
    mine, other = machine(1, 2, shared=True), machine(2, 1, shared=True)
    request = replace(accepted(0), parts=1, hold=CLAIM)
    proved = CommitProved(first_round(request.digest), 0, 1, 0, START)
    clock = Clock(0.0, START)
    for one in (mine, other):
        one.replaying = False
        one.apply(entry(0, 0, request), clock)
        one.apply(entry(0, 1, proved), clock)
    (step,) = mine.due(0.0, 1)
    assert step.action is Action.CLAIM, "the acceptance was an earlier start's"
    assert other.due(0.0, 1) == []
    assert other.next_time() == CLAIM
    for one in (mine, other):
        taken = CommitTaken(2, 1, CLAIM, START + int(CLAIM * 1e9))
        one.apply(entry(0, 2, taken), Clock(CLAIM, taken.taken_at))
    (step,) = other.due(CLAIM, 1)
    assert step.action is Action.DECIDE
    mine.finished(step, CLAIM)
    assert mine.due(CLAIM, 1) == []


def test_a_claim_counts_from_before_it_was_written() -> None:
    """A receiver that stood still reads its claims late: by then they are over, and what others claimed holds."""
    mine, other = machine(1, 1, shared=True), machine(2, 1, shared=True)
    late = Clock(CLAIM + 1.0, START + int((CLAIM + 1.0) * 1e9))
    request = replace(accepted(0), parts=1, hold=CLAIM)
    proved = CommitProved(first_round(request.digest), 0, 1, 0, START)
    records: list[Commitment] = [
        request,
        proved,
        CommitTaken(1, 1, CLAIM, START),
        CommitTaken(2, 1, CLAIM, late.wall),
    ]
    for one in (mine, other):
        one.replaying = False
    for position, record in enumerate(records):
        mine.apply(entry(0, position, record), late)
        other.apply(entry(0, position, record), late if position == 3 else Clock(0.0, START))
    assert [step.action for step in other.due(late.now, 1)] == [Action.DECIDE]
    assert mine.due(late.now, 1) == []


def test_a_decision_read_before_it_is_finished_is_reported_at_once() -> None:
    """A log may hand a record out before its writer hears that it is durable."""
    transactions = machine()
    transactions.replaying = False
    clock = Clock(0.0, START)
    request = accepted(0)
    base = first_round(request.digest)
    transactions.apply(entry(0, 0, request), clock)
    for part in range(16):
        transactions.apply(entry(0, 1 + part, CommitProved(base, part, 16, part, START)), clock)
    (step,) = transactions.due(0.0, 1)
    assert step.action is Action.DECIDE
    transactions.apply(entry(0, 20, CommitDecided(base, START)), clock)
    assert transactions.due(0.0, 1) == []
    transactions.finished(step, 0.0)
    assert transactions.next_time() <= 0.0
    assert [step.action for step in transactions.due(0.0, 1)] == [Action.DELIVER]


def test_an_administrator_unblocks_a_source() -> None:
    """While a peer is out of reach its reports wait; `retry` of one tries now."""
    transactions = machine()
    clock = Clock(0.0, START)
    for number in range(2):
        request = accepted(number)
        transactions.apply(entry(number, 10 * number, request), clock)
        decided = CommitDecided(first_round(request.digest), START + number)
        transactions.apply(entry(number, 10 * number + 1, decided), clock)
    (step,) = transactions.due(0.0, 8)
    transactions.apply(entry(0, 30, CommitAttempted(1, NO_ASSOCIATION, 1000.0, START)), clock)
    transactions.finished(step, 0.0)
    assert transactions.due(0.0, 8) == []
    transactions.apply(entry(0, 31, CommitAttempted(0, "retry asked for", 0.0, START)), clock)
    (step,) = transactions.due(0.0, 8)
    assert step.action is Action.DELIVER


def test_records_are_found_where_they_were_written() -> None:
    """Also where the number of partitions has grown since, so that the rest of a transaction is in another."""
    transactions = machine(shared=True)
    clock = Clock(0.0, START)
    request = accepted(0)
    base = first_round(request.digest)
    transactions.apply(entry(0, 70, request)._replace(location=Location(3, 70)), clock)
    transactions.apply(
        entry(0, 5, CommitProved(base, 0, 1, 0, START))._replace(location=Location(40, 5)), clock
    )
    (transaction,) = transactions
    assert transaction.proof_locations() == [Location(40, 5)]
    assert transaction.is_below({3: 71})
    assert transaction.is_below({40: 6})
    assert not transaction.is_below({3: 70, 40: 5, 7: 10**9})


@pytest.mark.parametrize("number", [-1, 1 << 70])
def test_numbers_that_nothing_of_ours_writes_change_nothing(number: int) -> None:
    """Whole records of somebody else in a shared log must not end each receiver that reads it."""
    transactions = machine(shared=True)
    clock = Clock(0.0, START)
    strange: list[Commitment] = [
        CommitRequested(number, 0),
        CommitRequested(0, number),
        CommitProved(number, 0, 1, 0, START),
        CommitProved(0, number, 1, 0, START),
    ]
    for commitment in strange:
        transactions.apply(entry(0, 5, commitment), clock)
    assert not list(transactions.unknown())
    transactions.apply(entry(0, 6, accepted(0)), clock)
    for commitment in strange:
        transactions.apply(entry(0, 7, commitment), clock)
    (transaction,) = transactions
    assert transaction.request_locations() == transaction.proof_locations() == []


def test_state_of_each_step() -> None:
    """What `commitments list` says of a transaction follows from its records."""
    transactions = machine()
    clock = Clock(0.0, START)
    request = accepted(0)
    base = first_round(request.digest)
    transactions.apply(entry(0, 0, request), clock)
    (transaction,) = transactions
    assert transactions.state_of(transaction) is State.PROVING
    transactions.apply(entry(0, 1, CommitProved(base, 0, 1, 0, START), absent=1), clock)
    assert transactions.state_of(transaction) is State.WAITING
    transactions.apply(entry(0, 2, CommitDecided(base, START)), clock)
    assert transactions.state_of(transaction) is State.DECIDED
    transactions.apply(entry(0, 3, CommitAttempted(1, REFUSED, 10.0, START)), clock)
    assert transactions.state_of(transaction) is State.RETRYING
    transactions.apply(entry(0, 4, CommitAttempted(2, REFUSED, float("inf"), START)), clock)
    assert transactions.state_of(transaction) is State.UNDELIVERABLE
    transactions.apply(entry(0, 5, CommitAttempted(0, "retry asked for", 0.0, START)), clock)
    assert transactions.state_of(transaction) is State.RETRYING
    assert [step.action for step in transactions.due(0.0, 1)] == [Action.DELIVER]
