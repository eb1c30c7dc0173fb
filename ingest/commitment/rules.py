"""When a transaction is to be asked, claimed and settled: who we are, and how patient. Pure."""

from collections.abc import Callable
from typing import Final, NamedTuple

from ingest.commitment.transaction import NEVER, Transaction
from ingest.contract.commitments import MAX_ROUNDS, CommitAccepted

FIRST_AGAIN: Final = 5.0  # s from a round to the next; doubled each time
_LEAST_AGAIN: Final = 1.0  # s
# What is carried forward while it is closed has its end before its acceptance: the end must not be forgotten by then.
LEAST_REMEMBERED: Final = 1000


class Patience(NamedTuple):
    """Of one source, in seconds."""

    absent_grace: float
    wait_limit: float


class Rules(NamedTuple):
    """Of one receiver's start. Moments are seconds of the clock of `Clock.now`."""

    receiver: int
    epoch: int
    shared: bool  # other receivers read and write the same log
    claim: float  # s
    remember: int  # closed transactions
    patience_of: Callable[[CommitAccepted], Patience]

    def may_act(self, transaction: Transaction, now: float) -> bool:
        """Whether no other receiver has claimed it."""
        return not self.shared or transaction.claim_mine or transaction.claim_until <= now

    def is_claimed(self, transaction: Transaction, now: float) -> bool:
        """By us, and for long enough: half of a claim is for what is begun under it."""
        if not self.shared:
            return True
        return transaction.claim_mine and transaction.claim_until - now > self.claim / 2

    def with_renewal(self, transaction: Transaction, when: float) -> float:
        """``when``, or earlier: a claim that is to be kept is claimed again in good time."""
        if self.shared and transaction.held and transaction.claim_mine:
            return min(when, transaction.claim_until - self.claim / 2)
        return when

    def overdue_at(self, transaction: Transaction) -> float:
        """When a fence or proof of the round that is out must be thought lost; a start waits anew."""
        if transaction.accepted is None:
            return NEVER
        return transaction.asked_last + self.patience_of(transaction.accepted).wait_limit

    def is_settled(self, transaction: Transaction) -> bool:
        """Whether the last round has found out all that a round can."""
        return transaction.round >= MAX_ROUNDS - 1 or not self._ends(transaction)

    def next_round(self, transaction: Transaction) -> float:
        """When it is to be asked again: at growing intervals, and at the end of each kind's time."""
        completed = transaction.completed_at
        later = completed + FIRST_AGAIN * 2.0**transaction.round
        return min([later, *(max(end, completed + _LEAST_AGAIN) for end in self._ends(transaction))])

    def _ends(self, transaction: Transaction) -> list[float]:
        """When the time of each kind of open finding is over that the last round was asked too early to settle."""
        accepted = transaction.accepted
        assert accepted is not None
        patience = self.patience_of(accepted)
        ends = []
        if transaction.absent:
            ends.append(transaction.accepted_at + patience.absent_grace)
        if transaction.unavailable:
            ends.append(transaction.accepted_at + patience.wait_limit)
        return [end for end in ends if transaction.asked_at < end]
