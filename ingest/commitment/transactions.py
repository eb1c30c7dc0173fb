"""All transactions of the commitment log: records in, next steps out. Pure: no I/O, and the time is passed in.

States, and the record that leads on from each:

    accepted, proving   COMMIT_ACCEPTED   a round of fences is out; its last COMMIT_PROVED completes it
    waiting             COMMIT_PROVED     something is open, and is asked again later
    decided             COMMIT_DECIDED    the report can be sent, and is the same each time
    retrying            COMMIT_ATTEMPTED  it was not taken, and is sent again later
    undeliverable       COMMIT_ATTEMPTED  that has gone on too long: an administrator retries or expires it
    closed              COMMIT_CLOSED     its UID is used up

`due` hands out one step at a time for a transaction; whoever takes it says `finished`, whatever became of it. Where
receivers share the log, a step is handed out only under a claim of ours: the first step is to claim.
"""

import enum
import heapq
from collections.abc import Iterator
from typing import Final, NamedTuple

from ingest.commitment.deliveries import Deliveries
from ingest.commitment.rules import LEAST_REMEMBERED, Patience, Rules
from ingest.commitment.transaction import NEVER, Clock, Transaction
from ingest.contract.commitments import (
    CommitAccepted,
    CommitAttempted,
    CommitClosed,
    CommitDecided,
    CommitProved,
    CommitRequested,
    CommitTaken,
)
from ingest.contract.identifiers import TransactionId
from ingest.log.commitment_log import Entry, Location

# Times that the fences of a round are written, each after the source's limit of time, before what they asked about is
# taken for not found out. Workers that are behind have as long; a fence or a proof may be lost once, and hardly thrice.
ASKINGS: Final = 3
FIRST_LAG: Final = 60.0  # s that a round may take before it is worth a warning; doubled each time
_CLOSED_SIZE: Final = 160  # bytes of a COMMIT_CLOSED record
# Transactions of which only proofs are known, as an N-ACTION that failed leaves.
_UNKNOWN_KEPT: Final = 20_000


class State(enum.StrEnum):
    """What a transaction waits for."""

    PROVING = "proving"
    WAITING = "waiting"
    DECIDED = "decided"
    RETRYING = "retrying"
    UNDELIVERABLE = "undeliverable"
    CLOSED = "closed"


class Action(enum.Enum):
    """What is to be done."""

    CLAIM = enum.auto()
    ASK = enum.auto()  # another round of fences about what is open
    ASK_AGAIN = enum.auto()  # the same round, whose fences or proofs may be lost
    GIVE_UP = enum.auto()  # that round: what it asked about was not found out
    DECIDE = enum.auto()
    DELIVER = enum.auto()
    LAGGING = enum.auto()  # tell that a round takes long


class Step(NamedTuple):
    """To be done now."""

    action: Action
    transaction: Transaction


def watched() -> "Transactions":
    """For who looks on and does nothing: what is open, by the records of the log alone."""
    return Transactions(
        Rules(
            -1,
            -1,
            shared=False,
            claim=0.0,
            remember=LEAST_REMEMBERED,
            patience_of=lambda _: Patience(0.0, 0.0),
        )
    )


class Transactions:
    """The state machine; `apply` in the order of the log, `due` whenever `next_time` says."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._open: dict[TransactionId, Transaction] = {}
        self._unknown: dict[TransactionId, Transaction] = {}  # proved, and not accepted
        self._closed: dict[TransactionId, tuple[Location, int]] = {}  # where and when it ended; oldest first
        self._schedule: list[tuple[float, TransactionId]] = []
        self._deliveries = Deliveries()
        self.replaying = True  # what is applied was written before this start
        self._promised = 0

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def __iter__(self) -> Iterator[Transaction]:
        """The open ones."""
        return iter(self._open.values())

    @property
    def promised(self) -> int:
        """Bytes that the log needs to finish all that are open, and to remember those that are over."""
        return self._promised + len(self._closed) * _CLOSED_SIZE

    def get(self, transaction_id: TransactionId) -> Transaction | None:
        """An open one."""
        return self._open.get(transaction_id)

    def is_closed(self, transaction_id: TransactionId) -> bool:
        """Whether it is over, and remembered."""
        return transaction_id in self._closed

    def closed(self) -> Iterator[tuple[TransactionId, Location]]:
        """Those that are over and remembered, each with the location of its record."""
        for transaction_id, (location, _) in self._closed.items():
            yield transaction_id, location

    def closed_at(self, transaction_id: TransactionId) -> Location:
        """The location of the record that says that one is over."""
        return self._closed[transaction_id][0]

    def apply(self, entry: Entry, clock: Clock) -> None:
        """The next record."""
        record = entry.commitment
        if isinstance(record, CommitAccepted):
            self._accept(entry, record, clock)
        elif isinstance(record, CommitClosed):
            self._close(entry, record)
        elif isinstance(record, CommitProved):
            self._prove(entry, record, clock)
        elif isinstance(record, CommitRequested):
            self._request(entry, record, clock)
        elif (transaction := self._open.get(entry.transaction_id)) is not None:
            if isinstance(record, CommitDecided):
                transaction.decide(entry, record, self._moment(record.decided_at, clock))
                self._deliveries.put(transaction)
            elif isinstance(record, CommitAttempted):
                if transaction.attempt(entry, record, clock, self._moment(record.attempted_at, clock)):
                    self._deliveries.attempted(transaction)
            elif isinstance(record, CommitTaken):
                self._take(transaction, record, clock)
            self._plan(transaction, clock.now)

    def state_of(self, transaction: Transaction) -> State:
        """Of one that is open."""
        if transaction.decided is None:
            return State.WAITING if transaction.is_round_over else State.PROVING
        if transaction.attempted is None:
            return State.DECIDED
        return State.UNDELIVERABLE if transaction.next_attempt == NEVER else State.RETRYING

    def due(self, now: float, deliveries: int) -> list[Step]:
        """What is to be done now, at most so many of it deliveries; each transaction is busy until `finished`."""
        steps = []
        while self._schedule and self._schedule[0][0] <= now:
            at, transaction_id = heapq.heappop(self._schedule)
            transaction = self._open.get(transaction_id)
            if transaction is None or transaction.due != at or transaction.busy:
                continue
            transaction.due = NEVER
            step = self._step(transaction, now)
            if step is not None:
                transaction.busy = step.action is not Action.LAGGING
                steps.append(step)
            if not transaction.busy:
                self._plan(transaction, now)
        return steps + self._due_deliveries(now, deliveries)

    def next_time(self) -> float:
        """When `due` has something to hand out, if nothing is applied or finished meanwhile."""
        while self._schedule:
            at, transaction_id = self._schedule[0]
            transaction = self._open.get(transaction_id)
            if transaction is not None and transaction.due == at:
                return min(at, self._deliveries.next_time())
            heapq.heappop(self._schedule)
        return self._deliveries.next_time()

    def finished(self, step: Step, now: float, again: float = 0.0) -> None:
        """A step was done, or failed; in the latter case it is handed out again after so many seconds."""
        transaction = step.transaction
        transaction.busy = False
        transaction.not_before = now + again
        if transaction.decided is not None:
            self._deliveries.finished(transaction)
        if transaction.id in self._open:
            self._plan(transaction, now)

    def asked(self, transaction: Transaction, number: int, begun: float, *, sure: bool) -> None:
        """A round's fences are in the instance log; see `Transaction.asked`."""
        transaction.asked(number, begun, sure=sure)
        transaction.lag_at = begun + FIRST_LAG

    def asked_again(self, transaction: Transaction, now: float) -> None:
        """The fences of the round that is out are in the instance log once more."""
        transaction.asked_again(now)

    def forget_unknown(self, transaction_id: TransactionId) -> None:
        """Proofs without a transaction are about to leave the log."""
        self._unknown.pop(transaction_id, None)

    def unknown(self) -> Iterator[Transaction]:
        """Those of which only proofs are known."""
        return iter(self._unknown.values())

    # Records

    def _moment(self, stamp: int, clock: Clock) -> float:
        """When a record with this stamp was written: just now, whatever clock it is of, unless a start reads it."""
        return clock.seconds(stamp) if self.replaying else clock.now

    def _accept(self, entry: Entry, record: CommitAccepted, clock: Clock) -> None:
        transaction_id = entry.transaction_id
        closed = self._closed.get(transaction_id)
        if closed is not None:
            if record.accepted_at // 10**9 <= closed[1]:
                return
            del self._closed[transaction_id]  # it was forgotten when this was accepted
        transaction = self._open.get(transaction_id)
        is_new = transaction is None
        if transaction is None:
            transaction = self._unknown.pop(transaction_id, None) or Transaction(transaction_id, clock.now)
            self._open[transaction_id] = transaction
        rules = self._rules
        ours = not self.replaying and (record.receiver, record.epoch) == (rules.receiver, rules.epoch)
        if transaction.accept(entry, record, clock, sure=ours) and is_new:
            transaction.lag_at = transaction.accepted_at + FIRST_LAG
            self._promised += transaction.promise
            if record.hold:
                taken = CommitTaken(record.receiver, record.epoch, record.hold, record.accepted_at)
                self._take(transaction, taken, clock)
        self._plan(transaction, clock.now)

    def _request(self, entry: Entry, record: CommitRequested, clock: Clock) -> None:
        transaction = self._open.get(entry.transaction_id)
        if transaction is not None:
            transaction.request(entry, record)
        else:
            unknown = self._not_accepted(entry.transaction_id, clock)
            unknown.request(entry, record)
            self._drop_empty(unknown)

    def _prove(self, entry: Entry, record: CommitProved, clock: Clock) -> None:
        transaction_id = entry.transaction_id
        transaction = self._open.get(transaction_id)
        if transaction is not None:
            sure = not self.replaying and (transaction.claim_mine or not self._rules.shared)
            transaction.prove(entry, record, clock, live=not self.replaying, sure=sure)
            self._plan(transaction, clock.now)
        elif transaction_id not in self._closed:
            unknown = self._not_accepted(transaction_id, clock)
            unknown.prove(entry, record, clock, live=not self.replaying, sure=False)
            self._drop_empty(unknown)

    def _not_accepted(self, transaction_id: TransactionId, clock: Clock) -> Transaction:
        """What is known of a transaction that is not open: all or part of it before its acceptance is."""
        unknown = self._unknown.get(transaction_id)
        if unknown is None:
            if len(self._unknown) >= _UNKNOWN_KEPT:
                del self._unknown[next(iter(self._unknown))]
            unknown = self._unknown[transaction_id] = Transaction(transaction_id, clock.now)
        return unknown

    def _drop_empty(self, unknown: Transaction) -> None:
        """Its only record was none that anything of ours writes."""
        if not (unknown.proofs or unknown.requested):
            del self._unknown[unknown.id]

    def _take(self, transaction: Transaction, record: CommitTaken, clock: Clock) -> None:
        rules = self._rules
        mine = record.receiver == rules.receiver
        if mine and record.epoch != rules.epoch:
            return  # of an earlier start of ours, which does nothing any more
        overdue = not transaction.is_round_over and self._rules.overdue_at(transaction) <= clock.now
        transaction.take(record, clock, mine=mine, overdue=overdue)

    def _close(self, entry: Entry, record: CommitClosed) -> None:
        transaction_id = entry.transaction_id
        transaction = self._open.pop(transaction_id, None)
        self._unknown.pop(transaction_id, None)
        if transaction is not None:
            self._promised -= transaction.promise
            self._deliveries.remove(transaction, reported=record.how == "reported")
        if transaction_id in self._closed and not entry.carried:
            return
        self._closed[transaction_id] = entry.location, record.closed_at // 10**9
        while len(self._closed) > self._rules.remember:
            del self._closed[next(iter(self._closed))]

    # The schedule

    def _plan(self, transaction: Transaction, now: float) -> None:
        if transaction.busy:
            return
        due = max(self._when(transaction, now), transaction.not_before)
        if due != transaction.due:
            transaction.due = due
            if due != NEVER:
                heapq.heappush(self._schedule, (due, transaction.id))

    def _when(self, transaction: Transaction, now: float) -> float:
        if transaction.accepted is None:
            return NEVER
        if transaction.decided is not None:
            when = NEVER  # see `Deliveries`
        elif not transaction.is_round_over:
            when = self._rules.overdue_at(transaction)
        elif self._rules.is_settled(transaction):
            when = now
        else:
            when = self._rules.next_round(transaction)
        if not self._rules.may_act(transaction, now):
            when = max(when, transaction.claim_until)
        if not transaction.is_round_over and transaction.decided is None:
            when = min(when, transaction.lag_at)
        return self._rules.with_renewal(transaction, when)

    def _step(self, transaction: Transaction, now: float) -> Step | None:
        if self._rules.with_renewal(transaction, NEVER) <= now:
            return Step(Action.CLAIM, transaction)
        if transaction.decided is not None:
            return None
        if not transaction.is_round_over:
            return self._lagging(transaction, now) or self._overdue(transaction, now)
        settled = self._rules.is_settled(transaction)
        if (not settled and self._rules.next_round(transaction) > now) or not self._rules.may_act(
            transaction, now
        ):
            return None
        if not self._rules.is_claimed(transaction, now):
            return Step(Action.CLAIM, transaction)
        return Step(Action.DECIDE if settled else Action.ASK, transaction)

    def _lagging(self, transaction: Transaction, now: float) -> Step | None:
        if transaction.lag_at > now:
            return None
        transaction.lag_at = now + max(FIRST_LAG, now - max(transaction.asked_at, transaction.accepted_at))
        return Step(Action.LAGGING, transaction)

    def _overdue(self, transaction: Transaction, now: float) -> Step | None:
        if self._rules.overdue_at(transaction) > now or not self._rules.may_act(transaction, now):
            return None
        if not self._rules.is_claimed(transaction, now):
            return Step(Action.CLAIM, transaction)
        action = Action.ASK_AGAIN if transaction.askings < ASKINGS else Action.GIVE_UP
        return Step(action, transaction)

    def _due_deliveries(self, now: float, room: int) -> list[Step]:
        steps: list[Step] = []
        while len(steps) < room and (transaction := self._deliveries.take(now)) is not None:
            if transaction.busy:
                self._deliveries.later(transaction, NEVER)  # `finished` gives it its turn
            elif not self._rules.may_act(transaction, now):
                self._deliveries.later(transaction, transaction.claim_until)
            else:
                claimed = self._rules.is_claimed(transaction, now)
                transaction.busy = True
                steps.append(Step(Action.DELIVER if claimed else Action.CLAIM, transaction))
        return steps
