"""One association fed bytes in every way: whole, byte by byte, with a tail, cut anywhere, malformed, at random."""

import struct
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.association import (
    Aborted,
    AbortedBy,
    AcceptorPolicy,
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
from ingest.association.buffer import LONGEST_RUN
from ingest.association.p_data import encode_command, encode_data_set
from ingest.association.pdu import (
    MAX_ASSOCIATE_LENGTH,
    Abort,
    AssociateAccept,
    AssociateReject,
    DataTransfer,
    Pdu,
    PresentationDataValue,
)
from ingest.errors import AbortReason, AbortSource, LocalProtocolError, RemoteProtocolError
from tests.association.strategies import PDUS
from tests.association.test_table_9_10 import AC, HAPPEN, REQUEST, RQ, SIDES, events, reach
from tests.vectors import pdus as vectors
from tests.vectors.pdus import item, pdu

POLICY = AcceptorPolicy("SCP")
REPLY = AssociateAccept.decode(memoryview(AC)[6:])
MAXIMUM = POLICY.maximum_length
USER, PROVIDER = 0, 2


class Conversation:
    """Drives an acceptor as a receiver does, and keeps what happened, pieces of a PDV joined."""

    def __init__(self, association: Association | None = None) -> None:
        self.log: list[object] = []
        self._pieces: list[bytes] = []
        if association is None:
            association = Association()
            association.transport_opened()
        self.association = association
        self.pump()

    def feed(self, chunks: Iterable[bytes]) -> "Conversation":
        memory = bytearray(1 << 20)
        for chunk in chunks:
            memory[: len(chunk)] = chunk
            self.association.receive_data(memoryview(memory)[: len(chunk)])
            self.pump()
            memory[: len(chunk)] = b"\xee" * len(chunk)  # whoever kept a view sees it now
        return self

    def pump(self) -> None:
        while (event := self.association.next_event()) is not None:
            if isinstance(event, FragmentRun):
                self._pieces.extend(bytes(row) for row in event.rows)
                continue
            if isinstance(event, Fragment):
                self._pieces.append(bytes(event.data))
                if event.is_last:
                    self.log.append((event.context_id, event.is_command, b"".join(self._pieces)))
                    self._pieces.clear()
                continue
            self.log.append(event)
            if isinstance(event, AssociateRequested):
                self.association.answer(negotiate(event.request, POLICY))
            elif isinstance(event, ReleaseRequested):
                self.association.release_response()


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


RECEIVED_IN = {
    1: [("acceptor", 2)], 2: [("requestor", 5)], 3: [("requestor", 5)], 4: [("acceptor", 6), ("requestor", 7)],
    5: [("acceptor", 6), ("requestor", 7)], 6: [("requestor", 7), ("acceptor", 10)], 7: [("acceptor", 6)],
}  # fmt: skip


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


def test_nothing_is_taken_from_a_declared_length() -> None:
    """A gigabyte that is announced, and an A-ASSOCIATE of 1 MiB of which a byte came, cost no memory."""
    association = Association()
    association.transport_opened()
    events(association)
    association.receive_data(memoryview(b"\x01\x00" + MAX_ASSOCIATE_LENGTH.to_bytes(4, "big") + b"\x00"))
    assert events(association) == []
    assert sys.getsizeof(association._buffer._held) < 200


def aborted(association: Association, data: bytes) -> tuple[int, int]:
    """Source and reason of the A-ABORT that ``data`` provokes, fed in one go and byte by byte."""
    association.receive_data(memoryview(data))
    for event in events(association):
        if isinstance(event, SendPdu):
            assert event.pdu[0] == 7
            assert association.state is State.AWAITING_CLOSE
            assert association.fault is not None
            return event.pdu[8], event.pdu[9]
    raise AssertionError("no A-ABORT")


RQ_FIXED = "00010000" + "41" * 32 + "00" * 32

FIRST_BYTES = {
    "an HTTP request": (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", (USER, 0)),
    "a TLS hello": (bytes.fromhex("16030100c8010000c40303") + bytes(200), (USER, 0)),
    "a PDU of 4 GiB": (b"\x01\x00\xff\xff\xff\xff" + bytes(100), (USER, 0)),
    "an A-ASSOCIATE above 1 MiB": (b"\x01\x00" + (MAX_ASSOCIATE_LENGTH + 1).to_bytes(4, "big"), (USER, 0)),
    "P-DATA first": (vectors.DCMTK_C_ECHO_RQ.encoded, (USER, 0)),
    "P-DATA of 4 GiB first": (b"\x04\x00\xff\xff\xff\xff" + bytes(100), (USER, 0)),
    "release first": (vectors.RELEASE_RQ.encoded, (USER, 0)),
    "A-ASSOCIATE-AC first": (AC, (USER, 0)),
    "an RJ of a wrong length first": (pdu("03", "0001"), (USER, 0)),
    # recognized as an A-ASSOCIATE-RQ, and judged in Sta3
    "a request whose item overruns": (pdu("01", RQ_FIXED, "10ff00ff31"), (PROVIDER, 6)),
    "a request of nothing": (pdu("01"), (PROVIDER, 6)),
    "a request with endless items": (pdu("01", RQ_FIXED, item("99") * 60_000), (PROVIDER, 6)),
    "a request without contexts": (replace(REQUEST, contexts=()).encode(), (PROVIDER, 6)),
    "a request with an even context ID": (
        replace(REQUEST, contexts=(replace(REQUEST.contexts[0], context_id=2),)).encode(),
        (PROVIDER, 6),
    ),
    "a request with a context ID twice": (
        replace(REQUEST, contexts=REQUEST.contexts * 2).encode(),
        (PROVIDER, 6),
    ),
    "a request that leaves no room to answer": (
        replace(REQUEST, user_information=UserInformation(maximum_length=7)).encode(),
        (PROVIDER, 6),
    ),
}


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_bad_first_bytes(name: str) -> None:
    """Before an association there is Evt19 in Sta2, AA-1; a malformed request is aborted with its reason."""
    data, expected = FIRST_BYTES[name]
    for chunks in ([data], [data[n : n + 1] for n in range(min(len(data), 400))] + [data[400:]]):
        conversation = Conversation().feed(chunks)
        aborts = [entry for entry in conversation.log if isinstance(entry, SendPdu)]
        assert [(abort.pdu[0], abort.pdu[8], abort.pdu[9]) for abort in aborts] == [(7, *expected)]
        assert conversation.log[-1] == StartArtim()
        assert conversation.association.state is State.AWAITING_CLOSE
        assert conversation.association.fault is not None


ESTABLISHED = {
    "an unknown PDU type": (b"\x08\x00\x00\x00\x00\x00", 1),
    "PDU type 0": (bytes(6), 1),
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", 1),
    "A-ASSOCIATE-RQ": (RQ, 2),
    "the header of an A-ASSOCIATE-RQ of 4 GiB": (b"\x01\x00\xff\xff\xff\xff", 2),
    "A-ASSOCIATE-AC": (AC, 2),
    "A-ASSOCIATE-RJ": (vectors.ASSOCIATE_RJ.encoded, 2),
    "A-RELEASE-RP": (vectors.RELEASE_RP.encoded, 2),
    "A-RELEASE-RQ of length 5": (pdu("05", "0000000000"), 6),
    "A-ABORT of length 0": (pdu("07"), 6),
    "A-ABORT of 4 GiB": (b"\x07\x00\xff\xff\xff\xff", 6),
    "P-DATA beyond twice what was announced": (b"\x04\x00" + (2 * MAXIMUM + 1).to_bytes(4, "big"), 6),
    "P-DATA of 4 GiB": (b"\x04\x00\xff\xff\xff\xff" + bytes(100), 6),
    "P-DATA without PDV": (pdu("04"), 6),
    "P-DATA with half a PDV header": (pdu("04", "000000"), 6),
    "a PDV on a context that was not accepted": (pdu("04", "00000004", "0303", "0000"), 6),
    "a PDV on context 0": (pdu("04", "00000004", "0003", "0000"), 6),
    "a PDV of length 0": (pdu("04", "00000000", "0103"), 6),
    "a PDV of length 1": (pdu("04", "00000001", "0103"), 6),
    "an odd PDV": (pdu("04", "00000003", "0103", "00"), 6),
    "a PDV that overruns its PDU": (pdu("04", "00000006", "0103", "0000"), 6),
    "a PDV of 4 GiB": (pdu("04", "ffffffff", "0103", "0000"), 6),
    "a second PDV without room": (pdu("04", "00000004", "0103", "0000", "0000"), 6),
    "a second PDV that overruns": (pdu("04", "00000002", "0101", "00000004", "0103"), 6),
}


@pytest.mark.parametrize("name", ESTABLISHED)
def test_bad_bytes_in_an_association(name: str) -> None:
    """Each is aborted by the service provider with the reason of PS3.8 9.3.8, once, however it is cut."""
    data, reason = ESTABLISHED[name]
    for chunks in ([data], [data[n : n + 1] for n in range(len(data))]):
        conversation = Conversation(reach("acceptor", 6)).feed(chunks)
        log = [entry for entry in conversation.log if not isinstance(entry, tuple)]
        assert log == [
            SendPdu(Abort(PROVIDER, reason).encode()),
            Aborted(PROVIDER, reason, AbortedBy.LOCAL),
            StartArtim(),
        ]
        assert conversation.association.state is State.AWAITING_CLOSE
        # what follows is either understood and ignored, or not read at all
        conversation.feed([vectors.DCMTK_C_ECHO_RQ.encoded])
        assert conversation.log[-1] == StartArtim()


def test_a_stream_that_is_lost_is_not_read_again() -> None:
    """After a framing error nothing is interpreted, so rubbish cannot draw one A-ABORT after the other."""
    conversation = Conversation().feed([b"GET / HTTP/1.1\r\n\r\n" * 1000])
    before = len(conversation.log)
    conversation.feed([RQ, vectors.ABORT.encoded, b"\xff" * 1000])
    assert len(conversation.log) == before


def test_overshoot_is_borne_and_counted() -> None:
    """A peer that sends up to twice our maximum, having mixed up the directions, is served."""
    association = reach("acceptor", 6)
    data = bytes(2 * MAXIMUM - 6)
    conversation = Conversation(association).feed(
        bytes(buffer) for buffer in encode_data_set(1, memoryview(data), 2 * MAXIMUM, last=True)
    )
    assert conversation.log == [(1, False, data)]
    assert association.oversized_pdus == 1


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


@pytest.mark.parametrize(
    "reply",
    [
        pdu("02", "0001"),
        AC.replace(b"1.2.840.10008.1.2", b"1.2.840.10008.1.9"),
    ],
    ids=["too short", "a syntax that was not offered"],
)
def test_bad_answer(reply: bytes) -> None:
    """A requestor aborts an A-ASSOCIATE-AC that is malformed or takes what was not offered: AA-8, 2/6."""
    association = reach("requestor", 5)
    assert aborted(association, reply) == (PROVIDER, 6)


def test_rejection_tells_why() -> None:
    """A requestor learns result, source and reason, reserved values included."""
    association = reach("requestor", 5)
    association.receive_data(memoryview(pdu("03", "00020909")))
    assert events(association) == [Rejected(AssociateReject(2, 9, 9)), CloseTransport()]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([(side, state) for side in SIDES for state in SIDES[side] if state not in (1, 4)]),
    st.binary(max_size=200),
)
def test_any_bytes_in_any_state(where: tuple[str, int], data: bytes) -> None:
    """Fuzz: no exception leaves an association, whatever a peer sends."""
    association = reach(*where)
    association.receive_data(memoryview(data))
    events(association)
    association.transport_closed()
    events(association)
    assert association.state is State.IDLE


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["acceptor", "requestor"]),
    st.lists(st.sampled_from(sorted(HAPPEN)) | PDUS | st.binary(max_size=30), max_size=25),
)
def test_any_history(side: str, history: list[int | Pdu | bytes]) -> None:
    """Fuzz: after any PDUs, bytes and calls in any order, only LocalProtocolError ever came out."""
    association = Association(REQUEST if side == "requestor" else None)
    for step in history:
        try:
            if isinstance(step, int):
                HAPPEN[step](association)
            else:
                association.receive_data(memoryview(step if isinstance(step, bytes) else step.encode()))
        except LocalProtocolError:
            pass
        events(association)


def run_of(count: int, size: int = 16_372) -> bytes:
    """``count`` P-DATA-TF PDUs of one data-set fragment each, their content telling them apart."""
    return b"".join(pdv(bytes([number]) * size) for number in range(count))


def pdv(data: bytes, context_id: int = 1, control: int = 0) -> bytes:
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, context_id, control) + data


def test_equal_pdus_come_as_one_run() -> None:
    """PDUs of one size are handed out together, as views of the memory they arrived in."""
    association = reach("acceptor", 6)
    memory = np.frombuffer(run_of(10) + pdv(b"end!", control=2), np.uint8)
    association.receive_data(memory.data)
    run, last = events(association)
    assert isinstance(run, FragmentRun)
    assert run.rows.shape == (10, 16_372)
    assert np.shares_memory(run.rows, memory)
    assert [row[0] for row in run.rows] == list(range(10))
    assert last == Fragment(1, is_command=False, is_last=True, data=memoryview(b"end!"))


@pytest.mark.parametrize(
    "other",
    [pdv(bytes(16_372), control=2), pdv(bytes(16_372), control=1), pdv(bytes(16_370)), pdv(bytes(2))],
    ids=["last", "command", "shorter", "short"],
)
@pytest.mark.parametrize("before", [1, 2, 5])
def test_a_run_ends_where_a_header_differs(other: bytes, before: int) -> None:
    """Whatever differs from the PDUs before it is seen for itself, and nothing is joined across it."""
    association = reach("acceptor", 6)
    association.receive_data(memoryview(run_of(before) + other + run_of(4)))
    got = []
    for event in events(association):
        if isinstance(event, FragmentRun):
            got += [(False, len(row)) for row in event.rows]
        else:
            assert isinstance(event, Fragment)
            got.append((event.is_command, len(event.data)))
    expected = [(False, 16_372)] * before + [(bool(other[11] & 1), len(other) - 12)] + [(False, 16_372)] * 4
    assert got == expected


def test_a_run_has_a_bound_whatever_comes() -> None:
    """Each run costs a look at all that it might be, so tiny PDUs come in many: a peer must not make one look at thousands."""
    association = reach("acceptor", 6)
    size = 4096
    association.receive_data(memoryview(b"".join(pdv(bytes(2)) * 2 + pdv(bytes(4)) for _ in range(size))))
    runs = [len(event.rows) for event in events(association) if isinstance(event, FragmentRun)]
    assert set(runs) == {2}
    association.receive_data(memoryview(pdv(b"ab") * 2 * size))
    runs = [len(event.rows) for event in events(association) if isinstance(event, FragmentRun)]
    assert max(runs) == LONGEST_RUN


def test_a_run_never_hides_a_wrong_context() -> None:
    """A PDU of a context that was not accepted aborts 2/6 after the sound ones before it."""
    association = reach("acceptor", 6)
    association.receive_data(memoryview(run_of(5) + pdv(bytes(16_372), context_id=77) + run_of(3)))
    run, *rest = events(association)
    assert isinstance(run, FragmentRun)
    assert len(run.rows) == 5
    assert (
        SendPdu(Abort(AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER_VALUE).encode()) in rest
    )


def test_unread_bytes_can_be_kept() -> None:
    """After `keep_unread` the memory may be used again, and the events are the same."""
    association = reach("acceptor", 6)
    memory = bytearray(pdv(b"ab") + pdv(b"cd") + pdv(b"ef")[:-1])
    association.receive_data(memoryview(memory))
    first = association.next_event()
    assert isinstance(first, Fragment)
    assert bytes(first.data) == b"ab"
    association.keep_unread()
    memory[:] = bytes(len(memory))
    assert [bytes(event.data) for event in events(association) if isinstance(event, Fragment)] == [
        b"cd",
        b"e",
    ]
