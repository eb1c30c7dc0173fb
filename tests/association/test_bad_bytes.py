"""Bytes that are no DICOM, or not now: each is answered as PS3.8 says, and nothing else ever comes out."""

import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.association import (
    Aborted,
    AbortedBy,
    Association,
    SendPdu,
    StartArtim,
    State,
    UserInformation,
)
from ingest.association.p_data import encode_data_set
from ingest.association.pdu import (
    MAX_ASSOCIATE_LENGTH,
    Abort,
    Pdu,
)
from ingest.errors import LocalProtocolError
from tests.association.conversation import POLICY, Conversation
from tests.association.strategies import PDUS
from tests.association.test_table_9_10 import AC, HAPPEN, REQUEST, RQ, SIDES, events, reach
from tests.vectors import pdus as vectors
from tests.vectors.pdus import item, pdu

MAXIMUM = POLICY.maximum_length
USER, PROVIDER = 0, 2
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
