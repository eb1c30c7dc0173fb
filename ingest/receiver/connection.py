"""One TCP connection pumps one association (PS3.8 9.1.1): bytes in, events handled in order, answers out.

The loop is `_pump`. It stands still while an answer is on its way or the byte budget is used up; what the
peer sends meanwhile stays in the spare buffer and then in TCP's window.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

import structlog

from ingest.association import (
    Aborted,
    Accepted,
    AssociateRequested,
    Association,
    CloseTransport,
    Event,
    Fragment,
    FragmentRun,
    ReleaseRequested,
    SendData,
    SendPdu,
    StartArtim,
    State,
    StopArtim,
)
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
from ingest.receiver.rate import RateMeter
from ingest.receiver.receiving import Peer, Receiving
from ingest.receiver.reports import Channel, Link, Reports
from ingest.receiver.sources import Grant, address_of, origin_of

if TYPE_CHECKING:
    from ingest.instance import ChunkPool, Share
    from ingest.receiver.server import Server
    from ingest.receiver.telemetry import AssociationTelemetry

logger = structlog.get_logger(__name__)

# One recv takes what the kernel has, up to this; twice as much gained nothing that could be measured. One buffer serves
# all connections, since what it holds is handled or kept before the next recv: it stays in the processor's cache.
RECEIVE_BUFFER = 256 * 1024
# What may arrive while an answer is on its way: a release or abort, or a pipelined request's beginning.
SPARE_BUFFER = 4 * 1024
# Events handled before other connections have their turn. Data comes as runs of many fragments, so this many are a flood
# of C-ECHOs or of tiny fragments: a buffer full of them is thousands, which would keep all others waiting for seconds.
EVENTS_A_TURN = 64


class Held:
    """Why the pump stands still: bits. Plain integers, since an ``enum.Flag`` costs 2 µs an operation."""

    NOT: Final = 0
    ANSWERING: Final = 1  # the log has not acknowledged yet; PS3.7 allows one operation at a time
    BUDGET: Final = 2  # no chunk is free
    WRITING: Final = 4  # the peer does not read its answers
    RATE: Final = 8  # its source has sent faster than it may
    TURN: Final = 16  # others first


class Connection(asyncio.BufferedProtocol):
    """A peer's connection, from accept to close."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        limits = server.settings
        self._association = Association(maximum_associate=limits.maximum_associate_length)
        self._assembler = MessageAssembler(
            CStoreRequest, NActionRequest, maximum_command=limits.maximum_command_length
        )
        self._spare = memoryview(b"")
        self._spared = 0  # bytes waiting in the spare buffer
        self._held: int = Held.NOT
        self._paused = False
        self._pumping = False
        # After a flood of small messages, no more of them are read at once than a turn handles.
        self._small_bites = False
        self._rest: Fragment | None = None  # what the budget has not let through
        self._transport: asyncio.Transport | None = None
        self._artim: asyncio.TimerHandle | None = None
        self._asked = False  # by an A-ASSOCIATE-RQ that could be read
        self._peer = Peer("", "", "")
        self._request: CStoreRequest | NActionRequest | None = None
        self._reports: Reports | None = None  # since the first N-ACTION
        self._record: AssociationTelemetry  # since the A-ASSOCIATE-RQ
        self._receiving: Receiving | None = None
        self._context_id = 0
        self._clock = PeerClock(limits)
        self._received = 0
        self._refused = 0
        self._grant: Grant | None = None  # while established
        self._chunks: ChunkPool | Share = server.pool  # since then, its source's share
        self._meter: RateMeter | None = None  # of a source that has a maximum rate
        self.established = False

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """An accepted connection: the association awaits its request under ARTIM."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.opened(self, address_of(transport)):
            self._server.telemetry.connection_refused(address_of(transport))
            self._transport.abort()
            return
        self._association.transport_opened()
        self._pump()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next bytes go: no more of a data set than there is room for, and held, no more than a few requests."""
        if not self._held:
            if self._receiving is None:
                server = self._server
                # Without an association PDUs are skipped that make no event, and so count for no turn.
                large = self.established and self._chunks.free and not (self._small_bites or server.turns)
                return server.receive_buffer if large and self._meter is None else server.small_buffer
            room = self._receiving.room
            if self._meter is not None:
                room = min(room, self._meter.bite)
            if room >= RECEIVE_BUFFER:
                return self._server.receive_buffer
            return self._server.receive_buffer[: max(room, SPARE_BUFFER)]
        if not self._spare:
            self._spare = memoryview(bytearray(SPARE_BUFFER))
        return self._spare[self._spared :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self._clock.heard(nbytes)
        if self._held:
            self._spared += nbytes
            self._pause()
        else:
            self._association.receive_data(self._server.receive_buffer[:nbytes])
            self._pump()
            if self._held:
                self._association.keep_unread()
            # Afterwards (Sta13) nothing is kept.
            if self._association.state is State.AWAITING_ASSOCIATE_RQ:
                self._server.requesting(self, nbytes)
        if self._meter is not None:
            self._throttle(self._meter, nbytes)

    def eof_received(self) -> bool:
        """The peer will send no more: close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the why changes nothing
        """The connection is gone, and with it whatever was not complete."""
        self._server.closed(self)
        fault = self._association.fault
        if fault is not None and not self._asked:
            self._server.telemetry.request_unreadable(self.address, fault)
        self._transport = None
        self._stop_artim()
        self._end("closed")
        self._association.transport_closed()
        self._held = Held.NOT
        self._pump()

    def pause_writing(self) -> None:
        """The peer does not read: it gets no more to answer."""
        self._held |= Held.WRITING
        self._clock.leaves_unread()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._clock.reads()
        self._release(Held.WRITING)

    # What the server calls

    @property
    def address(self) -> str:
        """The peer's; empty when it is gone."""
        return "" if self._transport is None else address_of(self._transport)

    def watch(self, now: float, *, late: bool) -> None:
        """Abort a peer that is silent or slow beyond its limits; ARTIM watches the rest.

        ``late``: we could not look or read for a while, so what the peer has sent may still wait to be read.
        """
        clock = self._clock
        if late:
            clock.excuse_reading(now)
        elif clock.reads_too_late(now):
            self._drop("does not read its answers")
            return
        if self._receiving is not None:
            self._receiving.keep_alive(now, self._server.settings.stall_timeout / 2)
        if late or self._held or not self.established:
            clock.excuse(now)
            return
        limits, draining = self._server.settings, self._server.admission.draining
        idle = limits.drain_idle if draining else limits.idle_timeout
        why = clock.overdue(now, in_message=self._assembler.in_message, idle=idle)
        if why and not (why == "idle" and self._awaits_report(now)):
            self.abort("shutdown" if draining and why == "idle" else why)

    def drain(self) -> None:
        """Let the peer come to its end within `receiver.drain_idle`; without one, abort now or when the message in progress is answered."""
        if self.established and self._server.settings.drain_idle:
            return  # `watch` ends it
        if not self._assembler.in_message and not self._held & ~(Held.RATE | Held.TURN):
            self.abort("shutdown")

    def abort(self, why: str) -> None:
        """A-ABORT by the service user (PS3.8 9.3.8), or the connection where there is no association."""
        if self._transport is None:
            return
        self._end(why)
        try:
            self._association.abort()
        except LocalProtocolError:
            self._transport.abort()
        else:
            self._held &= Held.WRITING
            self._pump()

    def _drop(self, why: str) -> None:
        """Close at once: nothing more would reach this peer, and a polite close waits for it."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    # The pump

    def _pump(self) -> None:
        if self._pumping:
            return  # an answer given at once: the loop below goes on with it, no deeper for each message
        self._pumping = True
        try:
            self._handle_events()
        finally:
            self._pumping = False
        if self._paused and not self._held:
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        if self._reports is not None:
            self._reports.turn()

    def _handle_events(self) -> None:
        association = self._association
        left = EVENTS_A_TURN
        while not self._held:
            if not left:
                self._wait_for_turn()
                break
            left -= 1
            event = association.next_event()
            if event is None:
                if not self._spared:
                    break
                spared, self._spared = self._spared, 0
                association.receive_data(self._spare[:spared])
            elif type(event) is Fragment:
                self._fragment(event)
            elif type(event) is FragmentRun:
                self._run(event)
            else:
                self._perform(event)

    def _wait_for_turn(self) -> None:
        self._held |= Held.TURN
        self._small_bites = True
        self._server.turns += 1
        self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._server.turns -= 1
        self._release(Held.TURN)

    def _perform(self, event: Event) -> None:
        if isinstance(event, SendPdu):
            if self._transport is not None:
                self._transport.write(event.pdu)
        elif isinstance(event, AssociateRequested):
            self._answer(event)
        elif isinstance(event, ReleaseRequested):
            self._association.release_response()
            self._end("released")
        elif isinstance(event, Aborted):
            fault = self._association.fault
            self._end(f"aborted: {fault}" if fault else "aborted by peer")
        elif isinstance(event, StartArtim):
            self._stop_artim()
            self._artim = self._loop.call_later(self._server.settings.artim_timeout, self._artim_expired)
        elif isinstance(event, StopArtim):
            self._stop_artim()
        elif self._transport is not None:
            self._perform_rarely(event, self._transport)

    def _perform_rarely(self, event: Event, transport: asyncio.Transport) -> None:
        if isinstance(event, SendData):
            transport.writelines(event.buffers)
        elif isinstance(event, CloseTransport):
            if transport.get_write_buffer_size():
                transport.abort()  # `close` would wait for a peer that does not read
            else:
                transport.close()

    def _answer(self, event: AssociateRequested) -> None:
        request = event.request
        self._asked = True
        assert self._transport is not None  # it brought the request
        admission, origin = self._server.admission, origin_of(self._transport)
        answer, grant = admission.answer(request, origin)
        self._record = self._server.telemetry.answered(
            request, answer, origin.address, draining=admission.draining
        )
        if isinstance(answer, Accepted):
            assert grant is not None
            self._peer = Peer(
                request.calling_ae_title, request.called_ae_title, origin.address, self._record.id
            )
            self._grant, self._meter, self._chunks = grant, grant.meter, grant.share
            self.established = True
            self._clock.begin()
            admission.established(grant)
            self._server.associated(self)
        self._association.answer(answer)

    def _fragment(self, fragment: Fragment) -> None:
        try:
            item = self._assembler.receive(fragment)
        except RemoteProtocolError as fault:
            self._association.abort(fault)
            return
        if item is fragment:
            self._data(fragment)
        elif item is not None:
            self._message(cast("MessageBegun", item))

    def _run(self, run: FragmentRun) -> None:
        try:
            wanted = self._assembler.receive_run(run)
        except RemoteProtocolError as fault:
            self._association.abort(fault)
            return
        if wanted is None:
            return
        assert self._receiving is not None
        taken = self._receiving.write_run(run.rows)
        if taken < len(run.rows):
            # The end of a chunk or of the budget: what is left goes as one fragment, which `_data` can cut.
            self._data(Fragment(run.context_id, False, False, memoryview(run.rows[taken:].tobytes())))

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

    def _begin(
        self, begun: MessageBegun, request: CStoreRequest | NActionRequest, receiving: Receiving
    ) -> None:
        self._request, self._receiving, self._context_id = request, receiving, begun.context_id
        self._clock.begin()

    def _store(self, begun: MessageBegun, request: CStoreRequest) -> None:
        if not begun.has_data_set:
            receiving = storage.without_data_set()
            self._begin(begun, request, receiving)
            self._finish(receiving)
            return
        contexts, grant = self._association.contexts, self._grant
        assert grant is not None
        receiving = self._server.storage.begin(
            request, contexts[begun.context_id], contexts, self._peer, grant, resume=self._budget_freed
        )
        self._begin(begun, request, receiving)

    def _action(self, begun: MessageBegun, request: NActionRequest) -> None:
        context = self._association.contexts[begun.context_id]
        service = self._server.commitment
        if self._reports is None:
            assert self._transport is not None  # it brought the request
            link = Link(self._association, self._transport, self._busy, self._pump)
            limits = service.settings
            self._reports = Reports(link, limits.answer_timeout, limits.association_lease)
        receiving = service.begin(request, context, self._peer, Channel(self._reports, context))
        self._begin(begun, request, receiving)
        if not begun.has_data_set:
            self._finish(receiving)

    def _awaits_report(self, now: float) -> bool:
        """Whether the peer is silent since a report is due to it here."""
        return self._reports is not None and self._reports.awaited(now)

    def _busy(self) -> bool:
        return bool(self._held) or self._assembler.in_message

    def _finish(self, receiving: Receiving) -> None:
        self._held |= Held.ANSWERING
        receiving.finish(self._answer_request)

    def _data(self, fragment: Fragment) -> None:
        receiving = self._receiving
        assert receiving is not None
        data = fragment.data
        taken = receiving.write(data)
        if taken < len(data):
            self._rest = fragment._replace(data=memoryview(bytes(data[taken:])))
            self._held |= Held.BUDGET
            self._pause()
        elif fragment.is_last:
            self._finish(receiving)

    def _answer_request(self, failure: Exception | None) -> None:
        request, receiving = self._request, self._receiving
        assert request is not None
        assert receiving is not None
        if failure is None and self._grant is not None:
            self._grant.stored(receiving.size)
        self._request = self._receiving = None
        reach(Failpoint.BEFORE_RESPONSE)
        if isinstance(request, NActionRequest):
            self._send(self._context_id, commitment.response(request, failure).encode())
        else:
            self._received += failure is None
            self._refused += failure is not None
            self._record.stored(request, receiving, failure, self._clock.begun, self._clock.last_byte)
            self._send(self._context_id, storage.response(request, failure))
        self._release(Held.ANSWERING)
        if self._server.admission.draining and not self._server.settings.drain_idle:
            self.abort("shutdown")

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

    def _budget_freed(self) -> None:
        # Called from within another connection's turn: its own pump must not run inside that one.
        self._loop.call_soon(self._retry)

    def _retry(self) -> None:
        rest, self._rest = self._rest, None
        if rest is None:
            self._chunks.pass_on()
            return
        self._held &= ~Held.BUDGET
        self._data(rest)
        self._release(Held.NOT)

    def _release(self, reason: int) -> None:
        self._held &= ~reason
        self._pump()

    def _throttle(self, meter: RateMeter, nbytes: int) -> None:
        wait = meter.take(nbytes, self._clock.last_byte)
        if wait > 0:
            self._held |= Held.RATE
            self._pause()
            self._loop.call_later(wait, self._release, Held.RATE)

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _artim_expired(self) -> None:
        self._artim = None
        if self._clock.unread:
            self._drop("does not read")
            return
        self._association.artim_expired()
        self._pump()

    def _stop_artim(self) -> None:
        if self._artim is not None:
            self._artim.cancel()
            self._artim = None

    def _end(self, how: str) -> None:
        """The association is over: what is incomplete is abandoned, and one line says how it went."""
        self._rest = None
        self._held &= Held.WRITING
        if self._reports is not None:
            self._reports.end()
            self._reports = None
        if self._receiving is not None:
            self._receiving.abandon()
            if isinstance(self._request, CStoreRequest):
                self._refused += self._record.interrupted(self._request, self._receiving)
            self._receiving = self._request = None
        if self.established:
            assert self._grant is not None
            self.established = False
            self._server.admission.ended(self._grant)
            self._grant = self._meter = None
            self._record.ended(
                how,
                received=self._received,
                refused=self._refused,
                oversized_pdus=self._association.oversized_pdus,
            )
