"""The Storage Commitment Service Class as SCP (PS3.4 Annex J): requests checked, and answered once durable."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Final

import structlog

from ingest.association import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, AcceptedContext
from ingest.association.events import Rows
from ingest.commitment.interface import Commitments, ReportChannel
from ingest.contract.settings import CommitmentSettings
from ingest.dimse import NActionRequest, NActionResponse
from ingest.dimse.commitment_request import REQUEST_STORAGE_COMMITMENT, ActionInformation, parse_request
from ingest.dimse.status import (
    DUPLICATE_TRANSACTION_UID,
    NO_SUCH_ACTION,
    NO_SUCH_SOP_CLASS,
    NO_SUCH_SOP_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
)
from ingest.errors import Refused
from ingest.receiver.receiving import Drain, Peer, Receiving

logger = structlog.get_logger(__name__)

# Data sets of this many requests of the largest size may be in memory, all associations together.
_LARGEST_TOGETHER: Final = 4
# From here on a request is read in a thread, one at a time: this much takes some three milliseconds.
_READ_ASIDE: Final = 64 * 1024

_COMMENTS: Final = {
    DUPLICATE_TRANSACTION_UID: "Transaction UID is in use or used up",
    RESOURCE_LIMITATION: "too many open transactions, or no room for more",
    PROCESSING_FAILURE: "no way to deliver a report, or the log failed",
}


class CommitmentService:
    """Takes the data set of each N-ACTION request and turns what becomes of it into a response.

    Without ``commitments`` every request is refused. ``refused`` is told of each that is, and why.
    """

    def __init__(
        self,
        commitments: Commitments | None,
        settings: CommitmentSettings,
        refused: Callable[[Peer, Exception], None],
    ) -> None:
        self._commitments = commitments
        self._refused = refused
        self.settings = settings
        self._room = _LARGEST_TOGETHER * settings.maximum_request
        self._unfinished: set[_Collecting] = set()  # whose data sets have not come whole
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def offered(self) -> bool:
        """Whether the SOP Class is accepted."""
        return self._commitments is not None

    def begin(
        self, request: NActionRequest, context: AcceptedContext, peer: Peer, channel: ReportChannel
    ) -> Receiving:
        """What takes the data set of ``request``; reports go to ``channel``."""
        try:
            self._check(request, context)
        except Refused as refused:
            self.tell(peer, refused)
            return Drain(refused)
        return _Collecting(self, context, peer, channel)

    def _check(self, request: NActionRequest, context: AcceptedContext) -> None:
        if self._commitments is None or context.abstract_syntax != STORAGE_COMMITMENT:
            raise Refused(UNRECOGNIZED_OPERATION, "SOP Class has no N-ACTION")
        if request.requested_sop_class_uid != STORAGE_COMMITMENT:
            raise Refused(NO_SUCH_SOP_CLASS, "SOP Class is not that of the presentation context")
        if request.requested_sop_instance_uid != STORAGE_COMMITMENT_INSTANCE:
            raise Refused(NO_SUCH_SOP_INSTANCE, "not the well-known SOP Instance")
        if request.action_type_id != REQUEST_STORAGE_COMMITMENT:
            raise Refused(NO_SUCH_ACTION, "Action Type ID is not 1")

    def reserve(self, collecting: "_Collecting", size: int) -> bool:
        """Room for so many bytes more of its data set, if there is; of those not yet whole, who has more gives way."""
        self._unfinished.add(collecting)
        while size > self._room:
            largest = max(self._unfinished, key=_Collecting.held)
            if largest.held() <= collecting.held() + size:
                return False
            largest.give_way()
        self._room -= size
        return True

    def finished(self, collecting: "_Collecting") -> None:
        """Its data set has come whole, or will not."""
        self._unfinished.discard(collecting)

    def give_back(self, size: int) -> None:
        """So many bytes are not in memory any more."""
        self._room += size

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Keep it going until it is done, whether the peer waits for it or not."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def read(self, data: bytearray, context: AcceptedContext) -> ActionInformation:
        """What a data set asks for.

        Raises:
            Refused: see `parse_request`.
        """
        explicit, maximum = context.is_explicit, self.settings.maximum_references
        if len(data) < _READ_ASIDE:
            return parse_request(data, explicit=explicit, maximum=maximum)
        async with self._reading:
            return await asyncio.to_thread(parse_request, data, explicit=explicit, maximum=maximum)

    async def ask(self, asked: ActionInformation, peer: Peer, channel: ReportChannel) -> None:
        """Have a request made durable.

        Raises:
            Refused: it is not, and will not be.
        """
        assert self._commitments is not None  # `begin` refuses without
        status = await self._commitments.ask(
            asked.transaction_uid, asked.references, peer.calling_ae_title, peer.called_ae_title, channel
        )
        if status != SUCCESS:
            raise Refused(status, _COMMENTS.get(status, "not accepted"))

    def tell(self, peer: Peer, failure: Exception | None, references: int = 0) -> None:
        """What becomes of a request: its line in the log, and what an administrator is shown."""
        _log(peer, failure, references)
        if failure is not None:
            self._refused(peer, failure)


class _Collecting:
    """The data set of one request, in memory up to its limit; drained beyond."""

    size = 0
    room = sys.maxsize

    def __init__(
        self, service: CommitmentService, context: AcceptedContext, peer: Peer, channel: ReportChannel
    ) -> None:
        self._service = service
        self._context = context
        self._peer = peer
        self._channel = channel
        self._data = bytearray()
        self._refused: Refused | None = None
        self._done: Callable[[Exception | None], None] | None = None
        self._asking = False

    def write(self, data: memoryview) -> int:
        """Take all of it."""
        if self._refused is None:
            self._keep(data)
        return len(data)

    def write_run(self, rows: Rows) -> int:
        """Take all of them."""
        if self._refused is None:
            self._keep(memoryview(rows.tobytes()))
        return len(rows)

    def finish(self, done: Callable[[Exception | None], None]) -> None:
        """Read it and ask; ``done`` is called once the answer is known, unless the association is over by then."""
        if self._refused is not None:
            self._service.tell(self._peer, self._refused)
            done(self._refused)
            return
        self._service.finished(self)
        self._done = done
        self._asking = True
        self._service.start(self._ask())

    def keep_alive(self, now: float, limit: float) -> None:
        """The log has nothing of it yet."""

    def abandon(self) -> None:
        """Nobody waits for the answer any more; what was asked in full is asked all the same."""
        self._done = None
        if not self._asking:
            self._drop()

    def held(self) -> int:
        """How many bytes of it are in memory."""
        return len(self._data)

    def give_way(self) -> None:
        """Others get its room."""
        self._refuse("too many requests at the same time")

    def _keep(self, data: memoryview) -> None:
        limit = self._service.settings.maximum_request
        if len(self._data) + len(data) > limit:
            self._refuse(f"data set is longer than {limit} bytes")
        elif self._service.reserve(self, len(data)):
            self._data += data
        else:
            self.give_way()

    def _refuse(self, comment: str) -> None:
        self._drop()
        self._refused = Refused(RESOURCE_LIMITATION, comment)

    def _drop(self) -> None:
        self._service.finished(self)
        self._service.give_back(len(self._data))
        self._data = bytearray()

    async def _ask(self) -> None:
        failure: Exception | None = None
        references = 0
        try:
            asked = await self._service.read(self._data, self._context)
            references = len(asked.references)
            await self._service.ask(asked, self._peer, self._channel)
        except Refused as refused:
            failure = refused
        except Exception as error:
            logger.exception(
                "a commitment request failed",
                association=self._peer.association_id,
                calling_ae_title=self._peer.calling_ae_title,
            )
            failure = error
        finally:
            self._drop()
        self._service.tell(self._peer, failure, references)
        done, self._done = self._done, None
        if done is not None:
            done(failure)


def response(request: NActionRequest, failure: Exception | None) -> NActionResponse:
    """The N-ACTION-RSP to a request that was taken, or was not."""
    if failure is None:
        return request.respond()
    if isinstance(failure, Refused):
        return request.respond(failure.status, comment=failure.comment)
    return request.respond(PROCESSING_FAILURE, comment="internal error")


def _log(peer: Peer, failure: Exception | None, references: int = 0) -> None:
    line = logger.bind(
        association=peer.association_id,
        calling_ae_title=peer.calling_ae_title,
        peer=peer.address,
        references=references,
    )
    if failure is None:
        line.info("commitment asked")
    elif isinstance(failure, Refused):
        line.warning("commitment refused", status=f"{failure.status:04X}H", why=failure.comment)
    else:
        line.error("commitment refused", status=f"{PROCESSING_FAILURE:04X}H", why="internal error")
