"""One association, requestor or acceptor: the bytes of the peer in, events and effects out (PS3.8 9.2).

The driver's loop is the same on both sides::

    association.receive_data(view)
    while (event := association.next_event()) is not None:
        ...  # act on it; calls below may add further events
    # only now may the memory behind view be used again

No socket, no clock, no thread: the driver performs the effects and calls back what happened.
"""

from collections import deque
from collections.abc import Mapping

from ingest.association import pdu as pdus
from ingest.association.buffer import ReceiveBuffer
from ingest.association.events import (
    Aborted,
    AbortedBy,
    AssociateAccepted,
    AssociateRequested,
    CloseTransport,
    Connect,
    Event,
    Indication,
    Rejected,
    Released,
    ReleaseRequested,
    SendData,
    SendPdu,
    StartArtim,
    StopArtim,
)
from ingest.association.negotiation import AcceptedContext, Answer, confirm, send_limit
from ingest.association.p_data import encode_command, encode_data_set
from ingest.association.pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ReleaseRequest,
    ReleaseResponse,
)
from ingest.association.pdu_items import invalid
from ingest.association.transitions import TRANSITIONS, Action, Effect, Evt, State
from ingest.errors import AbortReason, AbortSource, LocalProtocolError, RemoteProtocolError

_RECEIVED = {
    pdus.ASSOCIATE_RQ: Evt.ASSOCIATE_RQ_RECEIVED,
    pdus.ASSOCIATE_AC: Evt.ASSOCIATE_AC_RECEIVED,
    pdus.ASSOCIATE_RJ: Evt.ASSOCIATE_RJ_RECEIVED,
    pdus.P_DATA_TF: Evt.P_DATA_RECEIVED,
    pdus.RELEASE_RQ: Evt.RELEASE_RQ_RECEIVED,
    pdus.RELEASE_RP: Evt.RELEASE_RP_RECEIVED,
    pdus.ABORT: Evt.ABORT_RECEIVED,
}


class Association:
    """The Upper Layer service of one transport connection.

    Without ``request`` it is an acceptor; with one, a requestor that will send it.

    ``maximum_associate`` is the PDU-length, in bytes, of an A-ASSOCIATE that is still taken.

    Raises:
        LocalProtocolError: ``request`` sets no maximum length, so a PDU of any length would have to be taken. And from
            each method: what it is about cannot happen in this state (an empty cell of Table 9-10).
    """

    def __init__(
        self,
        request: AssociateRequest | None = None,
        *,
        maximum_associate: int = pdus.MAX_ASSOCIATE_LENGTH,
    ) -> None:
        if request is not None and not request.user_information.maximum_length:
            raise LocalProtocolError("a request must announce a maximum length, and not 0")
        self._request = request
        self._maximum_associate = maximum_associate
        self._state = State.IDLE
        self._buffer = ReceiveBuffer()
        self._events: deque[Event] = deque()
        self._delivering = False  # P-DATA goes to the user now: Sta6 and Sta7
        self._contexts: Mapping[int, AcceptedContext] = {}
        self._send_limit = 0
        self._fault: RemoteProtocolError | None = None
        self._response_waits = False

    @property
    def state(self) -> State:
        """The state of Tables 9-1 to 9-5."""
        return self._state

    @property
    def contexts(self) -> Mapping[int, AcceptedContext]:
        """The accepted presentation contexts by ID, once established."""
        return self._contexts

    @property
    def maximum_send_length(self) -> int:
        """The PDU-length that our P-DATA-TF PDUs may have, once established."""
        return self._send_limit

    @property
    def oversized_pdus(self) -> int:
        """How many P-DATA-TF PDUs were longer than we announced, and yet taken; for the log."""
        return self._buffer.oversized

    @property
    def fault(self) -> RemoteProtocolError | None:
        """How the peer broke the protocol, if it did; for the log."""
        return self._fault

    # What the transport and the timer report

    def open(self) -> None:
        """Requestor: A-ASSOCIATE request. The effect `Connect` follows."""
        self._fire(Evt.ASSOCIATE_REQUEST)

    def transport_opened(self) -> None:
        """The transport connection is open: a requestor sends its request, an acceptor awaits one."""
        if self._request is None:
            self._fire(Evt.TRANSPORT_INDICATED)
        else:
            self._fire(Evt.TRANSPORT_CONFIRMED, send=SendPdu(self._request.encode()))

    def transport_closed(self) -> None:
        """The transport connection has closed, whoever closed it."""
        if self._state is not State.IDLE:
            self._fire(Evt.TRANSPORT_CLOSED, aborted_by=AbortedBy.TRANSPORT)

    def artim_expired(self) -> None:
        """The ARTIM timer has run out."""
        self._fire(Evt.ARTIM_EXPIRED)

    def receive_data(self, data: memoryview) -> None:
        """Take bytes from the peer; then call `next_event` until it returns ``None``."""
        if self._delivering:
            self._buffer.feed(data)
        elif self._state is State.AWAITING_TRANSPORT:
            raise LocalProtocolError("bytes were received before the transport connection was open")
        elif self._state is not State.IDLE:
            self._buffer.feed(data)

    def keep_unread(self) -> None:
        """Let the memory given to `receive_data` be used again although events are still to come of it."""
        self._buffer.keep_unread()

    def next_event(self) -> Event | None:
        """What happened next or is to be done next; ``None`` when more bytes are needed.

        A peer's error is no exception here: it becomes the A-ABORT and the `Aborted` that PS3.8 prescribes.
        """
        if self._events:
            return self._events.popleft()
        try:
            while True:
                if self._delivering:
                    fragment = self._buffer.data()
                    if fragment is not None:
                        return fragment
                if not self._advance():
                    return None
                if self._events:
                    return self._events.popleft()
        except RemoteProtocolError as fault:
            # Where the PDU ends is not known any more, so nothing that follows can be read.
            self._buffer.close()
            self._fire(Evt.INVALID_PDU, fault=fault)
            return self._events.popleft()

    # What the user asks

    def answer(self, answer: Answer) -> None:
        """Acceptor: A-ASSOCIATE response, as `negotiation.negotiate` decided."""
        if isinstance(answer, AssociateReject):
            self._fire(Evt.ASSOCIATE_REJECT, send=SendPdu(answer.encode()))
        elif isinstance(answer, RemoteProtocolError):
            self._fire(Evt.INVALID_PDU, fault=answer)
        else:
            self._fire(Evt.ASSOCIATE_ACCEPT, send=SendPdu(answer.reply.encode()))
            self._establish(answer.contexts, answer.send_limit, answer.receive_limit)

    def send_command(self, context_id: int, command: bytes) -> None:
        """P-DATA request: a whole command set, sent as one bytes object."""
        self._check_context(context_id)
        send = SendPdu(encode_command(context_id, command, self._send_limit))
        self._fire(Evt.P_DATA_REQUEST, send=send)

    def send_data_set(self, context_id: int, data: memoryview, *, last: bool) -> None:
        """P-DATA request: the next bytes of a data set, an even number; sent as views, not joined."""
        self._check_context(context_id)
        send = SendData(encode_data_set(context_id, data, self._send_limit, last=last))
        self._fire(Evt.P_DATA_REQUEST, send=send)

    def release(self) -> None:
        """A-RELEASE request; data may still arrive until `Released`."""
        self._fire(Evt.RELEASE_REQUEST, send=SendPdu(ReleaseRequest().encode()))

    def release_response(self) -> None:
        """A-RELEASE response, after `ReleaseRequested`.

        In a release collision the acceptor's waits for the requestor's (PS3.8 9.2, Sta10).
        """
        if self._state is State.COLLISION_ACCEPTOR_AWAITING_RP:
            self._response_waits = True
        else:
            self._respond_to_release()

    def _respond_to_release(self) -> None:
        self._fire(Evt.RELEASE_RESPONSE, send=SendPdu(ReleaseResponse().encode()))

    def abort(self, fault: RemoteProtocolError | None = None) -> None:
        """A-ABORT request; with ``fault``, as the service provider, for what the peer did wrong in a message.

        Raises:
            LocalProtocolError: there is nothing to abort (Sta1, Sta2, Sta13); close the transport instead.
        """
        if fault is None:
            self._fire(Evt.ABORT_REQUEST)
        else:
            self._fire(Evt.INVALID_PDU, fault=fault)

    # The machine

    def _advance(self) -> bool:
        """Take one PDU that is not P-DATA for the user; whether anything was done."""
        header = self._buffer.header()
        if header is None:
            return False
        kind, length = header
        evt = _RECEIVED.get(kind)
        if evt is None:
            raise RemoteProtocolError("unknown PDU type", AbortReason.UNRECOGNIZED_PDU)
        if evt is Evt.P_DATA_RECEIVED and self._delivering:
            self._buffer.begin_data(length)
            return True
        if evt is Evt.P_DATA_RECEIVED or (kind <= pdus.ASSOCIATE_AC and not self._expects(evt)):
            self._buffer.skip_body(length)
            self._fire(evt, fault=self._unexpected(evt))
            return True
        if kind <= pdus.ASSOCIATE_AC:
            if length > self._maximum_associate:
                raise invalid(f"an A-ASSOCIATE PDU is longer than {self._maximum_associate} bytes")
        else:
            pdus.check_short(length)
        body = self._buffer.take_body(length)
        if body is None:
            return False
        self._received(evt, body)
        return True

    def _expects(self, evt: Evt) -> bool:
        return Effect.INDICATE in TRANSITIONS[evt, self._state].effects

    def _unexpected(self, evt: Evt) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"PDU of Evt{evt.value} in Sta{self._state.value}", AbortReason.UNEXPECTED_PDU
        )

    def _received(self, evt: Evt, body: memoryview) -> None:
        """Fire the event of a whole PDU, decoded where it says anything."""
        if evt is Evt.ASSOCIATE_RQ_RECEIVED:
            self._request_received(body)
        elif evt is Evt.ASSOCIATE_AC_RECEIVED:
            self._accept_received(body)
        elif evt is Evt.ASSOCIATE_RJ_RECEIVED:
            self._fire(evt, Rejected(AssociateReject.decode(body)), fault=self._unexpected(evt))
        elif evt is Evt.ABORT_RECEIVED:
            abort = Abort.decode(body)
            self._fire(evt, Aborted(abort.source, abort.reason, AbortedBy.PEER))
        elif evt is Evt.RELEASE_RQ_RECEIVED:
            self._fire(evt, ReleaseRequested(), fault=self._unexpected(evt))
        else:
            self._fire(evt, Released(), fault=self._unexpected(evt))

    def _request_received(self, body: memoryview) -> None:
        try:
            request = AssociateRequest.decode(body)
        except RemoteProtocolError as fault:
            # It is an A-ASSOCIATE-RQ, so AE-6 stops ARTIM; its content is judged in Sta3 and aborted as AA-8
            # with the reason, where Evt19 in Sta2 would say no more than "service-user".
            self._fire(Evt.ASSOCIATE_RQ_RECEIVED)
            self._fire(Evt.INVALID_PDU, fault=fault)
        else:
            self._fire(Evt.ASSOCIATE_RQ_RECEIVED, AssociateRequested(request))

    def _accept_received(self, body: memoryview) -> None:
        assert self._request is not None  # only a requestor reaches Sta5
        announced = self._request.user_information.maximum_length
        assert announced is not None  # by the constructor
        try:
            reply = AssociateAccept.decode(body)
            contexts = confirm(self._request, reply)
            limit = send_limit(reply.user_information)
        except RemoteProtocolError as fault:
            self._fire(Evt.INVALID_PDU, fault=fault)
        else:
            self._fire(Evt.ASSOCIATE_AC_RECEIVED, AssociateAccepted(reply))
            self._establish(contexts, limit, announced)

    def _establish(self, contexts: Mapping[int, AcceptedContext], send: int, receive: int) -> None:
        self._contexts = contexts
        self._send_limit = send
        self._buffer.contexts = frozenset(contexts)
        self._buffer.maximum_length = receive

    def _check_context(self, context_id: int) -> None:
        if context_id not in self._contexts:
            raise LocalProtocolError("the presentation context was not accepted")

    def _fire(
        self,
        evt: Evt,
        indication: Indication | None = None,
        *,
        send: SendPdu | SendData | None = None,
        fault: RemoteProtocolError | None = None,
        aborted_by: AbortedBy = AbortedBy.LOCAL,
    ) -> None:
        """Do what Table 9-10 says: queue the action's effects, and move on."""
        action = TRANSITIONS.get((evt, self._state))
        if action is None:
            raise LocalProtocolError(f"Evt{evt.value} cannot happen in Sta{self._state.value}")
        reason = AbortReason.NOT_SPECIFIED if fault is None else fault.reason
        for effect in action.effects:
            if effect is Effect.SEND:
                assert send is not None  # every event whose action sends brings what to send
                self._events.append(send)
            elif effect is Effect.INDICATE:
                if indication is not None:
                    self._events.append(indication)
            elif effect is Effect.SEND_PROVIDER_ABORT:
                self._fault = self._fault or fault
                self._events.append(SendPdu(Abort(AbortSource.SERVICE_PROVIDER, reason).encode()))
            elif effect is Effect.SEND_USER_ABORT:
                self._fault = self._fault or fault
                self._events.append(SendPdu(Abort().encode()))
            elif effect is Effect.INDICATE_PROVIDER_ABORT:
                self._events.append(Aborted(AbortSource.SERVICE_PROVIDER, reason, aborted_by))
            else:
                self._events.append(_REQUESTS[effect])
        self._move(action)

    def _move(self, action: Action) -> None:
        self._state = action.acceptor_next if self._request is None else action.requestor_next
        delivering = self._state in _DELIVERING
        if self._delivering and not delivering:
            self._buffer.drop_data()
        self._delivering = delivering
        if self._state is State.IDLE:
            self._buffer.close()
        elif self._state is State.COLLISION_ACCEPTOR_AWAITING_LOCAL and self._response_waits:
            self._respond_to_release()


_REQUESTS: dict[Effect, Connect | StartArtim | StopArtim | CloseTransport] = {
    Effect.CONNECT: Connect(),
    Effect.START_ARTIM: StartArtim(),
    Effect.STOP_ARTIM: StopArtim(),
    Effect.CLOSE: CloseTransport(),
}

# The states in which Table 9-10 hands P-DATA to the user: DT-2 and AR-6.
_DELIVERING = frozenset(
    state
    for (evt, state), action in TRANSITIONS.items()
    if evt is Evt.P_DATA_RECEIVED and Effect.INDICATE in action.effects
)
