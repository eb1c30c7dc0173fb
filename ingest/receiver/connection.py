"""One TCP connection pumps one association (PS3.8 9.1.1): bytes in, events handled in order, answers out.

The loop is `pump`. It stands still while an answer is on its way or the byte budget is used up; what the
peer sends meanwhile stays in the spare buffer and then in TCP's window.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

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
from ingest.errors import LocalProtocolError
from ingest.receiver.clock import PeerClock
from ingest.receiver.operations import Operations
from ingest.receiver.rate import RateMeter
from ingest.receiver.receiving import Peer
from ingest.receiver.sources import address_of, origin_of

if TYPE_CHECKING:
    from ingest.receiver.server import Server

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
        self.association = Association(maximum_associate=limits.maximum_associate_length)
        self._operations: Operations | None = None  # while established
        self._spare = memoryview(b"")
        self._spared = 0  # bytes waiting in the spare buffer
        self._held: int = Held.NOT
        self._paused = False
        self._pumping = False
        # After a flood of small messages, no more of them are read at once than a turn handles.
        self._small_bites = False
        self.transport: asyncio.Transport | None = None
        self._artim: asyncio.TimerHandle | None = None
        self._asked = False  # by an A-ASSOCIATE-RQ that could be read
        self.clock = PeerClock(limits)
        self._meter: RateMeter | None = None  # of a source that has a maximum rate, while established

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """An accepted connection: the association awaits its request under ARTIM."""
        self.transport = cast("asyncio.Transport", transport)
        if not self._server.opened(self, address_of(transport)):
            self._server.telemetry.connection_refused(address_of(transport))
            self.transport.abort()
            return
        self.association.transport_opened()
        self.pump()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next bytes go: no more of a data set than there is room for, and held, no more than a few requests."""
        if not self._held:
            server, operations = self._server, self._operations
            # Without an association PDUs are skipped that make no event, and so count for no turn.
            if operations is None:
                return server.small_buffer
            if operations.receiving is None:
                large = operations.grant.share.free and not (self._small_bites or server.turns)
                return server.receive_buffer if large and self._meter is None else server.small_buffer
            room = operations.receiving.room
            if self._meter is not None:
                room = min(room, self._meter.bite)
            if room >= RECEIVE_BUFFER:
                return server.receive_buffer
            return server.receive_buffer[: max(room, SPARE_BUFFER)]
        if not self._spare:
            self._spare = memoryview(bytearray(SPARE_BUFFER))
        return self._spare[self._spared :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self.clock.heard(nbytes)
        if self._held:
            self._spared += nbytes
            self._pause()
        else:
            self.association.receive_data(self._server.receive_buffer[:nbytes])
            self.pump()
            if self._held:
                self.association.keep_unread()
            # Afterwards (Sta13) nothing is kept.
            if self.association.state is State.AWAITING_ASSOCIATE_RQ:
                self._server.requesting(self, nbytes)
        if self._meter is not None:
            self._throttle(self._meter, nbytes)

    def eof_received(self) -> bool:
        """The peer will send no more: close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the why changes nothing
        """The connection is gone, and with it whatever was not complete."""
        self._server.closed(self)
        fault = self.association.fault
        if fault is not None and not self._asked:
            self._server.telemetry.request_unreadable(self.address, fault)
        self.transport = None
        self._stop_artim()
        self._end("closed")
        self.association.transport_closed()
        self._held = Held.NOT
        self.pump()

    def pause_writing(self) -> None:
        """The peer does not read: it gets no more to answer."""
        self._held |= Held.WRITING
        self.clock.leaves_unread()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.clock.reads()
        self._release(Held.WRITING)

    # What the server calls

    @property
    def address(self) -> str:
        """The peer's; empty when it is gone."""
        return "" if self.transport is None else address_of(self.transport)

    def watch(self, now: float, *, late: bool) -> None:
        """Abort a peer that is silent or slow beyond its limits; ARTIM watches the rest.

        ``late``: we could not look or read for a while, so what the peer has sent may still wait to be read.
        """
        clock = self.clock
        if late:
            clock.excuse_reading(now)
        elif clock.reads_too_late(now):
            self._drop("does not read its answers")
            return
        operations = self._operations
        if operations is not None and operations.receiving is not None:
            operations.receiving.keep_alive(now, self._server.settings.stall_timeout / 2)
        if late or self._held or operations is None:
            clock.excuse(now)
            return
        limits, draining = self._server.settings, self._server.admission.draining
        idle = limits.drain_idle if draining else limits.idle_timeout
        why = clock.overdue(now, in_message=operations.in_message, idle=idle)
        if why and not (why == "idle" and operations.awaits_report(now)):
            self.abort("shutdown" if draining and why == "idle" else why)

    def drain(self) -> None:
        """Let the peer come to its end within `receiver.drain_idle`; without one, abort now or when the message in progress is answered."""
        operations = self._operations
        if operations is not None and self._server.settings.drain_idle:
            return  # `watch` ends it
        in_message = operations is not None and operations.in_message
        if not in_message and not self._held & ~(Held.RATE | Held.TURN):
            self.abort("shutdown")

    def abort(self, why: str) -> None:
        """A-ABORT by the service user (PS3.8 9.3.8), or the connection where there is no association."""
        if self.transport is None:
            return
        self._end(why)
        try:
            self.association.abort()
        except LocalProtocolError:
            self.transport.abort()
        else:
            self._held &= Held.WRITING
            self.pump()

    def _drop(self, why: str) -> None:
        """Close at once: nothing more would reach this peer, and a polite close waits for it."""
        self._end(why)
        if self.transport is not None:
            self.transport.abort()

    # What its operations call

    @property
    def held(self) -> bool:
        """Whether the pump stands still."""
        return self._held != Held.NOT

    def wait_for_response(self) -> None:
        """A request is complete, and none other is handled until its response."""
        self._held |= Held.ANSWERING

    def responded(self) -> None:
        """The response is on its way."""
        self._release(Held.ANSWERING)
        if self._server.admission.draining and not self._server.settings.drain_idle:
            self.abort("shutdown")

    def wait_for_budget(self) -> None:
        """There is no room for more of a data set."""
        self._held |= Held.BUDGET
        self.clock.waits()
        self._pause()

    def budget_freed(self) -> None:
        """There is again."""
        self.clock.goes_on()
        self._release(Held.BUDGET)

    # The pump

    def pump(self) -> None:
        """Handle what has come, until something is to be waited for."""
        if self._pumping:
            return  # an answer given at once: the loop below goes on with it, no deeper for each message
        self._pumping = True
        try:
            self._handle_events()
        finally:
            self._pumping = False
        if self._paused and not self._held:
            self._paused = False
            if self.transport is not None:
                self.transport.resume_reading()
        if self._operations is not None:
            self._operations.turn()

    def _handle_events(self) -> None:
        association = self.association
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
                assert self._operations is not None  # no data without an association
                self._operations.fragment(event)
            elif type(event) is FragmentRun:
                assert self._operations is not None
                self._operations.run(event)
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
            if self.transport is not None:
                self.transport.write(event.pdu)
        elif isinstance(event, AssociateRequested):
            self._answer(event)
        elif isinstance(event, ReleaseRequested):
            self.association.release_response()
            self._end("released")
        elif isinstance(event, Aborted):
            fault = self.association.fault
            self._end(f"aborted: {fault}" if fault else "aborted by peer")
        elif isinstance(event, StartArtim):
            self._stop_artim()
            self._artim = self._loop.call_later(self._server.settings.artim_timeout, self._artim_expired)
        elif isinstance(event, StopArtim):
            self._stop_artim()
        elif self.transport is not None:
            self._perform_rarely(event, self.transport)

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
        assert self.transport is not None  # it brought the request
        admission, origin = self._server.admission, origin_of(self.transport)
        answer, grant = admission.answer(request, origin)
        record = self._server.telemetry.answered(request, answer, origin.address, draining=admission.draining)
        if isinstance(answer, Accepted):
            assert grant is not None
            peer = Peer(request.calling_ae_title, request.called_ae_title, origin.address, record.id)
            self._operations = Operations(self, self._server.services, peer, grant, record)
            self._meter = grant.meter
            self.clock.begin()
            admission.established(grant)
            self._server.associated(self)
        self.association.answer(answer)

    def _release(self, reason: int) -> None:
        self._held &= ~reason
        self.pump()

    def _throttle(self, meter: RateMeter, nbytes: int) -> None:
        wait = meter.take(nbytes, self.clock.last_byte)
        if wait > 0:
            self._held |= Held.RATE
            self._pause()
            self._loop.call_later(wait, self._release, Held.RATE)

    def _pause(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def _artim_expired(self) -> None:
        self._artim = None
        if self.clock.unread:
            self._drop("does not read")
            return
        self.association.artim_expired()
        self.pump()

    def _stop_artim(self) -> None:
        if self._artim is not None:
            self._artim.cancel()
            self._artim = None

    def _end(self, how: str) -> None:
        """The association is over, if there was one."""
        self._held &= Held.WRITING
        operations, self._operations = self._operations, None
        if operations is not None:
            self._meter = None
            self._server.admission.ended(operations.grant)
            self._server.dissociated(self)
            operations.end(how)
