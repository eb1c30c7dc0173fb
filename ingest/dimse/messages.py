"""DIMSE messages as frozen types, each with its command set: here the composite ones (PS3.7 section 9).

The normalized ones (section 10) are in `normalized`; `decode_message` knows all. Each `decode` raises
`RemoteProtocolError` where an element is missing without which it cannot be answered.

A UID in a request is what the peer sent, and not checked yet: what an unusable one is answered with is
the service's matter.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import msgspec

from ingest.dimse.command_fields import (
    ANNOUNCED,
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_ECHO_RSP,
    C_STORE_RQ,
    C_STORE_RSP,
    MAX_ERROR_COMMENT,
    NO_DATA_SET,
    RESPONSE,
    encode_comment,
    encode_response,
    encode_uid,
    optional_us,
)
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
    CommandSet,
    decode_text,
    decode_us,
    encode_command_set,
    encode_us,
)
from ingest.dimse.normalized import (
    NActionRequest,
    NActionResponse,
    NEventReportRequest,
    NEventReportResponse,
)
from ingest.dimse.status import SUCCESS, UNRECOGNIZED_OPERATION

MEDIUM_PRIORITY = 0x0000


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
        optional = encode_uid(AFFECTED_SOP_CLASS_UID, self.affected_sop_class_uid)
        return encode_response(C_ECHO_RSP, self.message_id_being_responded_to, self.status, optional)

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(
            decode_us(elements, MESSAGE_ID_BEING_RESPONDED_TO),
            decode_us(elements, STATUS),
            decode_text(elements, AFFECTED_SOP_CLASS_UID),
        )


class CStoreRequest(msgspec.Struct, frozen=True):  # made for each instance, ten times as fast as a dataclass
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
            COMMAND_DATA_SET_TYPE: encode_us(ANNOUNCED),
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
            optional_us(elements, MOVE_ORIGINATOR_MESSAGE_ID),
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
        optional = encode_uid(AFFECTED_SOP_CLASS_UID, self.affected_sop_class_uid)
        optional |= encode_uid(AFFECTED_SOP_INSTANCE_UID, self.affected_sop_instance_uid)
        if self.offending_element is not None:
            group, element = divmod(self.offending_element, 0x10000)
            optional[OFFENDING_ELEMENT] = encode_us(group) + encode_us(element)
        optional |= encode_comment(self.error_comment)
        return encode_response(C_STORE_RSP, self.message_id_being_responded_to, self.status, optional)

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
        return encode_response(self.command_field, self.message_id_being_responded_to, self.status)

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(
            decode_us(elements, COMMAND_FIELD),
            decode_us(elements, MESSAGE_ID_BEING_RESPONDED_TO),
            decode_us(elements, STATUS),
        )


Request = (
    CEchoRequest | CStoreRequest | CCancelRequest | NActionRequest | NEventReportRequest | UnknownRequest
)
Response = CEchoResponse | CStoreResponse | NActionResponse | NEventReportResponse | UnknownResponse
Message = Request | Response

_MESSAGES: dict[int, type[Message]] = {
    message.command_field: message
    for message in (
        CEchoRequest,
        CEchoResponse,
        CStoreRequest,
        CStoreResponse,
        CCancelRequest,
        NActionRequest,
        NActionResponse,
        NEventReportRequest,
        NEventReportResponse,
    )
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
