"""DIMSE messages (PS3.7 section 9) as frozen types, each with its command set.

A UID in a request is what the peer sent, and not checked yet: what an unusable one is answered with is
the service's matter.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from ingest.contract.identifiers import UID_MAX_LENGTH
from ingest.dimse.command_set import (
    AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    ERROR_COMMENT,
    MESSAGE_ID,
    MESSAGE_ID_BEING_RESPONDED_TO,
    MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE,
    MOVE_ORIGINATOR_MESSAGE_ID,
    OFFENDING_ELEMENT,
    PRIORITY,
    STATUS,
    US_LENGTH,
    CommandSet,
    decode_text,
    decode_us,
    encode_command_set,
    encode_us,
)
from ingest.dimse.status import SUCCESS, UNRECOGNIZED_OPERATION

NO_DATA_SET = 0x0101  # PS3.7 9.3: any other value of (0000,0800) announces one
_DATA_SET = 0x0000
RESPONSE = 0x8000  # set in the Command Field of every response
MAX_ERROR_COMMENT = 64  # VR LO

# Command Fields, PS3.7 E.1
C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
C_CANCEL_RQ = 0x0FFF
C_STORE_RSP = C_STORE_RQ | RESPONSE
C_ECHO_RSP = C_ECHO_RQ | RESPONSE

MEDIUM_PRIORITY = 0x0000


def _response(
    command_field: int, message_id: int, status: int, optional: dict[int, bytes] | None = None
) -> bytes:
    return encode_command_set(
        {
            COMMAND_FIELD: encode_us(command_field),
            MESSAGE_ID_BEING_RESPONDED_TO: encode_us(message_id),
            COMMAND_DATA_SET_TYPE: encode_us(NO_DATA_SET),
            STATUS: encode_us(status),
            **(optional or {}),
        }
    )


def _optional_us(elements: CommandSet, element: int) -> int | None:
    """A value that nothing depends on: a malformed one is taken for none, and the message is served."""
    return decode_us(elements, element) if len(elements.get(element, b"")) == US_LENGTH else None


def _uid(element: int, uid: str) -> dict[int, bytes]:
    """An echoed UID; one that cannot be is left out, since it is optional in a response."""
    return {element: uid.encode("latin-1")} if 0 < len(uid) <= UID_MAX_LENGTH else {}


@dataclass(frozen=True, slots=True)
class CEchoRequest:
    """C-ECHO-RQ (PS3.7 9.3.5.1)."""

    command_field: ClassVar[int] = C_ECHO_RQ
    message_id: int
    affected_sop_class_uid: str

    def encode(self) -> bytes:
        """The command set."""
        return encode_command_set(
            {
                COMMAND_FIELD: encode_us(C_ECHO_RQ),
                MESSAGE_ID: encode_us(self.message_id),
                COMMAND_DATA_SET_TYPE: encode_us(NO_DATA_SET),
                AFFECTED_SOP_CLASS_UID: self.affected_sop_class_uid.encode("latin-1"),
            }
        )

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(decode_us(elements, MESSAGE_ID), decode_text(elements, AFFECTED_SOP_CLASS_UID))

    def respond(self, status: int = SUCCESS) -> "CEchoResponse":
        """The response to this request."""
        return CEchoResponse(self.message_id, status, self.affected_sop_class_uid)


@dataclass(frozen=True, slots=True)
class CEchoResponse:
    """C-ECHO-RSP (PS3.7 9.3.5.2)."""

    command_field: ClassVar[int] = C_ECHO_RSP
    message_id_being_responded_to: int
    status: int
    affected_sop_class_uid: str = ""

    def encode(self) -> bytes:
        """The command set."""
        optional = _uid(AFFECTED_SOP_CLASS_UID, self.affected_sop_class_uid)
        return _response(C_ECHO_RSP, self.message_id_being_responded_to, self.status, optional)

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(
            decode_us(elements, MESSAGE_ID_BEING_RESPONDED_TO),
            decode_us(elements, STATUS),
            decode_text(elements, AFFECTED_SOP_CLASS_UID),
        )


@dataclass(frozen=True, slots=True)
class CStoreRequest:
    """C-STORE-RQ (PS3.7 9.3.1.1); its data set follows. Priority is not used: instances keep their order."""

    command_field: ClassVar[int] = C_STORE_RQ
    message_id: int
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    move_originator_ae_title: str = ""
    move_originator_message_id: int | None = None

    def encode(self) -> bytes:
        """The command set."""
        elements = {
            COMMAND_FIELD: encode_us(C_STORE_RQ),
            MESSAGE_ID: encode_us(self.message_id),
            PRIORITY: encode_us(MEDIUM_PRIORITY),
            COMMAND_DATA_SET_TYPE: encode_us(_DATA_SET),
            AFFECTED_SOP_CLASS_UID: self.affected_sop_class_uid.encode("latin-1"),
            AFFECTED_SOP_INSTANCE_UID: self.affected_sop_instance_uid.encode("latin-1"),
        }
        if self.move_originator_ae_title:
            title = self.move_originator_ae_title.encode("latin-1")
            elements[MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE] = title + b" " * (len(title) & 1)
        if self.move_originator_message_id is not None:
            elements[MOVE_ORIGINATOR_MESSAGE_ID] = encode_us(self.move_originator_message_id)
        return encode_command_set(elements)

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(
            decode_us(elements, MESSAGE_ID),
            decode_text(elements, AFFECTED_SOP_CLASS_UID),
            decode_text(elements, AFFECTED_SOP_INSTANCE_UID),
            decode_text(elements, MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE),
            _optional_us(elements, MOVE_ORIGINATOR_MESSAGE_ID),
        )

    def respond(
        self, status: int = SUCCESS, *, comment: str = "", offending_element: int | None = None
    ) -> "CStoreResponse":
        """The response to this request; ``offending_element`` is a tag as 0xGGGGEEEE."""
        return CStoreResponse(
            self.message_id,
            status,
            self.affected_sop_class_uid,
            self.affected_sop_instance_uid,
            comment[:MAX_ERROR_COMMENT],
            offending_element,
        )


@dataclass(frozen=True, slots=True)
class CStoreResponse:
    """C-STORE-RSP (PS3.7 9.3.1.2). ``error_comment`` has no patient data and at most 64 characters."""

    command_field: ClassVar[int] = C_STORE_RSP
    message_id_being_responded_to: int
    status: int
    affected_sop_class_uid: str = ""
    affected_sop_instance_uid: str = ""
    error_comment: str = ""
    offending_element: int | None = None

    def encode(self) -> bytes:
        """The command set."""
        optional = _uid(AFFECTED_SOP_CLASS_UID, self.affected_sop_class_uid)
        optional |= _uid(AFFECTED_SOP_INSTANCE_UID, self.affected_sop_instance_uid)
        if self.offending_element is not None:
            group, element = divmod(self.offending_element, 0x10000)
            optional[OFFENDING_ELEMENT] = encode_us(group) + encode_us(element)
        if self.error_comment:
            comment = self.error_comment.encode("ascii", "replace")
            optional[ERROR_COMMENT] = comment + b" " * (len(comment) & 1)
        return _response(C_STORE_RSP, self.message_id_being_responded_to, self.status, optional)

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set; of several offending elements the first."""
        offending = elements.get(OFFENDING_ELEMENT, b"")[:4]
        return cls(
            decode_us(elements, MESSAGE_ID_BEING_RESPONDED_TO),
            decode_us(elements, STATUS),
            decode_text(elements, AFFECTED_SOP_CLASS_UID),
            decode_text(elements, AFFECTED_SOP_INSTANCE_UID),
            decode_text(elements, ERROR_COMMENT),
            None if len(offending) != 4 else _tag(offending),  # noqa: PLR2004 - VR AT
        )


def _tag(value: bytes) -> int:
    return int.from_bytes(value[:2], "little") << 16 | int.from_bytes(value[2:], "little")


@dataclass(frozen=True, slots=True)
class CCancelRequest:
    """C-CANCEL-RQ (PS3.7 9.3.2.3): has no response, and nothing here can be cancelled."""

    command_field: ClassVar[int] = C_CANCEL_RQ
    message_id_being_responded_to: int

    def encode(self) -> bytes:
        """The command set."""
        return encode_command_set(
            {
                COMMAND_FIELD: encode_us(C_CANCEL_RQ),
                MESSAGE_ID_BEING_RESPONDED_TO: encode_us(self.message_id_being_responded_to),
                COMMAND_DATA_SET_TYPE: encode_us(NO_DATA_SET),
            }
        )

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(decode_us(elements, MESSAGE_ID_BEING_RESPONDED_TO))


@dataclass(frozen=True, slots=True)
class UnknownRequest:
    """A request for an operation that is not served; answered 0211H once its data set has passed."""

    command_field: int
    message_id: int

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(decode_us(elements, COMMAND_FIELD), decode_us(elements, MESSAGE_ID))

    def respond(self) -> "UnknownResponse":
        """The response: status 0211H, unrecognized operation (PS3.7 C.5.21)."""
        return UnknownResponse(self.command_field | RESPONSE, self.message_id, UNRECOGNIZED_OPERATION)


@dataclass(frozen=True, slots=True)
class UnknownResponse:
    """A response to an operation that is not ours."""

    command_field: int
    message_id_being_responded_to: int
    status: int

    def encode(self) -> bytes:
        """The command set."""
        return _response(self.command_field, self.message_id_being_responded_to, self.status)

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(
            decode_us(elements, COMMAND_FIELD),
            decode_us(elements, MESSAGE_ID_BEING_RESPONDED_TO),
            decode_us(elements, STATUS),
        )


Request = CEchoRequest | CStoreRequest | CCancelRequest | UnknownRequest
Response = CEchoResponse | CStoreResponse | UnknownResponse
Message = Request | Response

_MESSAGES: dict[int, type[Message]] = {
    message.command_field: message
    for message in (CEchoRequest, CEchoResponse, CStoreRequest, CStoreResponse, CCancelRequest)
}


def decode_message(elements: CommandSet) -> Message:
    """The message of a command set.

    Raises:
        RemoteProtocolError: an element is missing without which it cannot be answered.
    """
    command_field = decode_us(elements, COMMAND_FIELD)
    unknown = UnknownResponse if command_field & RESPONSE else UnknownRequest
    return _MESSAGES.get(command_field, unknown).decode(elements)


def has_data_set(elements: CommandSet) -> bool:
    """Whether a data set follows: any value but 0101H says so (PS3.7 E.1)."""
    return decode_us(elements, COMMAND_DATA_SET_TYPE) != NO_DATA_SET
