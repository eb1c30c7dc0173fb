"""The requestor's side of one association: connect, one operation at a time, release (PS3.8 9.2, PS3.7).

A reader task feeds what the peer sends into the pure association; operations wait for what it reports. So
an abort in the middle of a large instance is noticed at once, not after its last byte.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from ingest.association import (
    VERIFICATION,
    Aborted,
    AcceptedContext,
    AssociateAccepted,
    AssociateReject,
    AssociateRequest,
    Association,
    CloseTransport,
    Event,
    Fragment,
    FragmentRun,
    PresentationContext,
    Rejected,
    Released,
    ReleaseRequested,
    RoleSelection,
    SendData,
    SendPdu,
    UserInformation,
)
from ingest.contract.connecting import addresses_of, connected
from ingest.contract.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ingest.contract.tls import certificate_of, reason_of
from ingest.dimse import (
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    NActionRequest,
    NActionResponse,
    NEventReportRequest,
    NEventReportResponse,
)
from ingest.errors import LocalProtocolError
from ingest.sender.inbox import Inbox, Took
from ingest.sender.tls import ClientTls

R = TypeVar("R", CEchoResponse, CStoreResponse, NActionResponse, NEventReportResponse)

_READ: Final = 64 * 1024  # bytes; the peer sends responses and, rarely, a report
_MAXIMUM_LENGTH: Final = 16 * 1024  # bytes of a PDU that we take
_PIECE: Final = 64 * 1024  # bytes of a data set given to the association at a time
_MESSAGE_IDS: Final = 0x10000
_SHUTDOWN: Final = 3.0  # s for a peer's close_notify; many send none

# PS3.8 Table 9-21, for what a user can do about it.
_REJECTIONS: Final = {
    (1, 2): "application context not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


class AssociationFailed(Exception):  # noqa: N818 - states what happened
    """No association, or no more: connection, rejection, abort, or no answer in time."""


class NoAnswer(AssociationFailed):
    """There was an association; what was sent on it may be why there is no answer."""


@dataclass(frozen=True)
class Peer:
    """Whom to reach, and as whom."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    timeout: float = 60.0  # seconds for each answer
    tls: ClientTls | None = None

    def __str__(self) -> str:
        return f"{self.called_ae_title} at {self.host}:{self.port}"


@dataclass
class Requestor:
    """One association; use it as an asynchronous context manager, which opens and releases it.

    ``roles`` are proposed with it. ``took`` gets the peer's reports of storage commitment.
    """

    peer: Peer
    contexts: tuple[PresentationContext, ...]
    roles: tuple[RoleSelection, ...] = ()
    took: Took | None = None
    _granted: tuple[RoleSelection, ...] = ()
    _ended: AssociationFailed | None = None  # why there is no association any more
    _message_id: int = 0

    async def __aenter__(self) -> Self:
        """Connect and negotiate.

        Raises:
            AssociationFailed: refused, rejected, or no answer.
        """
        peer = self.peer
        user = UserInformation(
            maximum_length=_MAXIMUM_LENGTH,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            role_selections=self.roles,
        )
        request = AssociateRequest(peer.called_ae_title, peer.calling_ae_title, self.contexts, user)
        self._association = Association(request)
        self._inbox = Inbox(self._association, self._report, self.took)
        self._association.open()
        self._waiting = asyncio.get_running_loop().create_future()
        self._perform_events()
        self._reader, self._writer = await connect(peer)
        self._reading = asyncio.create_task(self._read())
        try:
            self._association.transport_opened()
            accepted = await self._answer("the association request")
            assert isinstance(accepted, AssociateAccepted)  # nothing else comes before it
            self._granted = accepted.reply.user_information.role_selections
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Release, or abort when an error led here; the connection is closed in any case."""
        try:
            with contextlib.suppress(AssociationFailed, LocalProtocolError):
                if kind is None:
                    self._expect()
                    self._association.release()
                    await self._answer("the release request")
                else:
                    self._association.abort()
                    self._perform_events()
        finally:
            await self._close()

    @property
    def has_ended(self) -> bool:
        """Whether there is no association any more: the next operation fails."""
        return self._ended is not None

    def context_for(self, sop_class_uid: str, transfer_syntax_uid: str) -> int | None:
        """The accepted context of this pair; None when the peer accepted none."""
        for context in self.contexts:
            if (context.abstract_syntax, context.transfer_syntaxes) == (
                sop_class_uid,
                (transfer_syntax_uid,),
            ):
                return context.context_id if context.context_id in self._association.contexts else None
        return None

    def accepted(self, sop_class_uid: str) -> AcceptedContext | None:
        """The first context that was accepted for a SOP Class, in whichever transfer syntax."""
        contexts = self._association.contexts.values()
        return next((context for context in contexts if context.abstract_syntax == sop_class_uid), None)

    def scp_role_refused(self, sop_class_uid: str) -> bool:
        """Whether the peer has answered a proposed SCP role, and with no (PS3.7 D.3.3.4)."""
        return any(role.sop_class_uid == sop_class_uid and not role.scp_role for role in self._granted)

    async def echo(self, context_id: int) -> int:
        """C-ECHO (PS3.7 9.1.5): the status.

        Raises:
            AssociationFailed: the association ended, or no answer in time.
        """
        request = CEchoRequest(self._next_id(), VERIFICATION)
        response = await self._operate(
            context_id, request.encode(), None, CEchoResponse, "the C-ECHO request"
        )
        return response.status

    async def store(
        self, context_id: int, sop_class_uid: str, sop_instance_uid: str, data_set: AsyncIterable[memoryview]
    ) -> CStoreResponse:
        """C-STORE (PS3.7 9.1.1): send the pieces of a data set as they come, each of an even length.

        Raises:
            AssociationFailed: the association ended, or no answer in time.
        """
        request = CStoreRequest(self._next_id(), sop_class_uid, sop_instance_uid).encode()
        return await self._operate(context_id, request, data_set, CStoreResponse, "the C-STORE request")

    async def action(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        action_type_id: int,
        data_set: bytes,
    ) -> NActionResponse:
        """N-ACTION (PS3.7 10.1.4), as SCU.

        Raises:
            AssociationFailed: the association ended, or no answer in time.
        """
        request = NActionRequest(self._next_id(), sop_class_uid, sop_instance_uid, action_type_id).encode()
        return await self._operate(
            context_id, request, _pieces(data_set), NActionResponse, "the N-ACTION request"
        )

    async def event_report(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        event_type_id: int,
        data_set: bytes,
    ) -> NEventReportResponse:
        """N-EVENT-REPORT (PS3.7 10.1.1), as SCP.

        Raises:
            AssociationFailed: the association ended, or no answer in time.
        """
        request = NEventReportRequest(
            self._next_id(), sop_class_uid, sop_instance_uid, event_type_id
        ).encode()
        return await self._operate(
            context_id, request, _pieces(data_set), NEventReportResponse, "the N-EVENT-REPORT request"
        )

    async def attend(self, event: asyncio.Event, seconds: float) -> None:
        """Keep the association open until ``event``, which what the peer sends by itself brings about.

        Raises:
            AssociationFailed: the association ended before.
            TimeoutError: so did the seconds.
        """
        self._expect()
        waiter = asyncio.create_task(event.wait())
        try:
            done, _ = await asyncio.wait(
                {waiter, self._waiting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiter.cancel()
        if event.is_set():
            return
        if not done:
            raise TimeoutError
        self._waiting.result()
        raise AssociationFailed("the peer sent a response to nothing")

    async def _operate(
        self,
        context_id: int,
        command: bytes,
        data_set: AsyncIterable[memoryview] | None,
        expected: type[R],
        what: str,
    ) -> R:
        """One operation: its request out, its response in."""
        self._expect()
        self._association.send_command(context_id, command)
        if data_set is not None:
            self._inbox.hold()
            piece = memoryview(b"")
            async for following in data_set:
                await self._send_piece(context_id, piece, last=False)
                piece = following
            await self._send_piece(context_id, piece, last=True)
            self._inbox.let_go()
        response = await self._answer(what)
        if not isinstance(response, expected):
            raise AssociationFailed("the peer answered with another message")
        if response.message_id_being_responded_to != self._message_id:
            raise AssociationFailed("the peer answered another request")
        return response

    async def _send_piece(self, context_id: int, piece: memoryview, *, last: bool) -> None:
        if self._ended is not None:
            raise self._ended
        self._association.send_data_set(context_id, piece, last=last)
        self._perform_events()
        try:
            async with asyncio.timeout(self.peer.timeout):
                await self._writer.drain()
        except OSError as error:
            raise AssociationFailed(f"cannot send to {self.peer}: {_reason(error)}") from None

    def _next_id(self) -> int:
        self._message_id = (self._message_id + 1) % _MESSAGE_IDS
        return self._message_id

    def _expect(self) -> None:
        """From here on, what the peer reports answers the next operation."""
        if self._ended is not None:
            raise self._ended
        if self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()

    async def _answer(self, to: str) -> object:
        self._perform_events()
        try:
            async with asyncio.timeout(self.peer.timeout):
                return await asyncio.shield(self._waiting)
        except TimeoutError:
            raise AssociationFailed(f"no answer to {to} within {self.peer.timeout:g} s") from None

    async def _read(self) -> None:
        """Feed the association until the connection ends."""
        try:
            while data := await self._reader.read(_READ):
                self._association.receive_data(memoryview(data))
                self._perform_events()
        except ssl.SSLError as error:  # in TLS 1.3 a peer that refuses our certificate says so only now
            self._report(AssociationFailed(f"{self.peer} ended TLS: {reason_of(error)}"))
        except OSError:
            pass  # how it ended makes no difference
        self._association.transport_closed()
        self._perform_events()

    def _perform_events(self) -> None:
        while (event := self._association.next_event()) is not None:
            if isinstance(event, Fragment | FragmentRun):
                self._inbox.take(event)
            else:
                self._perform(event)

    def _perform(self, event: Event) -> None:
        if isinstance(event, SendPdu):
            self._writer.write(event.pdu)
        elif isinstance(event, SendData):
            self._writer.writelines(event.buffers)
        elif isinstance(event, AssociateAccepted | Released):
            self._report(event)
        elif isinstance(event, Rejected):
            self._report(
                AssociationFailed(f"{self.peer} rejected the association: {_rejection(event.reply)}")
            )
        elif isinstance(event, Aborted):
            fault = self._association.fault
            what = f"association with {self.peer} ended: {event.by.value}"
            self._report(AssociationFailed(what + (f" ({fault})" if fault else "")))
        elif isinstance(event, ReleaseRequested):
            self._association.release_response()
            self._report(AssociationFailed(f"association with {self.peer} ended: the peer released it"))
        elif isinstance(event, CloseTransport):
            self._writer.close()
        # Connect is done by `__aenter__`; ARTIM bounds the peer's close, which `_close` does not wait for.

    def _report(self, outcome: object) -> None:
        if isinstance(outcome, AssociationFailed) and self._ended is None:
            self._ended = outcome  # also right behind an answer that nobody has taken yet
        if self._waiting.done():
            return
        if isinstance(outcome, AssociationFailed):
            self._waiting.set_exception(outcome)
            self._waiting.exception()  # seen: an operation that is not waiting now meets it when it begins
        else:
            self._waiting.set_result(outcome)

    async def _close(self) -> None:
        self._reading.cancel()
        if self._writer.transport.get_write_buffer_size():
            self._writer.transport.abort()  # `close` would wait for a peer that does not read
        else:
            self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def connect(peer: Peer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the peer, with TLS where it has that.

    Raises:
        AssociationFailed: none in time, or not to whom we meant to reach.
    """
    tls = peer.tls
    secure: dict[str, Any] = (
        {}
        if tls is None
        else {
            "ssl": tls.context,
            "server_hostname": tls.name or peer.host,
            "ssl_handshake_timeout": peer.timeout,
            "ssl_shutdown_timeout": _SHUTDOWN,
        }
    )
    try:
        until = asyncio.get_running_loop().time() + peer.timeout
        async with asyncio.timeout_at(until):
            connection = await connected(await addresses_of(peer.host, peer.port), until)
            reader, writer = await asyncio.open_connection(sock=connection, **secure)
    except OSError as error:
        raise AssociationFailed(f"cannot connect to {peer}: {_reason(error)}") from None
    except UnicodeError:  # the resolver's, for a label that is empty or too long
        raise AssociationFailed(f"cannot connect to {peer}: no name of a host") from None
    if tls is not None and not tls.accepts(certificate_of(writer.get_extra_info("ssl_object"))):
        writer.transport.abort()
        raise AssociationFailed(f"{peer} has the certificate of another")
    return reader, writer


async def _pieces(data_set: bytes) -> AsyncIterator[memoryview]:
    for start in range(0, len(data_set), _PIECE):
        yield memoryview(data_set)[start : start + _PIECE]


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        reason = reason_of(error)
        return f"no TLS is spoken there ({reason})" if error.reason == "WRONG_VERSION_NUMBER" else reason
    # asyncio puts its own sentence in strerror. Since Python 3.10 a TimeoutError is an OSError.
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _rejection(reply: AssociateReject) -> str:
    word = _REJECTIONS.get((reply.source, reply.reason), "no reason given")
    return f"{word} ({'transient' if reply.result == 2 else 'permanent'})"  # noqa: PLR2004 - PS3.8 Table 9-21
