"""The selector of a busy Kafka client: as Python's, but for how it says that something is not registered."""

import selectors
import socket
from collections.abc import Iterator

import pytest

from ingest.contract.kafka_selector import QuickSelector

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def selector() -> Iterator[QuickSelector]:
    with QuickSelector() as found:
        yield found


def test_a_key_is_that_of_the_last_change(selector: QuickSelector, pair: Pair) -> None:
    ours, _ = pair
    selector.register(ours, selectors.EVENT_READ, "reads")
    assert selector.get_key(ours).data == "reads"
    selector.modify(ours, selectors.EVENT_WRITE, "writes")
    assert selector.get_key(ours) == selector.get_map()[ours]
    assert [(key.data, events) for key, events in selector.select(0)] == [("writes", selectors.EVENT_WRITE)]


def test_what_is_not_registered_is_not_looked_at(selector: QuickSelector, pair: Pair) -> None:
    class Shy(socket.socket):
        def __repr__(self) -> str:
            raise AssertionError("nobody reads that")

    with Shy() as shy, pytest.raises(KeyError):
        selector.get_key(shy)
    ours, _ = pair
    selector.register(ours, selectors.EVENT_READ)
    selector.unregister(ours)
    with pytest.raises(KeyError):
        selector.get_key(ours)


def test_a_closed_socket_can_be_unregistered(selector: QuickSelector, pair: Pair) -> None:
    ours, _ = pair
    selector.register(ours, selectors.EVENT_READ)
    ours.close()
    selector.unregister(ours)
    with pytest.raises(KeyError):
        selector.get_key(ours)
