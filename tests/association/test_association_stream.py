"""One association fed bytes in every way: whole, byte by byte, with a tail, cut anywhere, malformed, at random."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.association import (
    Aborted,
    AbortedBy,
    AssociateRequested,
    Association,
    CloseTransport,
    Event,
    Fragment,
    FragmentRun,
    Rejected,
    ReleaseRequested,
    SendData,
    SendPdu,
    StartArtim,
    State,
    StopArtim,
    UserInformation,
    negotiate,
)
from ingest.association.p_data import encode_command, encode_data_set
from ingest.association.pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    DataTransfer,
    PresentationDataValue,
)
from ingest.errors import AbortReason, LocalProtocolError, RemoteProtocolError
from tests.association.conversation import POLICY, Conversation
from tests.association.test_table_9_10 import AC, REQUEST, RQ, events, reach
from tests.vectors import pdus as vectors
from tests.vectors.pdus import pdu

REPLY = AssociateAccept.decode(memoryview(AC)[6:])
MAXIMUM = POLICY.maximum_length
USER, PROVIDER = 0, 2
COMMAND = bytes(range(256)) * 2
DATA_SET = bytes(100_000)
SESSION = b"".join(
    (
        RQ,
        vectors.DCMTK_C_ECHO_RQ.encoded,
        encode_command(1, COMMAND, 100),
        *encode_data_set(1, memoryview(DATA_SET), 16384, last=True),
        DataTransfer(  # the command and its whole data set in one PDU, the last fragment empty
            (
                PresentationDataValue(1, is_command=True, is_last=False, data=b"ab"),
                PresentationDataValue(1, is_command=True, is_last=True, data=b"cd"),
                PresentationDataValue(1, is_command=False, is_last=False, data=b"ef"),
                PresentationDataValue(1, is_command=False, is_last=True, data=b""),
            )
        ).encode(),
        vectors.RELEASE_RQ.encoded,
    )
)
WHOLE = Conversation().feed([SESSION]).log
RECEIVED_IN = {
    1: [("acceptor", 2)], 2: [("requestor", 5)], 3: [("requestor", 5)], 4: [("acceptor", 6), ("requestor", 7)],
    5: [("acceptor", 6), ("requestor", 7)], 6: [("requestor", 7), ("acceptor", 10)], 7: [("acceptor", 6)],
}  # fmt: skip


def test_session() -> None:
    """A session of echo, store and release is what was sent."""
    assert [entry for entry in WHOLE if isinstance(entry, tuple)] == [
        (1, True, vectors.C_ECHO_RQ_COMMAND),
        (1, True, COMMAND),
        (1, False, DATA_SET),
        (1, True, b"abcd"),
        (1, False, b"ef"),
    ]
    kinds = [type(entry) for entry in WHOLE if not isinstance(entry, tuple)]
    assert kinds == [
        StartArtim, StopArtim, AssociateRequested, SendPdu, ReleaseRequested, SendPdu, StartArtim,
    ]  # fmt: skip


def test_byte_by_byte() -> None:
    """One byte at a time gives the same events."""
    assert Conversation().feed(SESSION[n : n + 1] for n in range(len(SESSION))).log == WHOLE


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 1200) | st.integers(0, len(SESSION)), max_size=40))
def test_any_cuts(cuts: list[int]) -> None:
    """Wherever the stream is cut, the events are the same."""
    places = [0, *sorted(cuts), len(SESSION)]
    chunks = (SESSION[start:stop] for start, stop in pairwise(places))
    assert Conversation().feed(chunks).log == WHOLE


@pytest.mark.parametrize(
    ("vector", "side", "state"),
    [
        (v, *where)
        for v in (*vectors.VECTORS, vectors.Vector("our AC", AC, REPLY))
        for where in RECEIVED_IN[v.encoded[0]]
    ],
    ids=str,
)
def test_vector_three_ways(vector: vectors.Vector, side: str, state: int) -> None:
    """Each vector fed whole, byte by byte, and with the start of a further PDU behind it: the same events."""

    def fed(*chunks: bytes) -> tuple[list[object], State]:
        conversation = Conversation(reach(side, state)).feed(chunks)
        return conversation.log, conversation.association.state

    whole = fed(vector.encoded)
    assert fed(*(vector.encoded[n : n + 1] for n in range(len(vector.encoded)))) == whole
    assert fed(vector.encoded + b"\x05\x00\x00") == whole


def test_fragments_come_before_their_pdu_is_complete() -> None:
    """P-DATA is not waited for: each piece is a view of the very memory it arrived in."""
    association = reach("acceptor", 6)
    encoded = b"".join(encode_data_set(1, memoryview(bytes(100)), 16384, last=True))
    memory = memoryview(bytearray(encoded))
    sizes = []
    for start, stop in ((0, 12), (12, 13), (13, 60), (60, 112)):
        association.receive_data(memory[start:stop])
        for event in events(association):
            assert isinstance(event, Fragment)
            assert event.data.obj is memory.obj
            sizes.append((len(event.data), event.is_last))
    assert sizes == [(1, False), (47, False), (52, True)]


@pytest.mark.parametrize("received", [0, 3, 6, 9, 12, 15, 40])
def test_abort_within_a_pdu(received: int) -> None:
    """We may abort at any byte of a P-DATA-TF: its rest is ignored, and the peer's A-ABORT still understood."""
    data = b"".join(encode_data_set(1, memoryview(bytes(40)), 16384, last=True))
    association = reach("acceptor", 6)
    association.receive_data(memoryview(data[:received]))
    events(association)
    association.abort()
    assert events(association) == [SendPdu(Abort().encode()), StartArtim()]
    association.receive_data(memoryview(data[received:] + data + vectors.ABORT.encoded))
    assert events(association) == [StopArtim(), CloseTransport()]
    assert association.state is State.IDLE


@pytest.mark.parametrize("received", range(0, len(AC), 7))
def test_abort_within_an_answer(received: int) -> None:
    """A requestor that gives up within the A-ASSOCIATE-AC ignores its rest."""
    association = reach("requestor", 5)
    association.receive_data(memoryview(AC[:received]))
    assert events(association) == []
    association.abort()
    events(association)
    association.receive_data(memoryview(AC[received:] + vectors.ABORT.encoded))
    assert events(association) == [StopArtim(), CloseTransport()]


def test_abort_with_what_the_peer_did() -> None:
    """A fault within a message is aborted as the service provider, with its reason, and kept for the log."""
    association = reach("acceptor", 6)
    fault = RemoteProtocolError("a fragment of another message", AbortReason.UNEXPECTED_PDU_PARAMETER)
    association.abort(fault)
    assert events(association) == [
        SendPdu(Abort(PROVIDER, 5).encode()),
        Aborted(PROVIDER, 5, AbortedBy.LOCAL),
        StartArtim(),
    ]
    assert association.fault is fault


def test_transport_lost() -> None:
    """A connection that closes ends the association with whatever was not read."""
    association = reach("acceptor", 6)
    association.receive_data(memoryview(vectors.DCMTK_C_ECHO_RQ.encoded))
    association.transport_closed()
    assert events(association) == [Aborted(PROVIDER, 0, AbortedBy.TRANSPORT)]
    assert association.state is State.IDLE
    association.transport_closed()
    association.receive_data(memoryview(RQ))
    assert events(association) == []


def test_unread_bytes_are_not_overrun() -> None:
    """Feeding on while fragments wait would invalidate them: our own mistake."""
    association = reach("acceptor", 6)
    association.receive_data(memoryview(vectors.DCMTK_C_ECHO_RQ.encoded))
    with pytest.raises(LocalProtocolError):
        association.receive_data(memoryview(b"\0"))


def test_requestor_session() -> None:
    """Both sides of this package: associate, a command each way, a data set, release."""
    acceptor, requestor = Association(), Association(REQUEST)
    inbox: dict[Association, list[Event]] = {acceptor: [], requestor: []}
    other = {acceptor: requestor, requestor: acceptor}

    def deliver(data: bytes | memoryview, to: Association) -> None:
        to.receive_data(memoryview(bytes(data)))
        pump(to)

    def pump(side: Association) -> None:
        while (event := side.next_event()) is not None:
            inbox[side].append(event)
            if isinstance(event, SendPdu):
                deliver(event.pdu, other[side])
            elif isinstance(event, SendData):
                for buffer in event.buffers:
                    deliver(buffer, other[side])
            elif isinstance(event, AssociateRequested):
                side.answer(negotiate(event.request, POLICY))
            elif isinstance(event, ReleaseRequested):
                side.release_response()

    acceptor.transport_opened()
    requestor.open()
    pump(requestor)
    requestor.transport_opened()
    pump(requestor)
    pump(acceptor)
    pump(requestor)
    assert requestor.contexts == acceptor.contexts
    assert requestor.maximum_send_length == MAXIMUM
    assert acceptor.maximum_send_length == 16384
    data = bytes(3 * MAXIMUM)
    requestor.send_command(1, b"rq")
    requestor.send_data_set(1, memoryview(data)[:100_000], last=False)
    requestor.send_data_set(1, memoryview(data)[100_000:], last=True)
    pump(requestor)
    fragments = [event for event in inbox[acceptor] if isinstance(event, Fragment)]
    runs = [event for event in inbox[acceptor] if isinstance(event, FragmentRun)]
    size = sum(len(event.data) for event in fragments if not event.is_command)
    assert size + sum(event.rows.size for event in runs) == len(data)
    assert [event.is_last for event in fragments[1:]] == [False] * (len(fragments) - 2) + [True]
    acceptor.send_command(1, b"rsp!")
    pump(acceptor)
    assert inbox[requestor][-1] == Fragment(1, is_command=True, is_last=True, data=memoryview(b"rsp!"))
    requestor.release()
    pump(requestor)
    pump(acceptor)
    pump(requestor)
    assert acceptor.state is State.AWAITING_CLOSE
    assert requestor.state is State.IDLE


def test_contexts_that_were_not_accepted() -> None:
    """We send nothing on them."""
    association = reach("requestor", 6)
    with pytest.raises(LocalProtocolError):
        association.send_command(3, b"\0\0")
    with pytest.raises(LocalProtocolError):
        association.send_data_set(3, memoryview(b""), last=True)


@pytest.mark.parametrize("maximum_length", [None, 0])
def test_a_requestor_must_announce_its_limit(maximum_length: int | None) -> None:
    """Without a maximum length a peer could send a PDU of any length."""
    with pytest.raises(LocalProtocolError):
        Association(replace(REQUEST, user_information=UserInformation(maximum_length=maximum_length)))


def test_rejection_tells_why() -> None:
    """A requestor learns result, source and reason, reserved values included."""
    association = reach("requestor", 5)
    association.receive_data(memoryview(pdu("03", "00020909")))
    assert events(association) == [Rejected(AssociateReject(2, 9, 9)), CloseTransport()]
