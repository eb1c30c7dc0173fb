"""What the messages have in common: Command Fields (PS3.7 E.1), and elements that several of them carry."""

from ingest.contract.identifiers import UID_MAX_LENGTH
from ingest.dimse.command_set import (
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    ERROR_COMMENT,
    MESSAGE_ID_BEING_RESPONDED_TO,
    STATUS,
    US_LENGTH,
    CommandSet,
    decode_us,
    encode_command_set,
    encode_us,
)

NO_DATA_SET = 0x0101  # PS3.7 9.3: any other value of (0000,0800) announces one
ANNOUNCED = 0x0000
RESPONSE = 0x8000  # set in the Command Field of every response
MAX_ERROR_COMMENT = 64  # VR LO

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
C_CANCEL_RQ = 0x0FFF
C_STORE_RSP = C_STORE_RQ | RESPONSE
C_ECHO_RSP = C_ECHO_RQ | RESPONSE
N_EVENT_REPORT_RSP = N_EVENT_REPORT_RQ | RESPONSE
N_ACTION_RSP = N_ACTION_RQ | RESPONSE


def encode_response(
    command_field: int, message_id: int, status: int, optional: dict[int, bytes] | None = None
) -> bytes:
    """The command set of a response without data set."""
    return encode_command_set(
        {
            COMMAND_FIELD: encode_us(command_field),
            MESSAGE_ID_BEING_RESPONDED_TO: encode_us(message_id),
            COMMAND_DATA_SET_TYPE: encode_us(NO_DATA_SET),
            STATUS: encode_us(status),
            **(optional or {}),
        }
    )


def encode_uid(element: int, uid: str) -> dict[int, bytes]:
    """An echoed UID; one that cannot be is left out, since it is optional in a response."""
    return {element: uid.encode("latin-1")} if 0 < len(uid) <= UID_MAX_LENGTH else {}


def encode_comment(comment: str) -> dict[int, bytes]:
    """The Error Comment, padded; an empty one is left out."""
    value = comment.encode("ascii", "replace")
    return {ERROR_COMMENT: value + b" " * (len(value) & 1)} if value else {}


def optional_us(elements: CommandSet, element: int) -> int | None:
    """A value without which the message can be answered: a malformed one is taken for none."""
    return decode_us(elements, element) if len(elements.get(element, b"")) == US_LENGTH else None
