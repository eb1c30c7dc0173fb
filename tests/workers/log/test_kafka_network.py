"""The consumer's sockets: read wide, and otherwise as any socket."""

import selectors
import socket
from collections.abc import Iterator

import pytest

from workers.log.kafka_network import PIECE, WideSocket


@pytest.fixture
def pair() -> Iterator[tuple[WideSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield WideSocket(ours), theirs


def test_it_gives_all_that_has_come(pair: tuple[WideSocket, socket.socket]) -> None:
    ours, theirs = pair
    sent = bytes(range(256)) * 64
    theirs.sendall(sent)
    assert len(sent) < PIECE
    assert ours.recv(4096) == sent
    with pytest.raises(BlockingIOError):
        ours.recv(4096)


def test_its_end_is_told(pair: tuple[WideSocket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert ours.recv(4096) == b""


def test_a_selector_takes_it_and_it_sends(pair: tuple[WideSocket, socket.socket]) -> None:
    ours, theirs = pair
    with selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ | selectors.EVENT_WRITE)
        ((key, events),) = selector.select(0)
        assert key.fileobj is ours
        assert events == selectors.EVENT_WRITE
    ours.send(b"request")
    assert theirs.recv(16) == b"request"
    ours.shutdown(socket.SHUT_RDWR)
    ours.close()
    assert ours.fileno() == -1
