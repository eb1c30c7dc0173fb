"""The report of a decided transaction: what it says, and how it gets to the peer (PS3.4 J.3.3)."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

from ingest.commitment.deliveries import (
    ASSOCIATION_GONE,
    NO_ADDRESS,
    NO_ANSWER,
    NO_ASSOCIATION,
    NOWHERE,
    REFUSED,
    WRONG_PROOF,
)
from ingest.commitment.interface import ReportChannel
from ingest.commitment.reading import aside, known_of
from ingest.commitment.rounds import ProofsDoNotFit, Verdict, split_report
from ingest.commitment.transaction import NEVER, Clock, Transaction
from ingest.contract.commitments import CommitAccepted, CommitAttempted, CommitClosed, Found
from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.identifiers import TransactionId
from ingest.contract.settings import Settings, SourceSettings
from ingest.contract.tls import WrongCertificate
from ingest.dimse.status import is_failure
from ingest.log import CommitmentLog
from ingest.sender import AssociationFailed, NoAnswer, Peer
from ingest.sender.tls import ClientTls, tls_of

logger = structlog.get_logger(__name__)

_SLACK: Final = 20.0  # s beside two answers: connect, negotiate, release
_ENDING: Final = 10.0  # s of it, to release and close
_DOUBLINGS: Final = 40
# Instances of verdicts that wait in memory for their report: 50 MB; others are read again.
_KEPT: Final = 200_000


class NotOurs(Exception):  # noqa: N818 - states what was found
    """Another receiver has claimed the transaction meanwhile, and reports it."""


class Reporter(Protocol):
    """Sends one N-EVENT-REPORT on an association of its own, and returns the peer's status."""

    async def __call__(
        self,
        peer: Peer,
        transaction_uid: str,
        committed: Sequence[Found],
        failed: Sequence[Found],
        retrieve_ae_title: str,
        *,
        propose_role: bool,
        within: float,
    ) -> int:
        """Send it; once there is an answer, it takes no more than `_ENDING` seconds beyond ``within``.

        Raises:
            NoAnswer: there was an association, and it ended or was silent instead of an answer.
            AssociationFailed, TimeoutError: there was none. In all cases it is not known to be taken.
        """
        ...


def longest_report(settings: Settings) -> float:
    """Seconds that one report may take at most."""
    return 2 * settings.commitment.answer_timeout + settings.commitment.hold + _SLACK


def source_of(settings: Settings, accepted: CommitAccepted) -> SourceSettings | None:
    """Who asked: the source that has its AE title by now, under whatever name, else the one of the name that it had."""
    found = settings.source_of_ae_title(accepted.calling_ae_title)
    return settings.sources.get(accepted.source) if found is None else found[1]


class Reporting:
    """Delivers, and says what is to be written of it."""

    def __init__(self, settings: Settings, log: CommitmentLog, report: Reporter) -> None:
        self._settings = settings
        self._log = log
        self._report = report
        self._channels: dict[TransactionId, ReportChannel] = {}
        self._verdicts: OrderedDict[TransactionId, tuple[bytes, Verdict]] = OrderedDict()
        self._kept = 0  # instances in them
        # Of reports in parts: how many instances the peer has taken, and is not told of again by this process.
        self._told: dict[TransactionId, int] = {}

    def take_settings(self, settings: Settings) -> None:
        """Use these from now on."""
        self._settings = settings

    def keep_channel(self, transaction_id: TransactionId, channel: ReportChannel) -> None:
        """The association that brought the request, until it is gone or the transaction closed."""
        self.forget(transaction_id)  # a repeated request may have come on another
        self._channels[transaction_id] = channel
        channel.keep()

    def keep_verdict(self, transaction_id: TransactionId, verdict: Verdict, digest: bytes) -> None:
        """What the next report will say, so that it need not be read again; the oldest make room."""
        self._take_verdict(transaction_id)
        self._verdicts[transaction_id] = digest, verdict
        self._kept += _size(verdict)
        while self._kept > _KEPT:
            self._take_verdict(next(iter(self._verdicts)))

    def forget(self, transaction_id: TransactionId) -> None:
        """It is closed, or asked again."""
        self._take_verdict(transaction_id)
        self._told.pop(transaction_id, None)
        self._let_go(transaction_id)

    def _let_go(self, transaction_id: TransactionId) -> None:
        channel = self._channels.pop(transaction_id, None)
        if channel is not None:
            channel.let_go()

    def has_channel(self, transaction_id: TransactionId) -> bool:
        """Whether there is an association to report it on."""
        return transaction_id in self._channels

    def wants_channel(self, source: SourceSettings | None) -> bool:
        """Whether a report is first tried on the association that brought the request."""
        return source is None or source.same_association or not source.host

    async def deliver(
        self, transaction: Transaction, clock: Callable[[], Clock], still_ours: Callable[[], Awaitable[bool]]
    ) -> CommitClosed | CommitAttempted:
        """One try, of all reports where there are several; ``still_ours`` is asked before each.

        Raises:
            LogUnavailable: the report cannot be made now; nothing was sent.
            NotOurs: it is another's to send, or the rest of it.
        """
        accepted = transaction.accepted
        assert accepted is not None
        try:
            verdict = await self._verdict(transaction)
        except ProofsDoNotFit as error:
            facts = {"transaction": transaction.id.hex(), "error": str(error)}
            logger.error("a commitment report cannot be made any more", **facts)  # noqa: TRY400 - it says all
            return self._attempted(transaction, WRONG_PROOF, clock())
        source = source_of(self._settings, accepted)
        limit = source.report_limit if source else 0
        reports = deque(split_report(verdict, limit, self._told.get(transaction.id, 0)))
        reach(Failpoint.BEFORE_REPORT)
        problem = await self._send(transaction, source, reports, still_ours)
        if not problem:
            reach(Failpoint.REPORTED)
            return CommitClosed("reported", len(verdict.committed), len(verdict.failed), clock().wall)
        return self._attempted(transaction, problem, clock())

    async def _verdict(self, transaction: Transaction) -> Verdict:
        """What was decided.

        Raises:
            ProofsDoNotFit: it cannot be told from the log any more.
        """
        accepted, decided = transaction.accepted, transaction.decided
        assert accepted is not None
        assert decided is not None
        digest, verdict = self._take_verdict(transaction.id) or (None, None)
        if verdict is not None and digest == decided.digest:
            return verdict
        known = await known_of(self._log, transaction, decided.round)
        verdict = await aside(accepted.references, known.findings.verdict)
        if known.lost or await aside(accepted.references, verdict.digest) != decided.digest:
            raise ProofsDoNotFit("the proofs are not those of the decision")
        return verdict

    def _take_verdict(self, transaction_id: TransactionId) -> tuple[bytes, Verdict] | None:
        kept = self._verdicts.pop(transaction_id, None)
        if kept is not None:
            self._kept -= _size(kept[1])
        return kept

    async def _send(
        self,
        transaction: Transaction,
        source: SourceSettings | None,
        reports: deque[Verdict],
        still_ours: Callable[[], Awaitable[bool]],
    ) -> str:
        """Why it was not taken; empty when it was."""
        without_address = NO_ADDRESS
        # Meanwhile it may have asked on another.
        while (channel := self._channels.get(transaction.id)) is not None:
            problem = await self._send_on_channel(transaction, channel, reports, still_ours)
            if problem is not None:
                return problem
            without_address = ASSOCIATION_GONE
        if source is None or not source.host:
            return without_address
        return await self._send_on_new(transaction, source, reports, still_ours)

    async def _send_on_channel(
        self,
        transaction: Transaction,
        channel: ReportChannel,
        reports: deque[Verdict],
        still_ours: Callable[[], Awaitable[bool]],
    ) -> str | None:
        """The same; None when the association is gone, or not idle for too long."""
        accepted = transaction.accepted
        assert accepted is not None
        limits = self._settings.commitment
        try:
            while reports:
                committed, failed = reports[0]
                if not await still_ours():
                    raise NotOurs
                async with asyncio.timeout(limits.hold + limits.answer_timeout):
                    status = await channel.report(
                        accepted.transaction_uid, committed, failed, limits.retrieve_ae_title
                    )
                if status is None:
                    self._drop_channel(transaction, channel)
                    return None
                if is_failure(status):
                    return REFUSED
                self._taken(transaction, reports)
        except TimeoutError:
            self._drop_channel(transaction, channel)
            return None
        return ""

    async def _send_on_new(
        self,
        transaction: Transaction,
        source: SourceSettings,
        reports: deque[Verdict],
        still_ours: Callable[[], Awaitable[bool]],
    ) -> str:
        accepted = transaction.accepted
        assert accepted is not None
        limits = self._settings.commitment
        try:
            tls = await asyncio.to_thread(tls_of, source) if source.tls else None
        except WrongCertificate as error:
            logger.error("no TLS for commitment reports", source=accepted.source, why=str(error))  # noqa: TRY400 - it says all
            return NO_ASSOCIATION
        peer = _peer_of(source, accepted, limits.answer_timeout, tls)
        while reports:
            committed, failed = reports[0]
            if not await still_ours():
                raise NotOurs
            try:
                status = await self._report(
                    peer,
                    accepted.transaction_uid,
                    committed,
                    failed,
                    limits.retrieve_ae_title,
                    propose_role=source.propose_role,
                    within=longest_report(self._settings) - _ENDING,
                )
            except NoAnswer:
                logger.info("a commitment report was not answered", peer=str(peer))
                return NO_ANSWER
            except (AssociationFailed, TimeoutError, OSError) as error:
                logger.info(
                    "no association for a commitment report", peer=str(peer), error=type(error).__name__
                )
                return NO_ASSOCIATION
            if is_failure(status):
                logger.info("a commitment report was not taken", peer=str(peer), status=f"{status:04X}H")
                return REFUSED
            self._taken(transaction, reports)
        return ""

    def _taken(self, transaction: Transaction, reports: deque[Verdict]) -> None:
        """The peer has the first: whatever becomes of the others, it is not sent again."""
        told = self._told.get(transaction.id, 0)
        self._told[transaction.id] = told + _size(reports.popleft())

    def _drop_channel(self, transaction: Transaction, channel: ReportChannel) -> None:
        """The association of the request is of no more use."""
        if self._channels.get(transaction.id) is channel:
            self._let_go(transaction.id)
            transaction.held = False

    def _attempted(self, transaction: Transaction, problem: str, clock: Clock) -> CommitAttempted:
        limits = self._settings.commitment
        attempts = (transaction.attempted.attempts if transaction.attempted else 0) + 1
        tried_for = clock.now - transaction.tried_since
        if problem in (*NOWHERE, WRONG_PROOF) or tried_for >= limits.retry_limit:
            wait = NEVER
        else:
            wait = min(limits.retry_first * 2.0 ** min(attempts - 1, _DOUBLINGS), limits.retry_longest)
        return CommitAttempted(attempts, problem, wait, clock.wall)


def _peer_of(
    source: SourceSettings, accepted: CommitAccepted, answer_timeout: float, tls: ClientTls | None
) -> Peer:
    """Where a source takes reports; unless it says otherwise, the two AE titles of its request change places."""
    return Peer(
        source.host,
        source.port,
        source.called_ae_title or accepted.calling_ae_title,
        source.calling_ae_title or accepted.called_ae_title,
        answer_timeout,
        tls,
    )


def _size(verdict: Verdict) -> int:
    return len(verdict.committed) + len(verdict.failed)
