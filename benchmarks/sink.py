"""The raw discard sink: the sender's ceiling, and what TCP on this machine gives at most to one process."""

import selectors
import socket
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.data import KINDS, UidSeries
from benchmarks.messages import (
    PDU_HEADER,
    RELEASE_REQUEST,
    RELEASE_RESPONSE,
    associate_accept,
    pdu_size,
    response_pdu,
)

_BUFFER: Final = 1024 * 1024  # bytes of one read


class _Peer:
    """What is still to come from one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.left = 0  # bytes of the current message
        self.request = b""  # the association request, as far as it has come
        self.associated = False


def serve_sink(channel: Connection, wire_size: int, kind: str) -> None:
    """Serve until terminated; the address goes through ``channel``. Messages are of ``wire_size`` bytes."""
    response = response_pdu(KINDS[kind].sop_class_uid, UidSeries(0, 0).next())
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
            elif not _take(key.data, buffer, wire_size, response):
                selector.unregister(key.fileobj)
                key.data.socket.close()


def _take(peer: _Peer, buffer: memoryview, wire_size: int, response: bytes) -> bool:
    """One read; ``False`` when the connection is over."""
    if not peer.associated:
        return _associate(peer)
    count = peer.socket.recv_into(buffer[: min(peer.left or wire_size, _BUFFER)])
    if peer.left == 0:
        if count == 0:
            return False
        if buffer[0] == RELEASE_REQUEST[0]:
            peer.socket.sendall(RELEASE_RESPONSE)
            return False
        peer.left = wire_size
    peer.left -= count
    if peer.left == 0:
        peer.socket.sendall(response)
    return count > 0


def _associate(peer: _Peer) -> bool:
    data = peer.socket.recv(pdu_size(peer.request) - len(peer.request))
    peer.request += data
    if len(peer.request) > PDU_HEADER and len(peer.request) == pdu_size(peer.request):
        peer.associated = True
        peer.socket.sendall(associate_accept("ANY"))
    return len(data) > 0
