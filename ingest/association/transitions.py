"""The DICOM Upper Layer state machine: PS3.8 section 9.2, Tables 9-6 to 9-10.

Rule 1: everything that decides a transition of an association lives here.
Rule 2: nothing here acts. An action names its effects as data; `association` turns them into events for the
driver, and the driver alone touches a socket or a timer.

An empty cell of Table 9-10 cannot be reached by a peer; reaching one is our defect.
"""

from enum import Enum, IntEnum, auto
from typing import NamedTuple


class State(IntEnum):
    """Tables 9-1 to 9-5."""

    IDLE = 1
    AWAITING_ASSOCIATE_RQ = 2
    AWAITING_LOCAL_ASSOCIATE_RESPONSE = 3
    AWAITING_TRANSPORT = 4
    AWAITING_ASSOCIATE_REPLY = 5
    ESTABLISHED = 6
    AWAITING_RELEASE_RP = 7
    AWAITING_LOCAL_RELEASE_RESPONSE = 8
    COLLISION_REQUESTOR_AWAITING_LOCAL = 9
    COLLISION_ACCEPTOR_AWAITING_RP = 10
    COLLISION_REQUESTOR_AWAITING_RP = 11
    COLLISION_ACCEPTOR_AWAITING_LOCAL = 12
    AWAITING_CLOSE = 13


class Evt(IntEnum):
    """The rows of Table 9-10: what can happen to an association."""

    ASSOCIATE_REQUEST = 1
    TRANSPORT_CONFIRMED = 2
    ASSOCIATE_AC_RECEIVED = 3
    ASSOCIATE_RJ_RECEIVED = 4
    TRANSPORT_INDICATED = 5
    ASSOCIATE_RQ_RECEIVED = 6
    ASSOCIATE_ACCEPT = 7
    ASSOCIATE_REJECT = 8
    P_DATA_REQUEST = 9
    P_DATA_RECEIVED = 10
    RELEASE_REQUEST = 11
    RELEASE_RQ_RECEIVED = 12
    RELEASE_RP_RECEIVED = 13
    RELEASE_RESPONSE = 14
    ABORT_REQUEST = 15
    ABORT_RECEIVED = 16
    TRANSPORT_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19


class Effect(Enum):
    """What an action does, one step each."""

    CONNECT = auto()  # issue TRANSPORT CONNECT request
    SEND = auto()  # send the PDU that the event is about
    SEND_USER_ABORT = auto()  # send A-ABORT, service-user source
    SEND_PROVIDER_ABORT = auto()  # send A-ABORT, service-provider source
    INDICATE = auto()  # issue the indication or confirmation that the event is about
    INDICATE_PROVIDER_ABORT = auto()  # issue A-P-ABORT indication
    START_ARTIM = auto()
    STOP_ARTIM = auto()
    CLOSE = auto()  # close the transport connection


class Action(NamedTuple):
    """A row of Tables 9-6 to 9-9: effects in order, and the next state of a requestor and of an acceptor."""

    name: str
    effects: tuple[Effect, ...]
    requestor_next: State
    acceptor_next: State


def _action(name: str, next_state: State, *effects: Effect, acceptor_next: State | None = None) -> Action:
    return Action(name, effects, next_state, next_state if acceptor_next is None else acceptor_next)


_S = State
_E = Effect

ACTIONS = {
    action.name: action
    for action in (
        # Table 9-6, association establishment
        _action("AE-1", _S.AWAITING_TRANSPORT, _E.CONNECT),
        _action("AE-2", _S.AWAITING_ASSOCIATE_REPLY, _E.SEND),
        _action("AE-3", _S.ESTABLISHED, _E.INDICATE),
        _action("AE-4", _S.IDLE, _E.INDICATE, _E.CLOSE),
        _action("AE-5", _S.AWAITING_ASSOCIATE_RQ, _E.START_ARTIM),
        # "If A-ASSOCIATE-RQ acceptable by service-dul": what the service provider itself refuses, it refuses
        # from Sta3 as AE-8 or AA-8, which send the same PDUs.
        _action("AE-6", _S.AWAITING_LOCAL_ASSOCIATE_RESPONSE, _E.STOP_ARTIM, _E.INDICATE),
        _action("AE-7", _S.ESTABLISHED, _E.SEND),
        _action("AE-8", _S.AWAITING_CLOSE, _E.SEND, _E.START_ARTIM),
        # Table 9-7, data transfer
        _action("DT-1", _S.ESTABLISHED, _E.SEND),
        _action("DT-2", _S.ESTABLISHED, _E.INDICATE),
        # Table 9-8, association release
        _action("AR-1", _S.AWAITING_RELEASE_RP, _E.SEND),
        _action("AR-2", _S.AWAITING_LOCAL_RELEASE_RESPONSE, _E.INDICATE),
        _action("AR-3", _S.IDLE, _E.INDICATE, _E.CLOSE),
        _action("AR-4", _S.AWAITING_CLOSE, _E.SEND, _E.START_ARTIM),
        _action("AR-5", _S.IDLE, _E.STOP_ARTIM),
        _action("AR-6", _S.AWAITING_RELEASE_RP, _E.INDICATE),
        _action("AR-7", _S.AWAITING_LOCAL_RELEASE_RESPONSE, _E.SEND),
        _action(
            "AR-8",
            _S.COLLISION_REQUESTOR_AWAITING_LOCAL,
            _E.INDICATE,
            acceptor_next=_S.COLLISION_ACCEPTOR_AWAITING_RP,
        ),
        _action("AR-9", _S.COLLISION_REQUESTOR_AWAITING_RP, _E.SEND),
        _action("AR-10", _S.COLLISION_ACCEPTOR_AWAITING_LOCAL, _E.INDICATE),
        # Table 9-9, association abort
        _action("AA-1", _S.AWAITING_CLOSE, _E.SEND_USER_ABORT, _E.START_ARTIM),
        _action("AA-2", _S.IDLE, _E.STOP_ARTIM, _E.CLOSE),
        _action("AA-3", _S.IDLE, _E.INDICATE, _E.CLOSE),
        _action("AA-4", _S.IDLE, _E.INDICATE_PROVIDER_ABORT),
        _action("AA-5", _S.IDLE, _E.STOP_ARTIM),
        _action("AA-6", _S.AWAITING_CLOSE),
        _action("AA-7", _S.AWAITING_CLOSE, _E.SEND_PROVIDER_ABORT),
        _action(
            "AA-8", _S.AWAITING_CLOSE, _E.SEND_PROVIDER_ABORT, _E.INDICATE_PROVIDER_ABORT, _E.START_ARTIM
        ),
    )
}

# Table 9-10, to be read beside the standard: a line an event, a column a state, "." an empty cell.
_TABLE_9_10 = """
  Sta   1     2     3     4     5     6     7     8     9     10    11    12    13
  1     AE-1  .     .     .     .     .     .     .     .     .     .     .     .
  2     .     .     .     AE-2  .     .     .     .     .     .     .     .     .
  3     .     AA-1  AA-8  .     AE-3  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
  4     .     AA-1  AA-8  .     AE-4  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
  5     AE-5  .     .     .     .     .     .     .     .     .     .     .     .
  6     .     AE-6  AA-8  .     AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-7
  7     .     .     AE-7  .     .     .     .     .     .     .     .     .     .
  8     .     .     AE-8  .     .     .     .     .     .     .     .     .     .
  9     .     .     .     .     .     DT-1  .     AR-7  .     .     .     .     .
  10    .     AA-1  AA-8  .     AA-8  DT-2  AR-6  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
  11    .     .     .     .     .     AR-1  .     .     .     .     .     .     .
  12    .     AA-1  AA-8  .     AA-8  AR-2  AR-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
  13    .     AA-1  AA-8  .     AA-8  AA-8  AR-3  AA-8  AA-8  AR-10 AR-3  AA-8  AA-6
  14    .     .     .     .     .     .     .     AR-4  AR-9  .     .     AR-4  .
  15    .     .     AA-1  AA-2  AA-1  AA-1  AA-1  AA-1  AA-1  AA-1  AA-1  AA-1  .
  16    .     AA-2  AA-3  .     AA-3  AA-3  AA-3  AA-3  AA-3  AA-3  AA-3  AA-3  AA-2
  17    .     AA-5  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AR-5
  18    .     AA-2  .     .     .     .     .     .     .     .     .     .     AA-2
  19    .     AA-1  AA-8  .     AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-7
"""


def _read_table(table: str) -> dict[tuple[Evt, State], Action]:
    _, *lines = table.strip().splitlines()
    transitions = {}
    for line in lines:
        evt, *cells = line.split()
        for state, cell in zip(State, cells, strict=True):
            if cell != ".":
                transitions[Evt(int(evt)), state] = ACTIONS[cell]
    return transitions


TRANSITIONS = _read_table(_TABLE_9_10)
