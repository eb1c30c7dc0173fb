"""Normalized DIMSE messages (PS3.7 section 10) as frozen types: N-ACTION and N-EVENT-REPORT.

A request to do something names the *Requested* SOP Class and Instance, its response and a report name the
*Affected* ones (PS3.7 10.1.1, 10.1.4). UIDs of a peer are not checked here: that is the service's matter.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from ingest.dimse.command_fields import (
    ANNOUNCED,
    MAX_ERROR_COMMENT,
    N_ACTION_RQ,
    N_ACTION_RSP,
    N_EVENT_REPORT_RQ,
    N_EVENT_REPORT_RSP,
    encode_comment,
    encode_response,
    encode_uid,
    optional_us,
)
from ingest.dimse.command_set import (
    ACTION_TYPE_ID,
    AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    ERROR_COMMENT,
    EVENT_TYPE_ID,
    MESSAGE_ID,
    MESSAGE_ID_BEING_RESPONDED_TO,
    REQUESTED_SOP_CLASS_UID,
    REQUESTED_SOP_INSTANCE_UID,
    STATUS,
    CommandSet,
    decode_text,
    decode_us,
    encode_command_set,
    encode_us,
)
from ingest.dimse.status import SUCCESS


@dataclass(frozen=True, slots=True)
class NActionRequest:
    """N-ACTION-RQ (PS3.7 10.3.4.1); its data set, the Action Information, follows.

    ``action_type_id`` is None where the peer sent none that can be read: the request is refused, not aborted.
    """

    command_field: ClassVar[int] = N_ACTION_RQ
    message_id: int
    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    action_type_id: int | None

    def encode(self) -> bytes:
        """The command set."""
        elements = {
            COMMAND_FIELD: encode_us(N_ACTION_RQ),
            MESSAGE_ID: encode_us(self.message_id),
            COMMAND_DATA_SET_TYPE: encode_us(ANNOUNCED),
            REQUESTED_SOP_CLASS_UID: self.requested_sop_class_uid.encode("latin-1"),
            REQUESTED_SOP_INSTANCE_UID: self.requested_sop_instance_uid.encode("latin-1"),
        }
        if self.action_type_id is not None:
            elements[ACTION_TYPE_ID] = encode_us(self.action_type_id)
        return encode_command_set(elements)

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(
            decode_us(elements, MESSAGE_ID),
            decode_text(elements, REQUESTED_SOP_CLASS_UID),
            decode_text(elements, REQUESTED_SOP_INSTANCE_UID),
            optional_us(elements, ACTION_TYPE_ID),
        )

    def respond(self, status: int = SUCCESS, *, comment: str = "") -> "NActionResponse":
        """The response to this request. It names the instance although it need not: some requestors insist."""
        return NActionResponse(
            self.message_id,
            status,
            self.requested_sop_class_uid,
            self.requested_sop_instance_uid,
            comment[:MAX_ERROR_COMMENT],
        )


@dataclass(frozen=True, slots=True)
class _Response:
    """What the responses of this section have in common: no data set, and the instance named."""

    command_field: ClassVar[int]
    message_id_being_responded_to: int
    status: int
    affected_sop_class_uid: str = ""
    affected_sop_instance_uid: str = ""
    error_comment: str = ""

    def encode(self) -> bytes:
        """The command set."""
        return encode_response(
            self.command_field,
            self.message_id_being_responded_to,
            self.status,
            encode_uid(AFFECTED_SOP_CLASS_UID, self.affected_sop_class_uid)
            | encode_uid(AFFECTED_SOP_INSTANCE_UID, self.affected_sop_instance_uid)
            | encode_comment(self.error_comment),
        )

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(
            decode_us(elements, MESSAGE_ID_BEING_RESPONDED_TO),
            decode_us(elements, STATUS),
            decode_text(elements, AFFECTED_SOP_CLASS_UID),
            decode_text(elements, AFFECTED_SOP_INSTANCE_UID),
            decode_text(elements, ERROR_COMMENT),
        )


@dataclass(frozen=True, slots=True)
class NActionResponse(_Response):
    """N-ACTION-RSP (PS3.7 10.3.4.2). ``error_comment`` has no patient data and at most 64 characters."""

    command_field: ClassVar[int] = N_ACTION_RSP


@dataclass(frozen=True, slots=True)
class NEventReportRequest:
    """N-EVENT-REPORT-RQ (PS3.7 10.3.1.1); its data set, the Event Information, follows."""

    command_field: ClassVar[int] = N_EVENT_REPORT_RQ
    message_id: int
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    event_type_id: int | None

    def encode(self) -> bytes:
        """The command set."""
        elements = {
            COMMAND_FIELD: encode_us(N_EVENT_REPORT_RQ),
            MESSAGE_ID: encode_us(self.message_id),
            COMMAND_DATA_SET_TYPE: encode_us(ANNOUNCED),
            AFFECTED_SOP_CLASS_UID: self.affected_sop_class_uid.encode("latin-1"),
            AFFECTED_SOP_INSTANCE_UID: self.affected_sop_instance_uid.encode("latin-1"),
        }
        if self.event_type_id is not None:
            elements[EVENT_TYPE_ID] = encode_us(self.event_type_id)
        return encode_command_set(elements)

    @classmethod
    def decode(cls, elements: CommandSet) -> Self:
        """From its command set."""
        return cls(
            decode_us(elements, MESSAGE_ID),
            decode_text(elements, AFFECTED_SOP_CLASS_UID),
            decode_text(elements, AFFECTED_SOP_INSTANCE_UID),
            optional_us(elements, EVENT_TYPE_ID),
        )

    def respond(self, status: int = SUCCESS, *, comment: str = "") -> "NEventReportResponse":
        """The response to this report."""
        return NEventReportResponse(
            self.message_id,
            status,
            self.affected_sop_class_uid,
            self.affected_sop_instance_uid,
            comment[:MAX_ERROR_COMMENT],
        )


@dataclass(frozen=True, slots=True)
class NEventReportResponse(_Response):
    """N-EVENT-REPORT-RSP (PS3.7 10.3.1.2)."""

    command_field: ClassVar[int] = N_EVENT_REPORT_RSP
