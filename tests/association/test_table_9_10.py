"""Every (event, state) pair of PS3.8 Table 9-10, by the association's own calls, against a second transcription."""

from collections.abc import Callable

import pytest

from ingest.association import (
    Aborted,
    AbortedBy,
    Accepted,
    AcceptorPolicy,
    AssociateAccepted,
    AssociateReject,
    AssociateRequest,
    AssociateRequested,
    Association,
    CloseTransport,
    Connect,
    Event,
    Fragment,
    PresentationContext,
    Rejected,
    Rejection,
    Released,
    ReleaseRequested,
    SendPdu,
    StartArtim,
    State,
    StopArtim,
    UserInformation,
    negotiate,
)
from ingest.association.transitions import TRANSITIONS
from ingest.errors import LocalProtocolError
from tests.vectors import pdus as vectors
from tests.vectors.table_9_10 import ACTIONS, COLUMNS

REQUEST = AssociateRequest(
    called_ae_title="SCP",
    calling_ae_title="SCU",
    contexts=(PresentationContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
    user_information=UserInformation(maximum_length=16384),
)
ACCEPTED = negotiate(REQUEST, AcceptorPolicy("SCP"))
assert isinstance(ACCEPTED, Accepted)
REJECT = AssociateReject.of(Rejection.TEMPORARY_CONGESTION)

RQ = REQUEST.encode()
AC = ACCEPTED.reply.encode()
RJ = REJECT.encode()
P_DATA = vectors.DCMTK_C_ECHO_RQ.encoded
RELEASE_RQ = vectors.RELEASE_RQ.encoded
RELEASE_RP = vectors.RELEASE_RP.encoded
ABORT = vectors.ABORT.encoded
UNKNOWN = b"GET / HTTP/1.1\r\n\r\n"

Step = Callable[[Association], None]


def receive(data: bytes) -> Step:
    return lambda association: association.receive_data(memoryview(data))


def answer(association: Association) -> None:
    association.answer(ACCEPTED)


def events(association: Association) -> list[Event]:
    return list(iter(association.next_event, None))


# How an acceptor and a requestor get to each state. A state that is not here is not reached by that side.
ACCEPTOR: dict[int, list[Step]] = {}
ACCEPTOR[1] = []
ACCEPTOR[2] = [Association.transport_opened]
ACCEPTOR[3] = [*ACCEPTOR[2], receive(RQ)]
ACCEPTOR[6] = [*ACCEPTOR[3], answer]
ACCEPTOR[7] = [*ACCEPTOR[6], Association.release]
ACCEPTOR[8] = [*ACCEPTOR[6], receive(RELEASE_RQ)]
ACCEPTOR[10] = [*ACCEPTOR[7], receive(RELEASE_RQ)]
ACCEPTOR[12] = [*ACCEPTOR[10], receive(RELEASE_RP)]
ACCEPTOR[13] = [*ACCEPTOR[3], lambda association: association.answer(REJECT)]
REQUESTOR: dict[int, list[Step]] = {}
REQUESTOR[1] = []
REQUESTOR[4] = [Association.open]
REQUESTOR[5] = [*REQUESTOR[4], Association.transport_opened]
REQUESTOR[6] = [*REQUESTOR[5], receive(AC)]
REQUESTOR[7] = [*REQUESTOR[6], Association.release]
REQUESTOR[8] = [*REQUESTOR[6], receive(RELEASE_RQ)]
REQUESTOR[9] = [*REQUESTOR[7], receive(RELEASE_RQ)]
REQUESTOR[11] = [*REQUESTOR[9], Association.release_response]
REQUESTOR[13] = [*REQUESTOR[6], Association.abort]

HAPPEN: dict[int, Step] = {
    1: Association.open,
    2: Association.transport_opened,
    3: receive(AC),
    4: receive(RJ),
    5: Association.transport_opened,
    6: receive(RQ),
    7: answer,
    8: lambda association: association.answer(REJECT),
    9: lambda association: association.send_command(1, b"\0\0"),
    10: receive(P_DATA),
    11: Association.release,
    12: receive(RELEASE_RQ),
    13: receive(RELEASE_RP),
    14: Association.release_response,
    15: Association.abort,
    16: receive(ABORT),
    17: Association.transport_closed,
    18: Association.artim_expired,
    19: receive(UNKNOWN),
}
PEER_EVENTS = {3, 4, 6, 10, 12, 13, 16, 19}

SIDES = {"acceptor": ACCEPTOR, "requestor": REQUESTOR}


def reach(side: str, state: int) -> Association:
    association = Association(REQUEST if side == "requestor" else None)
    for step in SIDES[side][state]:
        step(association)
        events(association)
    assert association.state == state
    return association


def notice(event: Event) -> str:
    """An event in the words of the second transcription."""
    match event:
        case SendPdu(pdu=pdu):
            if pdu[0] == 7:
                return "-> A-ABORT provider" if pdu[8] == 2 else "-> A-ABORT user"
            names = (
                "A-ASSOCIATE-RQ",
                "A-ASSOCIATE-AC",
                "A-ASSOCIATE-RJ",
                "P-DATA-TF",
                "A-RELEASE-RQ",
                "A-RELEASE-RP",
            )
            return f"-> {names[pdu[0] - 1]}"
        case Aborted(by=by):
            return "! aborted by peer" if by is AbortedBy.PEER else "! aborted by provider"
    return {
        Connect: "connect",
        StartArtim: "start ARTIM",
        StopArtim: "stop ARTIM",
        CloseTransport: "close",
        Fragment: "! data",
        AssociateRequested: "! requested",
        AssociateAccepted: "! accepted",
        Rejected: "! rejected",
        ReleaseRequested: "! release requested",
        Released: "! released",
    }[type(event)]


def possible(side: str, evt: int) -> bool:
    """Events 1 and 2 are a requestor's, 5, 7 and 8 an acceptor's."""
    return side == "requestor" if evt in (1, 2) else side == "acceptor" or evt not in (5, 7, 8)


FILLED = [
    (side, evt, state)
    for state, column in COLUMNS.items()
    for evt in column
    for side, states in SIDES.items()
    if state in states and possible(side, evt)
]
EMPTY = [
    (side, evt, state)
    for side, states in SIDES.items()
    for state in states
    for evt in HAPPEN
    if evt not in COLUMNS[state]
]


def test_two_transcriptions_agree() -> None:
    """123 pairs, the same in both, and each action leads where the second transcription says."""
    assert {(evt.value, state.value): action.name for (evt, state), action in TRANSITIONS.items()} == {
        (evt, state): name for state, column in COLUMNS.items() for evt, name in column.items()
    }
    assert len(TRANSITIONS) == 123
    for action in TRANSITIONS.values():
        following = ACTIONS[action.name][0]
        requestor, acceptor = following if isinstance(following, tuple) else (following, following)
        assert (action.requestor_next, action.acceptor_next) == (requestor, acceptor)


def test_all_pairs_are_driven() -> None:
    """The cases below leave out no pair: each is reached by at least one side."""
    assert {(evt, state) for _, evt, state in FILLED} == {
        (evt, state) for state, column in COLUMNS.items() for evt in column
    }


@pytest.mark.parametrize(("side", "evt", "state"), FILLED, ids=str)
def test_pair(side: str, evt: int, state: int) -> None:
    """An event in a state has the effects, in order, and the next state that Table 9-10 gives it."""
    association = reach(side, state)
    following, expected = ACTIONS[COLUMNS[state][evt]]
    HAPPEN[evt](association)
    noticed = tuple(notice(event) for event in events(association))
    assert noticed == expected
    if isinstance(following, tuple):
        following = following[side == "acceptor"]
    assert association.state == following
    # and nothing but Table 9-10 follows from further rubbish: no exception, no state but Sta1 or Sta13
    association.receive_data(memoryview(UNKNOWN * 3)) if following != 4 else None
    events(association)


@pytest.mark.parametrize(("side", "evt", "state"), EMPTY, ids=str)
def test_empty_cell(side: str, evt: int, state: int) -> None:
    """What cannot happen is our own mistake, and changes nothing; a closed transport is no longer listened to."""
    association = reach(side, state)
    if state == 1 and (evt in PEER_EVENTS or evt == 17):
        HAPPEN[evt](association)
    elif evt == 2 and side == "acceptor" and state == 1:
        return  # the transport opens for an acceptor as event 5, which is not an empty cell
    elif evt == 5 and side == "requestor" and state == 4:
        return  # and for a requestor as event 2
    elif evt == 14 and state == 10:
        HAPPEN[evt](association)  # kept until the cell is not empty: see the release collision
    else:
        with pytest.raises(LocalProtocolError):
            HAPPEN[evt](association)
    assert association.state == state
    assert events(association) == []


def test_release_collision() -> None:
    """PS3.8 9.2.3: both sides ask for release at once; both end released, however early each user answers."""
    requestor, acceptor = reach("requestor", 7), reach("acceptor", 7)
    requestor.receive_data(memoryview(RELEASE_RQ))
    acceptor.receive_data(memoryview(RELEASE_RQ))
    assert events(requestor) == [ReleaseRequested()]
    assert events(acceptor) == [ReleaseRequested()]
    acceptor.release_response()  # too early by the table: the requestor's comes first
    assert events(acceptor) == []
    requestor.release_response()
    assert events(requestor) == [SendPdu(RELEASE_RP)]
    acceptor.receive_data(memoryview(RELEASE_RP))
    assert events(acceptor) == [Released(), SendPdu(RELEASE_RP), StartArtim()]
    requestor.receive_data(memoryview(RELEASE_RP))
    assert events(requestor) == [Released(), CloseTransport()]
    acceptor.transport_closed()
    assert events(acceptor) == [StopArtim()]
    assert acceptor.state == State.IDLE
