"""Storage commitment from request to report: the state machine, driven by the logs, the clock and the peers.

Steps of a request: 1. fences durable in the instance log, 2. its instances and COMMIT_ACCEPTED durable in the commitment
log, 3. read back from there, which settles who was first where receivers share it, 4. N-ACTION-RSP with 0000H. Everything later
follows from records alone: a start reads them all before it does anything.
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final, NamedTuple

import structlog

from ingest.commitment.asking import Asking
from ingest.commitment.carrying import carry_forward
from ingest.commitment.interface import ReportChannel
from ingest.commitment.proving import Proving, facts_of
from ingest.commitment.reading import aside
from ingest.commitment.reporting import NotOurs, Report, Reporting, longest_report
from ingest.commitment.rounds import fences_of
from ingest.commitment.transaction import NEVER, Clock, Transaction, promise_of
from ingest.commitment.transactions import Action, Patience, Rules, Step, Transactions
from ingest.contract import audit
from ingest.contract.audit.events import commitment_reported
from ingest.contract.commitments import (
    MAX_PARTS,
    MAX_REFERENCES,
    CommitAccepted,
    CommitAttempted,
    CommitClosed,
    CommitRequested,
    CommitTaken,
    Reference,
    digest_of,
    first_round,
)
from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.identifiers import TransactionId
from ingest.contract.settings import Settings
from ingest.errors import LogUnavailable, OutOfResources
from ingest.log import CommitmentLog, InstanceLog
from ingest.log.commitment_claimant import Claimant
from ingest.log.commitment_log import Entry, Place, Written

logger = structlog.get_logger(__name__)

# PS3.7 Annex C
SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
DUPLICATE_TRANSACTION_UID: Final = 0x0131
RESOURCE_LIMITATION: Final = 0x0213

_DELIVERIES: Final = 8  # at a time, each to another source
_AGAIN: Final = 1.0  # s after the log refused
_AGAIN_AFTER_DEFECT: Final = 600.0  # s; it is logged each time
_ASK_LIMIT: Final = 60.0  # s; then the peer is told that it failed
_READ: Final = 60.0  # s
_SALT: Final = 8  # bytes
_LOOPS: Final = 3  # tasks that go on for ever


class _Request(NamedTuple):
    """An N-ACTION."""

    transaction_id: TransactionId
    transaction_uid: str
    references: Sequence[Reference]
    calling_ae_title: str
    called_ae_title: str
    digest: bytes


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
        report: Report,
        clock: Callable[[], Clock] = system_clock,
    ) -> None:
        self._settings = settings
        self._instances = instances
        self._log = log
        self._clock = clock
        self._asking = Asking(settings, instances)
        self._reporting = Reporting(settings, log, report)
        self._claim = 2 * longest_report(settings) + 60.0
        self._under_way: dict[TransactionId, tuple[bytes, asyncio.Future[int]]] = {}
        self._unwritten: dict[TransactionId, CommitClosed | CommitAttempted] = {}  # how deliveries ended
        self._waiters: list[tuple[Place, asyncio.Future[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._delivering = 0
        self._coming = 0  # bytes that requests under way may come to

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
        loops = (self._read, self._schedule, self._carry)
        assert len(loops) == _LOOPS
        for run in loops:
            self._start(self._kept(run))

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
            partitions=self._instances.partitions,
            reporting=self._reporting,
            machine=self._machine,
            clock=self._clock,
            write=self._write,
        )
        while not self._log.caught_up:
            self._apply(await self._log.read(_READ))
        self._machine.replaying = False
        with contextlib.suppress(OutOfResources):  # a log of before may lack segments to finish what is open
            await self._log.make_room(0, self._machine.promised)
        logger.info("storage commitment is served", open_transactions=len(self._machine))

    async def close(self) -> None:
        """Break off whatever is under way; the log has all that is needed to go on."""
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
        _, source = self._asking.source_of(calling_ae_title)
        status = self._known(transaction_id, digest)
        if status is None and transaction_id in self._under_way:
            asked, answer = self._under_way[transaction_id]
            status = await asyncio.shield(answer) if asked == digest else DUPLICATE_TRANSACTION_UID
        elif status is None:
            status = self._refusal(calling_ae_title)
            if status is None:
                answer = asyncio.get_running_loop().create_future()
                self._under_way[transaction_id] = digest, answer
                status = PROCESSING_FAILURE
                try:
                    request = _Request(
                        transaction_id, transaction_uid, references, calling_ae_title, called_ae_title, digest
                    )
                    status = await self._ask(request)
                finally:
                    del self._under_way[transaction_id]
                    answer.set_result(status)
        transaction = self._machine.get(transaction_id)
        if status == SUCCESS and transaction is not None and self._reporting.wants_channel(source):
            self._reporting.keep_channel(transaction_id, channel)
            transaction.held = True
        self._log_answer(transaction_id, calling_ae_title, len(references), status)
        return status

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, nor due by the clock."""
        under_way = len(self._tasks) > _LOOPS or bool(self._under_way) or self._wake.is_set()
        return not under_way and self._machine.next_time() > self._clock().now

    def wake(self) -> None:
        """Look at the clock again."""
        self._wake.set()

    def _known(self, transaction_id: TransactionId, digest: bytes) -> int | None:
        """The answer to a Transaction UID that is in use or used up: one that comes again is one request."""
        transaction = self._machine.get(transaction_id)
        if transaction is not None:
            accepted = transaction.accepted
            assert accepted is not None
            return SUCCESS if accepted.digest == digest else DUPLICATE_TRANSACTION_UID
        return DUPLICATE_TRANSACTION_UID if self._machine.is_closed(transaction_id) else None

    def _refusal(self, calling_ae_title: str) -> int | None:
        """Why no new transaction can be taken."""
        _, source = self._asking.source_of(calling_ae_title)
        if len(self._machine) + len(self._under_way) >= self._settings.commitment.maximum_open:
            logger.warning("a commitment request is refused: too many transactions are open")
            return RESOURCE_LIMITATION
        if (reason := self._instances.refusal()) is not None:
            logger.warning("a commitment request is refused", reason=reason)
            return RESOURCE_LIMITATION
        reachable = source is not None and (source.host or source.same_association)
        if self._settings.commitment.without_address == "refuse" and not reachable:
            logger.warning(
                "a commitment request is refused: its source has no return address in the settings",
                calling_ae_title=calling_ae_title,
            )
            return PROCESSING_FAILURE
        return None

    async def _ask(self, request: _Request) -> int:
        transaction_id, calling_ae_title = request.transaction_id, request.calling_ae_title
        fences = await aside(
            len(request.references), fences_of, request.references, self._instances.partitions
        )
        if len(fences) >= MAX_PARTS:
            return RESOURCE_LIMITATION
        accepted = self._accepted(request, len(fences))
        reach(Failpoint.ASKED)
        own_round = first_round(accepted.digest, accepted.salt)
        requested = [
            Written(transaction_id, CommitRequested(own_round, part), request.references[at:end])
            for part, (at, end) in enumerate(_parts(len(request.references)))
        ]
        size = await aside(len(request.references), _size, requested)
        promise = promise_of(size, len(request.references), len(fences))
        self._coming += promise
        try:
            await self._log.make_room(size, self._machine.promised + self._coming)
            async with asyncio.timeout(_ASK_LIMIT):
                await self._asking.ask(transaction_id, calling_ae_title, own_round, fences)
                reach(Failpoint.FENCED)
                place = await self._log.publish([*requested, Written(transaction_id, accepted)])
                reach(Failpoint.ACCEPTED)
                await self._read_to(place)
        except OutOfResources as error:
            logger.warning("a commitment request is refused", reason=str(error))
            return RESOURCE_LIMITATION
        except (LogUnavailable, TimeoutError):
            return PROCESSING_FAILURE
        finally:
            self._coming -= promise
        # Where receivers share the log, another may have accepted one of that UID a moment before.
        status = self._known(transaction_id, request.digest)
        return PROCESSING_FAILURE if status is None else status

    def _accepted(self, request: _Request, parts: int) -> CommitAccepted:
        name, _ = self._asking.source_of(request.calling_ae_title)
        return CommitAccepted(
            request.transaction_uid,
            request.calling_ae_title,
            request.called_ae_title,
            name,
            len(request.references),
            request.digest,
            parts,
            *self._claimant,
            self._claim if self._log.shared else 0.0,
            self._clock().wall,
            secrets.token_bytes(_SALT),
        )

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
        self._log.expecting = len(self._machine) > 0 or bool(self._under_way)
        self._log.promised = self._machine.promised
        waiting = self._waiters
        self._waiters = []
        for place, future in waiting:
            if self._log.passed(place):
                if not future.done():
                    future.set_result(None)
            else:
                self._waiters.append((place, future))

    async def _write(self, records: Sequence[Written]) -> None:
        """Write records, and go on when they have been applied."""
        await self._read_to(await self._log.publish(records))

    async def _read_to(self, place: Place) -> None:
        if self._log.passed(place):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((place, future))
        await future

    # Steps

    async def _schedule(self) -> None:
        while True:
            self._wake.clear()
            now = self._clock().now
            for step in self._machine.due(now, _DELIVERIES - self._delivering):
                self._delivering += step.action is Action.DELIVER
                self._start(self._do(step))
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
        taken = CommitTaken(*self._claimant, self._claim, self._clock().wall)
        await self._write([Written(transaction.id, taken)])

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
                    transaction, lambda: self._clock().wall, lambda: self._still_ours(transaction)
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
        await self._write([Written(transaction.id, outcome)])
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

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        source = self._settings.sources.get(accepted.source)
        grace = limits.absent_grace if source is None or source.absent_grace is None else source.absent_grace
        limit = limits.wait_limit if source is None or source.wait_limit is None else source.wait_limit
        return Patience(grace, limit)

    def _log_answer(self, transaction_id: TransactionId, ae_title: str, references: int, status: int) -> None:
        facts = {"transaction": transaction_id.hex(), "calling_ae_title": ae_title, "instances": references}
        if status == SUCCESS:
            logger.info("commitment request accepted", **facts)
        else:
            logger.warning("commitment request refused", **facts, status=f"{status:04X}H")


def _parts(references: int) -> list[tuple[int, int]]:
    """Of a request, as many instances at a time as a record takes."""
    return [(at, at + MAX_REFERENCES) for at in range(0, references, MAX_REFERENCES)]


def _size(records: Sequence[Written]) -> int:
    """Bytes of records."""
    return sum(len(header) + len(payload) for header, payload in (record.encode() for record in records))
