"""Storage commitment from request to report: the state machine, driven by the logs, the clock and the peers.

What follows once a request is accepted follows from records alone: a start reads them all before it does anything.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final

import structlog

from ingest.commitment.accepting import Accepting, CommitmentRequest
from ingest.commitment.asking import Asking
from ingest.commitment.carrying import carry_forward
from ingest.commitment.deliveries import NOWHERE, WRONG_PROOF
from ingest.commitment.interface import ReportChannel
from ingest.commitment.proving import Proving, facts_of
from ingest.commitment.reading import aside
from ingest.commitment.reporting import NotOurs, Reporter, Reporting, longest_report, source_of
from ingest.commitment.rules import Patience, Rules
from ingest.commitment.transaction import NEVER, Clock, Transaction
from ingest.commitment.transactions import Action, State, Step, Transactions
from ingest.contract import audit
from ingest.contract.audit.events import commitment_reported
from ingest.contract.commitments import (
    CommitAccepted,
    CommitAttempted,
    CommitClosed,
    CommitTaken,
    Reference,
    digest_of,
)
from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.identifiers import TransactionId
from ingest.contract.settings import Settings
from ingest.dimse.status import PROCESSING_FAILURE, SUCCESS
from ingest.errors import LogUnavailable, OutOfResources
from ingest.log import CommitmentLog, InstanceLog
from ingest.log.commitment_claimant import Claimant
from ingest.log.commitment_log import Entry, Location, Request, Written, request_record

logger = structlog.get_logger(__name__)

_DELIVERIES: Final = 8  # at a time, each to another source
_AGAIN: Final = 1.0  # s after the log refused
_AGAIN_AFTER_DEFECT: Final = 600.0  # s; it is logged each time
_READ: Final = 60.0  # s
_LOOPS: Final = 3  # tasks that go on for ever
_LAST: Final = 2.0  # s that reports under way have to end, when all does


def system_clock() -> Clock:
    """Now."""
    return Clock(time.monotonic(), time.time_ns())


class Engine:
    """See `Commitments`. Owned by one event loop."""

    def __init__(
        self,
        settings: Settings,
        instances: InstanceLog,
        log: CommitmentLog,
        report: Reporter,
        clock: Callable[[], Clock] = system_clock,
    ) -> None:
        self._settings = settings
        self._instances = instances
        self._log = log
        self._clock = clock
        self._asking = Asking(settings, instances)
        self._reporting = Reporting(settings, log, report)
        self._claim = 2 * longest_report(settings) + 60.0
        self._unwritten: dict[TransactionId, CommitClosed | CommitAttempted] = {}  # how deliveries ended
        self._waiters: list[tuple[Location, asyncio.Future[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reports: set[asyncio.Task[None]] = set()  # of them, those that deliver
        self._delivering = 0

    @property
    def failed(self) -> asyncio.Future[Exception]:
        """Done when the log cannot be read any more: the process must end."""
        return self._failed

    @property
    def transactions(self) -> Transactions:
        """What is known of all of them."""
        return self._machine

    def take_sources(self, settings: Settings) -> None:
        """Use the sources of these settings from now on, and nothing else of them."""
        self._settings = self._settings.model_copy(update={"sources": settings.sources})
        self._asking.take_settings(self._settings)
        self._accepting.take_settings(self._settings)
        self._reporting.take_settings(self._settings)

    def oldest_age(self) -> float:
        """Seconds since the oldest open transaction was accepted; 0 without any. Any thread may ask."""
        now = self._clock().now
        return max((now - transaction.accepted_at for transaction in list(self._machine)), default=0.0)

    async def start(self) -> None:
        """Open the log, and read all of it.

        Raises:
            KafkaUnreachable, TopicMismatch, SpoolError, OSError: see `CommitmentLog.start`.
            LogUnavailable: it cannot be read.
        """
        self._failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._wake = asyncio.Event()
        try:
            await self._log.start()
            await self._replay()
        except BaseException:
            await self._log.close()
            raise
        self._scheduling, *others = (
            self._start(self._kept(run)) for run in (self._schedule, self._read, self._carry)
        )
        assert len(others) + 1 == _LOOPS

    async def _replay(self) -> None:
        instances = self._instances
        self._claimant = self._log.claimant or Claimant(instances.receiver_id, instances.epoch)
        self._machine = Transactions(
            Rules(
                *self._claimant,
                self._log.shared,
                self._claim,
                min(self._settings.commitment.remember, self._log.remembers),
                self._patience_of,
            )
        )
        self._proving = Proving(
            asking=self._asking,
            log=self._log,
            partitions=instances.partitions,
            reporting=self._reporting,
            machine=self._machine,
            clock=self._clock,
            write=self._write,
        )
        self._accepting = Accepting(
            settings=self._settings,
            instances=instances,
            log=self._log,
            machine=self._machine,
            asking=self._asking,
            claimant=self._claimant,
            claim=self._claim,
            clock=self._clock,
            read_to=self._read_to,
        )
        while not self._log.caught_up:
            self._apply(await self._log.read(_READ))
        self._machine.replaying = False
        with contextlib.suppress(OutOfResources):  # a log of before may lack segments to finish what is open
            await self._log.make_room(0, self._machine.promised)
        logger.info("storage commitment is served", open_transactions=len(self._machine))

    async def close(self) -> None:
        """Break off whatever is under way; the log has all that is needed to go on.

        Reports have a moment to end: what a peer has answered is not sent again, and the audit trail has it.
        """
        self._scheduling.cancel()
        if self._reports:
            await asyncio.wait(self._reports, timeout=_LAST)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._log.close()

    async def ask(
        self,
        transaction_uid: str,
        references: Sequence[Reference],
        calling_ae_title: str,
        called_ae_title: str,
        channel: ReportChannel,
    ) -> int:
        """See `Commitments`."""
        transaction_id = TransactionId.of(calling_ae_title, transaction_uid)
        digest = await aside(len(references), digest_of, references)
        status = await self._accepting.answer(
            CommitmentRequest(
                transaction_id, transaction_uid, references, calling_ae_title, called_ae_title, digest
            )
        )
        _, source = self._asking.source_of(calling_ae_title)
        transaction = self._machine.get(transaction_id)
        if status == SUCCESS and transaction is not None:
            if self._reporting.wants_channel(source):
                self._reporting.keep_channel(transaction_id, channel)
                transaction.held = True
            status = await self._deliver_after_all(transaction)
        self._log_answer(transaction_id, calling_ae_title, len(references), status)
        return status

    async def _deliver_after_all(self, transaction: Transaction) -> int:
        """Its requester is back: what could not be delivered is tried again as if an administrator had said so."""
        attempted = transaction.attempted
        if self._machine.state_of(transaction) is not State.UNDELIVERABLE or (
            attempted is not None and attempted.problem == WRONG_PROOF
        ):
            return SUCCESS
        records = [Written(transaction.id, request_record(Request.RETRY, self._clock().wall))]
        if self._log.shared:  # its requester is at ours
            records.insert(0, self._taken_for(transaction, self._claim))
        try:
            await self._write(records)
        except (LogUnavailable, OutOfResources):
            return PROCESSING_FAILURE
        self._wake.set()
        return SUCCESS

    def _deliver_where_it_asked(self, transaction_id: TransactionId) -> None:
        """There was nowhere to report to, as whoever tried knew; its requester may be back on an association of ours."""
        if self._reporting.has_channel(transaction_id):
            self._start(self._deliver_on_channel(transaction_id))

    async def _deliver_on_channel(self, transaction_id: TransactionId) -> None:
        while (transaction := self._machine.get(transaction_id)) is not None:
            if await self._deliver_after_all(transaction) == SUCCESS:
                return
            await asyncio.sleep(_AGAIN)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, nor due by the clock."""
        under_way = len(self._tasks) > _LOOPS or self._accepting.under_way > 0 or self._wake.is_set()
        return not under_way and self._machine.next_time() > self._clock().now

    def wake(self) -> None:
        """Look at the clock again."""
        self._wake.set()

    # Records

    async def _read(self) -> None:
        while True:
            entries = await self._log.read(_READ)
            self._apply(entries)
            if entries:
                self._wake.set()

    def _apply(self, entries: Sequence[Entry]) -> None:
        clock = self._clock()
        for entry in entries:
            self._machine.apply(entry, clock)
            if isinstance(entry.commitment, CommitClosed):
                self._reporting.forget(entry.transaction_id)
                self._unwritten.pop(entry.transaction_id, None)
            elif isinstance(entry.commitment, CommitAttempted) and entry.commitment.problem in NOWHERE:
                self._deliver_where_it_asked(entry.transaction_id)
        self._log.expecting = len(self._machine) > 0 or self._accepting.under_way > 0
        self._log.promised = self._machine.promised
        waiting = self._waiters
        self._waiters = []
        for location, future in waiting:
            if self._log.passed(location):
                if not future.done():
                    future.set_result(None)
            else:
                self._waiters.append((location, future))

    async def _write(self, records: Sequence[Written]) -> None:
        """Write records, and go on when they have been applied."""
        await self._read_to(await self._log.publish(records))

    async def _read_to(self, location: Location) -> None:
        if self._log.passed(location):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((location, future))
        await future

    # Steps

    async def _schedule(self) -> None:
        while True:
            self._wake.clear()
            now = self._clock().now
            for step in self._machine.due(now, _DELIVERIES - self._delivering):
                task = self._start(self._do(step))
                if step.action is Action.DELIVER:
                    self._delivering += 1
                    self._reports.add(task)
                    task.add_done_callback(self._reports.discard)
            next_time = self._machine.next_time()
            timeout = None if next_time == NEVER else max(0.0, next_time - self._clock().now)
            if self._delivering >= _DELIVERIES:
                timeout = None if timeout is None else max(timeout, _AGAIN)  # one that ends wakes
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()

    async def _do(self, step: Step) -> None:
        again = _AGAIN_AFTER_DEFECT
        try:
            await self._act(step)
            again = 0.0
        except (LogUnavailable, OutOfResources) as error:
            logger.warning("storage commitment waits for the log", error=str(error))
            again = _AGAIN
        except Exception:
            logger.exception("a defect in storage commitment", **facts_of(step.transaction))
        finally:
            self._delivering -= step.action is Action.DELIVER
            if step.action is not Action.LAGGING:
                self._machine.finished(step, self._clock().now, again)
            self._wake.set()

    async def _act(self, step: Step) -> None:
        transaction = step.transaction
        if step.action is Action.CLAIM:
            await self._take(transaction)
        elif step.action in (Action.ASK, Action.ASK_AGAIN, Action.GIVE_UP, Action.DECIDE):
            await self._proving.act(step)
        elif step.action is Action.DELIVER:
            await self._deliver(transaction)
        else:
            logger.warning(
                "workers have not come to a commitment request yet",
                **facts_of(transaction),
                seconds=round(self._clock().now - transaction.accepted_at),
                parts_missing=transaction.missing,
            )

    async def _take(self, transaction: Transaction) -> None:
        await self._write([self._taken_for(transaction, self._claim)])

    def _taken_for(self, transaction: Transaction, seconds: float) -> Written:
        """A claim of ours from now on, or its end."""
        return Written(transaction.id, CommitTaken(*self._claimant, seconds, self._clock().wall))

    async def _still_ours(self, transaction: Transaction) -> bool:
        """Whether a report may be sent: under a claim of ours, which is made anew where it might end meanwhile."""
        if not self._log.shared:
            return True
        if not self._outlasts_report(transaction):
            await self._take(transaction)
        return self._outlasts_report(transaction)

    def _outlasts_report(self, transaction: Transaction) -> bool:
        """Whether our claim does, however long the report takes."""
        left = transaction.claim_until - self._clock().now
        return transaction.claim_mine and left > longest_report(self._settings)

    async def _deliver(self, transaction: Transaction) -> None:
        outcome = self._unwritten.get(transaction.id)
        if outcome is None:
            try:
                outcome = await self._reporting.deliver(
                    transaction, self._clock, lambda: self._still_ours(transaction)
                )
            except NotOurs:
                if transaction.claim_mine:  # a log that is slow took all the time of it
                    logger.warning(
                        "a commitment report waits: our claim may end before it", **facts_of(transaction)
                    )
                else:
                    logger.info("another receiver has claimed a commitment report", **facts_of(transaction))
                return
        self._unwritten[transaction.id] = outcome  # a log that is away must not make us send it again
        records = [Written(transaction.id, outcome)]
        if self._log.shared and isinstance(outcome, CommitAttempted) and outcome.problem in NOWHERE:
            # Our claim ends with it: its requester may ask again at another receiver.
            records.insert(0, self._taken_for(transaction, 0.0))
        await self._write(records)
        self._unwritten.pop(transaction.id, None)
        reach(Failpoint.CLOSED)
        facts = facts_of(transaction)
        if isinstance(outcome, CommitClosed):
            logger.info("commitment reported", **facts, committed=outcome.committed, failed=outcome.failed)
            if (accepted := transaction.accepted) is not None:
                audit.record(commitment_reported(accepted, outcome))
        elif outcome.wait == NEVER:
            logger.error(
                "a commitment report cannot be delivered; see `dicom-ingest commitments`",
                **facts,
                problem=outcome.problem,
                attempts=outcome.attempts,
            )
        else:
            logger.warning(
                "a commitment report was not delivered",
                **facts,
                problem=outcome.problem,
                attempts=outcome.attempts,
                again_in=outcome.wait,
            )

    async def _carry(self) -> None:
        while True:
            # Each of those who share a log at another time: mostly one carries, and the others find it done.
            await asyncio.sleep(random.uniform(*self._log.carry_every))  # noqa: S311 - no secret
            try:
                await carry_forward(self._log, self._machine, self._clock, self._write)
            except (LogUnavailable, OutOfResources) as error:
                logger.warning("open transactions are not carried forward now", error=str(error))

    # Tasks

    def _start(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _kept(self, run: Callable[[], Awaitable[None]]) -> None:
        """One of the loops that must go on: without it nothing is reported any more, and the process must end."""
        try:
            await run()
        except Exception as error:
            logger.exception("storage commitment has ended")
            if not self._failed.done():
                self._failed.set_result(error)

    def _patience_of(self, accepted: CommitAccepted) -> Patience:
        limits = self._settings.commitment
        source = source_of(self._settings, accepted)
        grace = limits.absent_grace if source is None or source.absent_grace is None else source.absent_grace
        limit = limits.wait_limit if source is None or source.wait_limit is None else source.wait_limit
        return Patience(grace, limit)

    def _log_answer(self, transaction_id: TransactionId, ae_title: str, references: int, status: int) -> None:
        facts = {"transaction": transaction_id.hex(), "calling_ae_title": ae_title, "instances": references}
        if status == SUCCESS:
            logger.info("commitment request accepted", **facts)
        else:
            logger.warning("commitment request refused", **facts, status=f"{status:04X}H")
