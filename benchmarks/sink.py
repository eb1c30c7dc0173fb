"""The raw discard sink: the sender's ceiling, and what TCP on this machine gives at most to one process."""

import selectors
import socket
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

from benchmarks.data import UidSeries
from benchmarks.messages import (
    PDU_HEADER,
    RELEASE_REQUEST,
    RELEASE_RESPONSE,
    associate_accept,
    context_id_of,
    pdu_size,
    response_pdu,
)

_BUFFER: Final = 1024 * 1024  # bytes of one read
_CONTEXT_ID_AT: Final = PDU_HEADER + 4  # behind the length of the first PDV (PS3.8 9.3.5.1)


class Expected(NamedTuple):
    """What comes in one presentation context: messages of ``wire_size`` bytes, all PDUs together."""

    sop_class_uid: str
    wire_size: int


class _Peer:
    """What is still to come from one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.left = 0  # bytes of the current message
        self.response = b""  # that ends it
        self.request = b""  # the association request, as far as it has come
        self.associated = False


def serve_sink(channel: Connection, expected: Sequence[Expected]) -> None:
    """Serve until terminated; the address goes through ``channel``. Each context has messages of one size."""
    uid = UidSeries(0, 0).next()
    messages = {
        context_id_of(number): (one.wire_size, response_pdu(one.sop_class_uid, uid, context_id_of(number)))
        for number, one in enumerate(expected)
    }
    buffer = memoryview(bytearray(_BUFFER))
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    channel.send(listener.getsockname())
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, _Peer(connection))
            elif not _take(key.data, buffer, messages):
                selector.unregister(key.fileobj)
                key.data.socket.close()


def _take(peer: _Peer, buffer: memoryview, messages: Mapping[int, tuple[int, bytes]]) -> bool:
    """One read; ``False`` when the connection is over."""
    if not peer.associated:
        return _associate(peer, len(messages))
    # The next message does not begin before this one is answered, so what comes belongs to one.
    count = peer.socket.recv_into(buffer)
    if peer.left == 0:
        if count == 0:
            return False
        if buffer[0] == RELEASE_REQUEST[0]:
            peer.socket.sendall(RELEASE_RESPONSE)
            return False
        assert count > _CONTEXT_ID_AT
        peer.left, peer.response = messages[buffer[_CONTEXT_ID_AT]]
    peer.left -= count
    if peer.left == 0:
        peer.socket.sendall(peer.response)
    return count > 0


def _associate(peer: _Peer, contexts: int) -> bool:
    data = peer.socket.recv(pdu_size(peer.request) - len(peer.request))
    peer.request += data
    if len(peer.request) > PDU_HEADER and len(peer.request) == pdu_size(peer.request):
        peer.associated = True
        peer.socket.sendall(associate_accept("ANY", contexts))
    return len(data) > 0
