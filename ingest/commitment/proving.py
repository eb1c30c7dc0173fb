"""From a request to a decision: rounds of fences, asked again where they are lost, and what follows from their proofs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import structlog

from ingest.commitment.asking import Asking
from ingest.commitment.deliveries import WRONG_PROOF
from ingest.commitment.reading import aside, known_of
from ingest.commitment.reporting import Reporting
from ingest.commitment.rounds import Fence, ProofsDoNotFit, Verdict, fences_of
from ingest.commitment.transaction import NEVER, Clock, Transaction
from ingest.commitment.transactions import Action, Step, Transactions
from ingest.contract.commitments import (
    MAX_ROUNDS,
    CommitAttempted,
    CommitDecided,
    CommitProved,
    Finding,
    Found,
    Reference,
)
from ingest.contract.failpoints import Failpoint, reach
from ingest.log import CommitmentLog
from ingest.log.commitment_log import Written

logger = structlog.get_logger(__name__)

# Rounds that are asked since proofs cannot be read any more. A log that goes on losing them is no ground for a promise.
_REPAIRS: Final = 3
_AT_ONCE: Final = 16  # transactions whose instances are in memory; thousands may be due in one moment


class _Begun(NamedTuple):
    """What was so before a round was asked: meanwhile a quick worker, or an earlier start's fences, may prove it."""

    number: int  # of the round, counted from 0
    sure: bool
    at: float


class Proving:
    """Takes the steps before the decision; ``write`` returns when a record is durable and applied."""

    def __init__(
        self,
        *,
        asking: Asking,
        log: CommitmentLog,
        partitions: int,
        reporting: Reporting,
        machine: Transactions,
        clock: Callable[[], Clock],
        write: Callable[[list[Written]], Awaitable[None]],
    ) -> None:
        """``partitions`` of the instance log."""
        self._asking = asking
        self._log = log
        self._partitions = partitions
        self._reporting = reporting
        self._machine = machine
        self._clock = clock
        self._write = write
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def act(self, step: Step) -> None:
        """Take one step.

        Raises:
            OutOfResources, LogUnavailable: not now.
        """
        async with self._slots:
            await self._act(step)

    async def _act(self, step: Step) -> None:
        transaction = step.transaction
        try:
            if step.action is Action.ASK:
                await self._ask_next(transaction)
            elif step.action is Action.ASK_AGAIN:
                await self._ask_again(transaction)
            elif step.action is Action.GIVE_UP:
                await self._give_up(transaction)
            else:
                await self._decide(transaction)
        except ProofsDoNotFit as error:
            await self._leave_to_administrators(transaction, error)

    async def _ask_next(self, transaction: Transaction) -> None:
        begun = self._begin(transaction)
        fences = await self._fences(transaction)
        if not fences:
            transaction.absent = transaction.unavailable = 0
            return
        await self._ask(transaction, begun, fences)

    async def _ask_again(self, transaction: Transaction) -> None:
        """The parts of which nothing was heard; proofs of the first asking that come yet count as well."""
        number = transaction.round + 1
        fences = await self._fences(transaction)
        done = [part for part in range(len(fences)) if transaction.has(part, len(fences))]
        await self._publish(transaction, number, fences, done)
        self._machine.asked_again(transaction, self._clock().now)
        logger.warning(
            "a commitment question was not answered, and is asked again",
            **facts_of(transaction),
            asked=transaction.askings,
            parts_missing=len(fences) - len(done),
        )

    async def _give_up(self, transaction: Transaction) -> None:
        """What nobody answers was not found out; each of its parts says so, and an answer that comes later is late."""
        number = transaction.base + transaction.round + 1
        fences = await self._fences(transaction)
        wall = self._clock().wall
        missing = []
        for part, fence in enumerate(fences):
            if not transaction.has(part, len(fences)):
                proved = CommitProved(number, part, len(fences), fence.partition, wall)
                missing.append(Written(transaction.id, proved, _undecided(fence.references)))
        # Completes a round that asked for none.
        nothing = Written(transaction.id, CommitProved(number, 0, 1, 0, wall))
        await self._write(missing or [nothing])
        logger.error(
            "a commitment question was never answered: its instances are reported as not found out",
            **facts_of(transaction),
            asked=transaction.askings,
            not_found_out=sum(len(record.found) for record in missing),
        )

    async def _decide(self, transaction: Transaction) -> None:
        accepted = transaction.accepted
        assert accepted is not None
        begun = self._begin(transaction)
        last = transaction.base + transaction.round
        known = await known_of(self._log, transaction, last)
        if (known.lost or not known.findings.is_complete()) and self._may_repair(transaction):
            fences = await aside(accepted.references, fences_of, known.findings.open(), self._partitions)
            if fences:
                transaction.repairs += 1
                await self._ask(transaction, begun, fences)
                return
        verdict = await aside(accepted.references, known.findings.verdict)
        digest = await aside(accepted.references, verdict.digest)
        self._reporting.keep_verdict(transaction.id, verdict, digest)
        reach(Failpoint.BEFORE_DECISION)
        decided = CommitDecided(last, self._clock().wall, digest)
        await self._write([Written(transaction.id, decided)])
        reach(Failpoint.DECIDED)
        _log_decision(transaction, verdict)

    def _may_repair(self, transaction: Transaction) -> bool:
        return transaction.repairs < _REPAIRS and transaction.round < MAX_ROUNDS - 1

    async def _fences(self, transaction: Transaction) -> list[Fence]:
        """Of the round that follows the last complete one: the same each time."""
        accepted = transaction.accepted
        assert accepted is not None
        known = await known_of(self._log, transaction, transaction.base + transaction.round)
        return await aside(accepted.references, fences_of, known.findings.open(), self._partitions)

    def _begin(self, transaction: Transaction) -> _Begun:
        return _Begun(transaction.round + 1, transaction.sure, self._clock().now)

    async def _ask(self, transaction: Transaction, begun: _Begun, fences: list[Fence]) -> None:
        await self._publish(transaction, begun.number, fences)
        self._machine.asked(transaction, begun.number, begun.at, sure=begun.sure)

    async def _publish(
        self, transaction: Transaction, number: int, fences: list[Fence], done: Sequence[int] = ()
    ) -> None:
        """The fences of the round ``number``, counted from 0, but for those of the parts that are ``done``."""
        accepted = transaction.accepted
        assert accepted is not None
        await self._asking.ask(
            transaction.id, accepted.calling_ae_title, transaction.base + number, fences, done
        )
        reach(Failpoint.FENCED)

    async def _leave_to_administrators(self, transaction: Transaction, error: ProofsDoNotFit) -> None:
        """Which instances were asked about cannot be told any more, so there is nothing that could be reported."""
        wall = self._clock().wall
        last = transaction.base + max(0, transaction.round)
        decided, attempted = CommitDecided(last, wall), CommitAttempted(1, WRONG_PROOF, NEVER, wall)
        await self._write([Written(transaction.id, decided), Written(transaction.id, attempted)])
        logger.error(
            "a commitment request is lost: its peer gets no report; see `dicom-ingest commitments`",
            **facts_of(transaction),
            error=str(error),
        )


def facts_of(transaction: Transaction) -> dict[str, object]:
    """What a line of the log says of a transaction."""
    accepted = transaction.accepted
    assert accepted is not None
    return {
        "transaction": transaction.id.hex(),
        "calling_ae_title": accepted.calling_ae_title,
        "source": accepted.source,
        "instances": accepted.references,
    }


def _undecided(references: Sequence[Reference]) -> list[Found]:
    return [Found(one.sop_class_uid, one.sop_instance_uid, Finding.UNDECIDED) for one in references]


def _log_decision(transaction: Transaction, verdict: Verdict) -> None:
    failed: dict[str, int] = {}
    for found in verdict.failed:
        failed[found.finding.name.lower()] = failed.get(found.finding.name.lower(), 0) + 1
    facts = facts_of(transaction)
    logger.info("commitment decided", **facts, committed=len(verdict.committed), failed=failed)
    if any(found.finding in (Finding.DAMAGED, Finding.SET_APART) for found in verdict.failed):
        logger.error(
            "stored instances are damaged or set apart and were not committed; see `dicom-ingest commitments show`",
            **facts,
            failed=failed,
        )
