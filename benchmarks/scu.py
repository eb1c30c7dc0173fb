"""One association of a storage SCU: pre-encoded PDUs on a plain socket, each response awaited and checked."""

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.data import UidSeries
from benchmarks.messages import (
    RELEASE_REQUEST,
    Message,
    UnexpectedAnswer,
    accepted_pdu_length,
    associate_request,
    check_response,
    first_pdu,
)

TIMEOUT: Final = 300.0  # s without progress: the peer hangs, and so would the benchmark
_PIECES_A_CALL: Final = 64  # buffers handed to one sendmsg; IOV_MAX is 1024


@dataclass(frozen=True)
class Proposal:
    """What an association proposes: a context for each of ``messages``, with its class; PDUs of ``pdu_length`` at most."""

    called_ae_title: str
    calling_ae_title: str
    sop_class_uids: Sequence[str]
    messages: Sequence[Message]
    pdu_length: int


class Association:
    """An open association and the instance that it sends.

    Raises:
        UnexpectedAnswer: it was rejected, or a context was, or the peer takes only shorter PDUs.
        OSError: the network's.
    """

    def __init__(self, address: tuple[str, int], proposal: Proposal, uids: UidSeries) -> None:
        self._messages = [message.own() for message in proposal.messages]
        self._uids = uids
        self.socket = socket.create_connection(address, timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._pieces: list[memoryview] = []
        self._next = 0
        self.begun = 0.0  # monotonic; or when it should have begun
        self.uid = b""  # of the instance that was begun last
        self.socket.sendall(
            associate_request(
                proposal.called_ae_title, *proposal.sop_class_uids, calling_ae_title=proposal.calling_ae_title
            )
        )
        announced = accepted_pdu_length(self._read_pdu())
        if announced and announced < proposal.pdu_length:
            raise UnexpectedAnswer(f"peer accepts PDUs of {announced} bytes at most")
        self.socket.setblocking(False)

    def _read_pdu(self) -> bytes:
        while (pdu := first_pdu(self._received)) is None:
            self._received += self._receive()
        return pdu

    def _receive(self) -> bytes:
        data = self.socket.recv(4096)
        if not data:
            raise UnexpectedAnswer("peer closed the connection")
        return data

    def begin(self, number: int = 0, intended: float | None = None) -> bool:
        """Start the next instance, of message ``number``; whether all of it went into the socket.

        ``intended`` is when it should have been started, which its latency counts from; without, from now.
        """
        message = self._messages[number]
        self.uid = self._uids.next()
        message.patch(self.uid)
        self._pieces = [memoryview(message.first), *message.rest]
        self._next = 0
        self.begun = time.monotonic() if intended is None else intended
        return self.send()

    def send(self) -> bool:
        """Send what the socket takes; whether that was the rest."""
        pieces = self._pieces
        while self._next < len(pieces):
            try:
                count = self.socket.sendmsg(pieces[self._next : self._next + _PIECES_A_CALL])
            except BlockingIOError:
                return False
            while count:
                size = len(pieces[self._next])
                if count < size:
                    pieces[self._next] = pieces[self._next][count:]
                    break
                count -= size
                self._next += 1
        return True

    def answered(self) -> float | None:
        """Take what came; the latency, once the response is whole and says success."""
        self._received += self._receive()
        pdu = first_pdu(self._received)
        if pdu is None:
            return None
        check_response(pdu)
        return time.monotonic() - self.begun

    def block(self) -> None:
        """Let calls block, `TIMEOUT` at most; Python's own timeout would poll before each call."""
        self.socket.setblocking(True)
        limit = struct.pack("ll", int(TIMEOUT), 0)  # struct timeval
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def release(self) -> None:
        """A-RELEASE, answered."""
        self.block()
        self.socket.sendall(RELEASE_REQUEST)
        kind = self._read_pdu()[0]
        if kind != 0x06:
            raise UnexpectedAnswer(f"release answered with PDU type {kind:02X}H")
        self.socket.close()
