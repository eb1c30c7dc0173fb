"""From an N-ACTION to the status of its answer: success is said only when all that follows can follow from records.

Steps of a request: 1. fences durable in the instance log, 2. its instances and COMMIT_ACCEPTED durable in the commitment
log, 3. read back from there, which settles who was first where receivers share it, 4. N-ACTION-RSP with 0000H.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import structlog

from ingest.commitment.asking import Asking
from ingest.commitment.reading import aside
from ingest.commitment.rounds import fences_of
from ingest.commitment.transaction import Clock, promise_of
from ingest.commitment.transactions import Transactions
from ingest.contract.commitments import (
    MAX_PARTS,
    MAX_REFERENCES,
    CommitAccepted,
    CommitRequested,
    Reference,
    first_round,
)
from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.identifiers import TransactionId
from ingest.contract.settings import Settings
from ingest.dimse.status import DUPLICATE_TRANSACTION_UID, PROCESSING_FAILURE, RESOURCE_LIMITATION, SUCCESS
from ingest.errors import LogUnavailable, OutOfResources
from ingest.log import CommitmentLog, InstanceLog
from ingest.log.commitment_claimant import Claimant
from ingest.log.commitment_log import Location, Written

logger = structlog.get_logger(__name__)

_ASK_LIMIT: Final = 60.0  # s; then the peer is told that it failed
_SALT: Final = 8  # bytes


class CommitmentRequest(NamedTuple):
    """An N-ACTION, its UIDs checked; ``digest``: of its references."""

    transaction_id: TransactionId
    transaction_uid: str
    references: Sequence[Reference]
    calling_ae_title: str
    called_ae_title: str
    digest: bytes


class Accepting:
    """Answers requests; one that comes again while it is under way has the same answer."""

    def __init__(
        self,
        *,
        settings: Settings,
        instances: InstanceLog,
        log: CommitmentLog,
        machine: Transactions,
        asking: Asking,
        claimant: Claimant,
        claim: float,
        clock: Callable[[], Clock],
        read_to: Callable[[Location], Awaitable[None]],
    ) -> None:
        """``claim``: seconds for which an acceptance is ours; ``read_to``: returns when ``machine`` has that record."""
        self._settings = settings
        self._instances = instances
        self._log = log
        self._machine = machine
        self._asking = asking
        self._claimant = claimant
        self._claim = claim
        self._clock = clock
        self._read_to = read_to
        self._under_way: dict[TransactionId, tuple[bytes, asyncio.Future[int]]] = {}
        self._coming = 0  # bytes that requests under way may come to

    @property
    def under_way(self) -> int:
        """How many requests are not answered yet."""
        return len(self._under_way)

    def take_settings(self, settings: Settings) -> None:
        """Use these from now on."""
        self._settings = settings

    async def answer(self, request: CommitmentRequest) -> int:
        """The status for N-ACTION-RSP, see `Commitments.ask`."""
        transaction_id, digest = request.transaction_id, request.digest
        status = self._known(transaction_id, digest)
        if status is not None:
            return status
        if transaction_id in self._under_way:
            asked, answer = self._under_way[transaction_id]
            return await asyncio.shield(answer) if asked == digest else DUPLICATE_TRANSACTION_UID
        status = self._refusal(request.calling_ae_title)
        if status is not None:
            return status
        answer = asyncio.get_running_loop().create_future()
        self._under_way[transaction_id] = digest, answer
        status = PROCESSING_FAILURE
        try:
            status = await self._accept(request)
        finally:
            del self._under_way[transaction_id]
            answer.set_result(status)
        return status

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
        if len(self._machine) + len(self._under_way) >= self._settings.commitment.maximum_open:
            logger.warning("a commitment request is refused: too many transactions are open")
            return RESOURCE_LIMITATION
        if (reason := self._instances.refusal()) is not None:
            logger.warning("a commitment request is refused", reason=reason)
            return RESOURCE_LIMITATION
        _, source = self._asking.source_of(calling_ae_title)
        reachable = source is not None and (source.host or source.same_association)
        if self._settings.commitment.without_address == "refuse" and not reachable:
            logger.warning(
                "a commitment request is refused: its source has no return address in the settings",
                calling_ae_title=calling_ae_title,
            )
            return PROCESSING_FAILURE
        return None

    async def _accept(self, request: CommitmentRequest) -> int:
        transaction_id, count = request.transaction_id, len(request.references)
        fences = await aside(count, fences_of, request.references, self._instances.partitions)
        if len(fences) >= MAX_PARTS:
            return RESOURCE_LIMITATION
        accepted = self._accepted(request, len(fences))
        reach(Failpoint.ASKED)
        own_round = first_round(accepted.digest, accepted.salt)
        requested = [
            Written(transaction_id, CommitRequested(own_round, part), request.references[at:end])
            for part, (at, end) in enumerate(_parts(count))
        ]
        size = await aside(count, _size, requested)
        promise = promise_of(size, count, len(fences))
        self._coming += promise
        try:
            await self._log.make_room(size, self._machine.promised + self._coming)
            async with asyncio.timeout(_ASK_LIMIT):
                await self._asking.ask(transaction_id, request.calling_ae_title, own_round, fences)
                reach(Failpoint.FENCED)
                location = await self._log.publish([*requested, Written(transaction_id, accepted)])
                reach(Failpoint.ACCEPTED)
                await self._read_to(location)
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

    def _accepted(self, request: CommitmentRequest, parts: int) -> CommitAccepted:
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


def _parts(references: int) -> list[tuple[int, int]]:
    """Of a request, as many instances at a time as a record takes."""
    return [(at, at + MAX_REFERENCES) for at in range(0, references, MAX_REFERENCES)]


def _size(records: Sequence[Written]) -> int:
    """Bytes of records."""
    return sum(len(header) + len(payload) for header, payload in (record.encode() for record in records))
