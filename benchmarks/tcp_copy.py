"""The same bytes through as many TCP connections, with nothing around them: what loopback and two processes give at most."""

import selectors
import socket
import threading
import time
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.processes import forked

_PIECE: Final = 1024 * 1024  # bytes of one write and of one read


def copy_seconds(size: int, connections: int) -> float:
    """Time until a process has ``size`` bytes, sent by a thread of this one over each of ``connections``."""
    ours, theirs = forked.Pipe()
    process = forked.Process(target=_receive, args=(theirs, connections), daemon=True)
    process.start()
    theirs.close()
    try:
        address = ours.recv()
        sockets = [socket.create_connection(address) for _ in range(connections)]
        ours.recv()
        begun = time.monotonic()
        threads = [threading.Thread(target=_send, args=(each, size // connections)) for each in sockets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = ours.recv()
    finally:
        process.join(60)
        process.terminate()
        ours.close()
    return float(ended - begun)


def _send(connection: socket.socket, size: int) -> None:
    piece = memoryview(bytes(_PIECE))
    with connection:
        while size > 0:
            size -= connection.send(piece[:size])


def _receive(channel: Connection, connections: int) -> None:
    """Until the last connection has ended."""
    buffer = bytearray(_PIECE)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        channel.send(listener.getsockname())
        accepted = [listener.accept()[0] for _ in range(connections)]
    channel.send(None)
    with selectors.DefaultSelector() as selector:
        for connection in accepted:
            selector.register(connection, selectors.EVENT_READ, connection)
        while selector.get_map():
            for key, _ in selector.select():
                if not key.data.recv_into(buffer):
                    selector.unregister(key.data)
                    key.data.close()
    channel.send(time.monotonic())
