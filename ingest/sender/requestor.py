"""The requestor's side of one association: connect, one operation at a time, release (PS3.8 9.2, PS3.7).

A reader task feeds what the peer sends into the pure association; operations wait for what it reports. So
an abort in the middle of a large instance is noticed at once, not after its last byte.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import Final, Self

from ingest.association import (
    VERIFICATION,
    Aborted,
    AssociateAccepted,
    AssociateReject,
    AssociateRequest,
    Association,
    CloseTransport,
    Event,
    Fragment,
    PresentationContext,
    Rejected,
    Released,
    ReleaseRequested,
    SendData,
    SendPdu,
    UserInformation,
)
from ingest.contract.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ingest.dimse import (
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    MessageAssembler,
    MessageBegun,
)
from ingest.errors import LocalProtocolError, RemoteProtocolError

_READ: Final = 64 * 1024  # bytes; the peer sends short responses only
_MAXIMUM_LENGTH: Final = 16 * 1024  # bytes of a PDU that we take; the peer sends no data sets
_MESSAGE_IDS: Final = 0x10000

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


@dataclass(frozen=True)
class Peer:
    """Whom to reach, and as whom."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    timeout: float = 60.0  # seconds for each answer

    def __str__(self) -> str:
        return f"{self.called_ae_title} at {self.host}:{self.port}"


@dataclass
class Requestor:
    """One association; use it as an asynchronous context manager, which opens and releases it."""

    peer: Peer
    contexts: tuple[PresentationContext, ...]
    _assembler: MessageAssembler = field(default_factory=MessageAssembler)
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
        )
        request = AssociateRequest(peer.called_ae_title, peer.calling_ae_title, self.contexts, user)
        self._association = Association(request)
        self._association.open()
        self._waiting = asyncio.get_running_loop().create_future()
        self._perform_events()
        try:
            async with asyncio.timeout(peer.timeout):
                self._reader, self._writer = await asyncio.open_connection(peer.host, peer.port)
        except OSError as error:
            raise AssociationFailed(f"cannot connect to {peer}: {_reason(error)}") from None
        self._reading = asyncio.create_task(self._read())
        try:
            self._association.transport_opened()
            await self._answer("the association request")
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

    def context_for(self, sop_class_uid: str, transfer_syntax_uid: str) -> int | None:
        """The accepted context of this pair; None when the peer accepted none."""
        for context in self.contexts:
            if (context.abstract_syntax, context.transfer_syntaxes) == (
                sop_class_uid,
                (transfer_syntax_uid,),
            ):
                return context.context_id if context.context_id in self._association.contexts else None
        return None

    async def echo(self, context_id: int) -> int:
        """C-ECHO (PS3.7 9.1.5): the status.

        Raises:
            AssociationFailed: the association ended, or no answer in time.
        """
        self._expect()
        self._association.send_command(context_id, CEchoRequest(self._next_id(), VERIFICATION).encode())
        response = await self._answer("the C-ECHO request")
        if not isinstance(response, CEchoResponse):
            raise AssociationFailed("the peer answered with another message")
        return response.status

    async def store(
        self, context_id: int, sop_class_uid: str, sop_instance_uid: str, data_set: AsyncIterable[memoryview]
    ) -> CStoreResponse:
        """C-STORE (PS3.7 9.1.1): send the pieces of a data set as they come, each of an even length.

        Raises:
            AssociationFailed: the association ended, or no answer in time.
        """
        self._expect()
        request = CStoreRequest(self._next_id(), sop_class_uid, sop_instance_uid)
        self._association.send_command(context_id, request.encode())
        piece = memoryview(b"")
        async for following in data_set:
            await self._send_piece(context_id, piece, last=False)
            piece = following
        await self._send_piece(context_id, piece, last=True)
        response = await self._answer("the C-STORE request")
        if not isinstance(response, CStoreResponse):
            raise AssociationFailed("the peer answered with another message")
        return response

    async def _send_piece(self, context_id: int, piece: memoryview, *, last: bool) -> None:
        if self._waiting.done():
            await self._answer("the C-STORE request")  # the association ended: raises
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
        if self._waiting.done():
            self._waiting.result()  # the association has ended in between: raises
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
        with contextlib.suppress(OSError):
            while data := await self._reader.read(_READ):
                self._association.receive_data(memoryview(data))
                self._perform_events()
        self._association.transport_closed()
        self._perform_events()

    def _perform_events(self) -> None:
        while (event := self._association.next_event()) is not None:
            if isinstance(event, Fragment):
                self._fragment(event)
            else:
                self._perform(event)

    def _fragment(self, fragment: Fragment) -> None:
        try:
            item = self._assembler.receive(fragment)
        except RemoteProtocolError as fault:
            self._association.abort(fault)
            return
        if isinstance(item, MessageBegun):
            self._report(item.message)

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
            self._report(
                AssociationFailed(f"association ended: {event.by.value}" + (f" ({fault})" if fault else ""))
            )
        elif isinstance(event, ReleaseRequested):
            self._association.release_response()
            self._report(AssociationFailed("association ended: the peer released it"))
        elif isinstance(event, CloseTransport):
            self._writer.close()
        # Connect is done by `__aenter__`; ARTIM bounds the peer's close, which `_close` does not wait for.

    def _report(self, outcome: object) -> None:
        if self._waiting.done():
            return
        if isinstance(outcome, AssociationFailed):
            self._waiting.set_exception(outcome)
            self._waiting.exception()  # seen: an operation that is not waiting now meets it when it begins
        else:
            self._waiting.set_result(outcome)

    async def _close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _reason(error: OSError) -> str:
    # asyncio puts its own sentence in strerror. Since Python 3.10 a TimeoutError is an OSError.
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _rejection(reply: AssociateReject) -> str:
    word = _REJECTIONS.get((reply.source, reply.reason), "no reason given")
    return f"{word} ({'transient' if reply.result == 2 else 'permanent'})"  # noqa: PLR2004 - PS3.8 Table 9-21
