"""Whose turn it is to be reported: for each source one at a time, in the order of the decisions. Pure.

A source that cannot be reached keeps all of its reports waiting, and only the first of them is tried when its time
comes. So does one that ends the association instead of an answer, but then it is the turn of another report: it may be
what is in one that the peer cannot take. A report that the peer refuses waits alone. What has been tried for too long
waits for an administrator.
"""

import heapq
from typing import Final, NamedTuple

from ingest.commitment.transaction import NEVER, Transaction
from ingest.contract.identifiers import TransactionId

NO_ASSOCIATION: Final = "no association"
NO_ANSWER: Final = "no answer on the association"
REFUSED: Final = "status other than success"
NO_ADDRESS: Final = "no return address"
ASSOCIATION_GONE: Final = "association gone and no return address"
WRONG_PROOF: Final = "proofs do not fit the request"
# Until its requester asks again there is no association to send it on.
NOWHERE: Final = (NO_ADDRESS, ASSOCIATION_GONE)


class _Ready(NamedTuple):
    """Its time has come."""

    unanswered: int  # tries
    decided_at: int
    id: TransactionId


class _Later(NamedTuple):
    """Its time will come."""

    when: float
    unanswered: int
    decided_at: int
    id: TransactionId


class _Source:
    """The reports that wait for one peer."""

    def __init__(self) -> None:
        self.ready: list[_Ready] = []  # a heap
        self.waiting: list[_Later] = []  # a heap
        self.blocked_until = 0.0
        self.busy: Transaction | None = None

    def next_time(self) -> float:
        """When it has something to deliver."""
        if self.busy is not None:
            return NEVER
        first = self.blocked_until if self.ready else NEVER
        if self.waiting:
            first = min(first, max(self.waiting[0].when, self.blocked_until))
        return first


class Deliveries:
    """All that wait to be reported."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._waiting: dict[TransactionId, Transaction] = {}
        self._turns: list[tuple[float, str]] = []  # when a source may have something

    def put(self, transaction: Transaction) -> None:
        """Its report can be sent from now on."""
        if transaction.id not in self._waiting:
            self._waiting[transaction.id] = transaction
            self._enqueue(transaction, transaction.next_attempt)

    def attempted(self, transaction: Transaction) -> None:
        """What its last COMMIT_ATTEMPTED says is to be heeded."""
        attempted = transaction.attempted
        assert attempted is not None
        source, name = self._source(transaction)
        if not attempted.attempts:  # an administrator says that the peer is back
            source.blocked_until = 0.0
        elif attempted.problem in (NO_ASSOCIATION, NO_ANSWER) and transaction.next_attempt != NEVER:
            source.blocked_until = transaction.next_attempt
        if transaction.id in self._waiting and source.busy is not transaction:
            self._enqueue(transaction, transaction.next_attempt)
        self._turn(source, name)

    def remove(self, transaction: Transaction, *, reported: bool) -> None:
        """It is over; a report that was taken shows that the source can be reached."""
        self._waiting.pop(transaction.id, None)
        if transaction.decided is None:
            return
        source, name = self._source(transaction)
        if reported:
            source.blocked_until = 0.0
        if source.busy is transaction:
            source.busy = None
        self._turn(source, name)

    def take(self, now: float) -> Transaction | None:
        """The next one to report, busy with its source until `finished` or `later`."""
        while self._turns and self._turns[0][0] <= now:
            _, name = heapq.heappop(self._turns)
            source = self._sources.get(name)
            if source is None or source.busy is not None:
                continue
            transaction = self._head(source, now)
            if transaction is not None:
                source.busy = transaction
                return transaction
            self._turn(source, name)
        return None

    def later(self, transaction: Transaction, when: float) -> None:
        """It was taken, and is not to be reported before ``when``."""
        source, name = self._source(transaction)
        if source.busy is transaction:
            source.busy = None
        self._enqueue(transaction, when)
        self._turn(source, name)

    def finished(self, transaction: Transaction) -> None:
        """What was done with it is done; unless it is over, it waits for its next turn."""
        source, name = self._source(transaction)
        if source.busy is transaction:
            source.busy = None
        if transaction.id in self._waiting and transaction.turn == NEVER:
            self._enqueue(transaction, max(transaction.next_attempt, transaction.not_before))
        self._turn(source, name)

    def next_time(self) -> float:
        """When `take` has one."""
        while self._turns:
            at, name = self._turns[0]
            source = self._sources.get(name)
            if source is not None and source.next_time() <= at:
                return at
            heapq.heappop(self._turns)
            if source is not None:
                self._turn(source, name)
        return NEVER

    def _head(self, source: _Source, now: float) -> Transaction | None:
        """Of those whose time has come the first decided, and after it what was tried without an answer."""
        if source.blocked_until > now:
            return None
        while source.waiting and source.waiting[0].when <= now:
            at, unanswered, decided_at, transaction_id = heapq.heappop(source.waiting)
            transaction = self._waiting.get(transaction_id)
            if transaction is not None and transaction.turn == at:
                heapq.heappush(source.ready, _Ready(unanswered, decided_at, transaction_id))
        while source.ready:
            *_, transaction_id = heapq.heappop(source.ready)
            transaction = self._waiting.get(transaction_id)
            if transaction is not None and transaction.turn <= now:
                transaction.turn = NEVER  # not twice
                return transaction
        return None

    def _enqueue(self, transaction: Transaction, when: float) -> None:
        transaction.turn = when
        if when == NEVER:
            return
        source, name = self._source(transaction)
        assert transaction.decided is not None
        later = _Later(when, _unanswered(transaction), transaction.decided.decided_at, transaction.id)
        heapq.heappush(source.waiting, later)
        self._turn(source, name)

    def _turn(self, source: _Source, name: str) -> None:
        when = source.next_time()
        if when != NEVER:
            heapq.heappush(self._turns, (when, name))
        elif source.busy is None and not source.ready and not source.waiting:
            self._sources.pop(name, None)

    def _source(self, transaction: Transaction) -> tuple[_Source, str]:
        accepted = transaction.accepted
        assert accepted is not None
        name = f"source {accepted.source}" if accepted.source else f"AE {accepted.calling_ae_title}"
        return self._sources.setdefault(name, _Source()), name


def _unanswered(transaction: Transaction) -> int:
    """How often it was tried, where the last try had an association and no answer."""
    attempted = transaction.attempted
    return attempted.attempts if attempted is not None and attempted.problem == NO_ANSWER else 0
