"""The operations that a peer asks for on one association (PS3.7): each request to its service, its outcome into a response."""

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import structlog

from ingest.association import Association, Fragment, FragmentRun
from ingest.contract.failpoints import Failpoint, reach
from ingest.dimse import (
    CEchoRequest,
    CStoreRequest,
    MessageAssembler,
    MessageBegun,
    NActionRequest,
    NEventReportRequest,
    NEventReportResponse,
    UnknownRequest,
)
from ingest.dimse.status import UNRECOGNIZED_OPERATION
from ingest.errors import LocalProtocolError, RemoteProtocolError
from ingest.receiver import commitment, storage
from ingest.receiver.clock import PeerClock
from ingest.receiver.commitment import CommitmentService
from ingest.receiver.receiving import Peer, Receiving
from ingest.receiver.reports import Channel, Link, Reports
from ingest.receiver.sources import Grant
from ingest.receiver.storage import StorageService

if TYPE_CHECKING:
    from ingest.receiver.telemetry import AssociationTelemetry

logger = structlog.get_logger(__name__)


class Carrier(Protocol):
    """What operations need of the connection that carries them."""

    association: Association
    clock: PeerClock
    transport: asyncio.Transport | None

    @property
    def held(self) -> bool:
        """Whether the pump stands still."""

    def pump(self) -> None:
        """Handle what has come, until something is to be waited for."""

    def wait_for_response(self) -> None:
        """A request is complete, and none other is handled until its response."""

    def responded(self) -> None:
        """The response is on its way."""

    def wait_for_budget(self) -> None:
        """There is no room for more of a data set."""

    def budget_freed(self) -> None:
        """There is again."""


class Services(NamedTuple):
    """Who takes requests."""

    storage: StorageService
    commitment: CommitmentService
    maximum_command: int  # bytes of a command set


class Operations:
    """One at a time: while a response is due, or there is no room for more of a data set, the ``connection`` is told to wait."""

    def __init__(
        self,
        connection: Carrier,
        services: Services,
        peer: Peer,
        grant: Grant,
        record: "AssociationTelemetry",
    ) -> None:
        self._connection = connection
        self._services = services
        self._association = connection.association
        self._clock = connection.clock
        self._peer = peer
        self.grant = grant
        self._record = record
        self._assembler = MessageAssembler(
            CStoreRequest, NActionRequest, maximum_command=services.maximum_command
        )
        self._request: CStoreRequest | NActionRequest | None = None
        self._context_id = 0
        self.receiving: Receiving | None = None  # of the request
        self._rest: Fragment | None = None  # of its data set: what there has been no room for
        self._reports: Reports | None = None  # since the first N-ACTION
        self._received = 0
        self._refused = 0

    @property
    def in_message(self) -> bool:
        """Whether the peer is in the middle of a message."""
        return self._assembler.in_message

    def fragment(self, fragment: Fragment) -> None:
        """A fragment of a command set or of a data set."""
        try:
            item = self._assembler.receive(fragment)
        except RemoteProtocolError as fault:
            self._association.abort(fault)
            return
        if item is fragment:
            self._data(fragment)
        elif item is not None:
            self._message(cast("MessageBegun", item))

    def run(self, run: FragmentRun) -> None:
        """Many fragments of a data set, none of them the last."""
        try:
            wanted = self._assembler.receive_run(run)
        except RemoteProtocolError as fault:
            self._association.abort(fault)
            return
        if wanted is None:
            return
        assert self.receiving is not None
        taken = self.receiving.write_run(run.rows)
        if taken < len(run.rows):
            # The end of a chunk or of the budget: what is left goes as one fragment, which `_data` can cut.
            self._data(Fragment(run.context_id, False, False, memoryview(run.rows[taken:].tobytes())))

    def turn(self) -> None:
        """Send the report that is due, if the association is idle."""
        if self._reports is not None:
            self._reports.turn()

    def awaits_report(self, now: float) -> bool:
        """Whether the peer is silent since a report is due to it here."""
        return self._reports is not None and self._reports.awaited(now)

    def end(self, how: str) -> None:
        """The association is over: what is incomplete is abandoned, and one line says how it went."""
        self._rest = None
        if self._reports is not None:
            self._reports.end()
            self._reports = None
        if self.receiving is not None:
            self.receiving.abandon()
            if isinstance(self._request, CStoreRequest):
                self._refused += self._record.interrupted(self._request, self.receiving)
            self.receiving = self._request = None
        self._record.ended(
            how,
            received=self._received,
            refused=self._refused,
            oversized_pdus=self._association.oversized_pdus,
        )

    # A request

    def _message(self, begun: MessageBegun) -> None:
        message = begun.message
        if isinstance(message, CStoreRequest):
            self._store(begun, message)
        elif isinstance(message, NActionRequest):
            self._action(begun, message)
        elif isinstance(message, CEchoRequest | UnknownRequest):
            self._send(begun.context_id, message.respond().encode())
        elif isinstance(message, NEventReportRequest):
            self._send(begun.context_id, message.respond(UNRECOGNIZED_OPERATION).encode())
        elif isinstance(message, NEventReportResponse) and self._reports is not None:
            self._reports.answered(message)
        # Another response answers nothing that was asked here, and is passed over.

    def _store(self, begun: MessageBegun, request: CStoreRequest) -> None:
        if not begun.has_data_set:
            receiving = storage.without_data_set()
            self._begin(begun, request, receiving)
            self._finish(receiving)
            return
        contexts = self._association.contexts
        receiving = self._services.storage.begin(
            request, contexts[begun.context_id], contexts, self._peer, self.grant, resume=self._budget_freed
        )
        self._begin(begun, request, receiving)

    def _action(self, begun: MessageBegun, request: NActionRequest) -> None:
        context = self._association.contexts[begun.context_id]
        service = self._services.commitment
        if self._reports is None:
            connection = self._connection
            assert connection.transport is not None  # it brought the request
            link = Link(self._association, connection.transport, self._busy, connection.pump)
            limits = service.settings
            self._reports = Reports(link, limits.answer_timeout, limits.association_lease)
        receiving = service.begin(request, context, self._peer, Channel(self._reports, context))
        self._begin(begun, request, receiving)
        if not begun.has_data_set:
            self._finish(receiving)

    def _begin(
        self, begun: MessageBegun, request: CStoreRequest | NActionRequest, receiving: Receiving
    ) -> None:
        self._request, self.receiving, self._context_id = request, receiving, begun.context_id
        self._clock.begin()

    def _busy(self) -> bool:
        return self._connection.held or self._assembler.in_message

    # Its data set

    def _data(self, fragment: Fragment) -> None:
        receiving = self.receiving
        assert receiving is not None
        data = fragment.data
        taken = receiving.write(data)
        if taken < len(data):
            self._rest = fragment._replace(data=memoryview(bytes(data[taken:])))
            self._connection.wait_for_budget()
        elif fragment.is_last:
            self._finish(receiving)

    def _budget_freed(self) -> None:
        # Called from within another connection's turn: its own pump must not run inside that one.
        asyncio.get_running_loop().call_soon(self._retry)

    def _retry(self) -> None:
        rest, self._rest = self._rest, None
        if rest is None:
            self.grant.share.pass_on()
            return
        self._data(rest)
        if self._rest is None:
            self._connection.budget_freed()

    # Its response

    def _finish(self, receiving: Receiving) -> None:
        self._connection.wait_for_response()
        receiving.finish(self._respond)

    def _respond(self, failure: Exception | None) -> None:
        request, receiving = self._request, self.receiving
        assert request is not None
        assert receiving is not None
        if failure is None:
            self.grant.stored(receiving.size)
        self._request = self.receiving = None
        reach(Failpoint.BEFORE_RESPONSE)
        if isinstance(request, NActionRequest):
            response = commitment.response(request, failure).encode()
        else:
            self._received += failure is None
            self._refused += failure is not None
            self._record.stored(request, receiving, failure, self._clock.begun, self._clock.last_byte)
            response = storage.response(request, failure)
        self._send(self._context_id, response)
        self._connection.responded()

    def _send(self, context_id: int, command: bytes) -> None:
        try:
            self._association.send_command(context_id, command)
        except LocalProtocolError:
            # The peer has released while its last answer was due (Sta8 allows it) or is gone.
            logger.info(
                "answer without association",
                association=self._peer.association_id,
                calling_ae_title=self._peer.calling_ae_title,
            )
