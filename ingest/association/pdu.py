"""The seven PDUs of the DICOM Upper Layer (PS3.8 9.3), decoded and encoded.

Everything here is big-endian and unsigned. Every PDU is type (1 byte), reserved (1), PDU-length (4, counts
what follows it), body. Reserved bytes are sent as zero and never tested. Each `decode` takes a body, and raises
`RemoteProtocolError` for one that is malformed.

`decode_pdu` takes a whole body; whoever has the bytes of a P-DATA-TF as they arrive reads them with
`buffer.ReceiveBuffer` instead, which never waits for a whole one.
"""

import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Self

from ingest.association.pdu_items import (
    APPLICATION_CONTEXT,
    DICOM_APPLICATION_CONTEXT,
    MAX_PRESENTATION_CONTEXTS,
    PRESENTATION_CONTEXT_AC,
    PRESENTATION_CONTEXT_RQ,
    USER_INFORMATION,
    PresentationContext,
    PresentationContextResult,
    UserInformation,
    decode_items,
    decode_text,
    encode_item,
    invalid,
)
from ingest.errors import AbortReason, AbortSource, RemoteProtocolError

ASSOCIATE_RQ = 0x01
ASSOCIATE_AC = 0x02
ASSOCIATE_RJ = 0x03
P_DATA_TF = 0x04
RELEASE_RQ = 0x05
RELEASE_RP = 0x06
ABORT = 0x07

HEADER = struct.Struct(">BxI")
ONE_PDV = struct.Struct(">BxIIBB")  # the header of a P-DATA-TF and that of its first PDV
PDV_HEADER = struct.Struct(">IBB")  # item-length, presentation-context-ID, message control header
LAST = 2  # bit 1 of the message control header (PS3.8 E.2)
PDV_OVERHEAD = PDV_HEADER.size  # what a PDV costs of a PDU-length beside its fragment
SHORT_LENGTH = 4  # PDU-length of RJ, RELEASE-RQ, RELEASE-RP and ABORT
# DCMTK's own limit of an A-ASSOCIATE. 128 contexts of 64 transfer syntaxes of 64 characters are 557 KiB.
MAX_ASSOCIATE_LENGTH = 1024 * 1024

_ASSOCIATE = struct.Struct(">H2x16s16s32s")
_PROTOCOL_VERSION = 0x0001  # PS3.8 9.3.2: bit 0 is version 1


def encode_pdu(kind: int, body: bytes) -> bytes:
    """A PDU with its header."""
    return HEADER.pack(kind, len(body)) + body


def _encode_ae_title(title: str) -> bytes:
    return title.encode("latin-1")[:16].ljust(16)


class _AssociateBody(NamedTuple):
    """What A-ASSOCIATE-RQ and -AC have in common (PS3.8 9.3.2, 9.3.3).

    ==========  =========================================================
    byte        content
    ==========  =========================================================
    7 to 8      protocol version, a bit each; only bit 0 is tested
    9 to 10     reserved
    11 to 26    called AE title, space-padded
    27 to 42    calling AE title, space-padded
    43 to 74    reserved
    75 on       items 10H, 20H or 21H, 50H
    ==========  =========================================================
    """

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    reserved: bytes
    application_context: str
    contexts: list[memoryview]
    user_information: UserInformation

    @classmethod
    def decode(cls, body: memoryview, context_kind: int) -> Self:
        if len(body) < _ASSOCIATE.size:
            raise invalid("an A-ASSOCIATE PDU is shorter than its fixed part")
        version, called, calling, reserved = _ASSOCIATE.unpack_from(body)
        single: dict[int, memoryview] = {}
        contexts: list[memoryview] = []
        for kind, value in decode_items(body[_ASSOCIATE.size :]):
            if kind == context_kind:
                contexts.append(value)
            elif kind in (APPLICATION_CONTEXT, USER_INFORMATION):
                single.setdefault(kind, value)
        if len(contexts) > MAX_PRESENTATION_CONTEXTS:
            raise invalid(f"more than {MAX_PRESENTATION_CONTEXTS} presentation contexts")
        return cls(
            version,
            decode_text(called),
            decode_text(calling),
            reserved,
            decode_text(single.get(APPLICATION_CONTEXT, b"")),
            contexts,
            UserInformation.decode(single.get(USER_INFORMATION, memoryview(b""))),
        )


def _encode_associate(
    kind: int,
    pdu: "AssociateRequest | AssociateAccept",
    contexts: tuple[PresentationContext, ...] | tuple[PresentationContextResult, ...],
) -> bytes:
    fixed = _ASSOCIATE.pack(
        pdu.protocol_version,
        _encode_ae_title(pdu.called_ae_title),
        _encode_ae_title(pdu.calling_ae_title),
        pdu.reserved,
    )
    items = encode_item(APPLICATION_CONTEXT, pdu.application_context.encode("latin-1"))
    items += b"".join(context.encode() for context in contexts)
    return encode_pdu(kind, fixed + items + pdu.user_information.encode())


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2). AE titles are without padding, as sent, and not yet checked."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[PresentationContext, ...]
    user_information: UserInformation
    application_context: str = DICOM_APPLICATION_CONTEXT
    protocol_version: int = _PROTOCOL_VERSION
    reserved: bytes = field(default=bytes(32), repr=False)

    def encode(self) -> bytes:
        """The whole PDU."""
        return _encode_associate(ASSOCIATE_RQ, self, self.contexts)

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        """Decode the body.

        Raises:
            RemoteProtocolError: it is malformed, or beyond the limits of `pdu_items`.
        """
        parts = _AssociateBody.decode(body, PRESENTATION_CONTEXT_RQ)
        return cls(
            parts.called_ae_title,
            parts.calling_ae_title,
            tuple(PresentationContext.decode(value) for value in parts.contexts),
            parts.user_information,
            parts.application_context,
            parts.protocol_version,
            parts.reserved,
        )


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """A-ASSOCIATE-AC (PS3.8 9.3.3). The AE titles and ``reserved`` echo the request and are not tested."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[PresentationContextResult, ...]
    user_information: UserInformation
    application_context: str = DICOM_APPLICATION_CONTEXT
    protocol_version: int = _PROTOCOL_VERSION
    reserved: bytes = field(default=bytes(32), repr=False)

    def encode(self) -> bytes:
        """The whole PDU."""
        return _encode_associate(ASSOCIATE_AC, self, self.contexts)

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        """Decode the body.

        Raises:
            RemoteProtocolError: it is malformed, or beyond the limits of `pdu_items`.
        """
        parts = _AssociateBody.decode(body, PRESENTATION_CONTEXT_AC)
        return cls(
            parts.called_ae_title,
            parts.calling_ae_title,
            tuple(PresentationContextResult.decode(value) for value in parts.contexts),
            parts.user_information,
            parts.application_context,
            parts.protocol_version,
            parts.reserved,
        )


class Rejection(Enum):
    """The (result, source, reason) of an A-ASSOCIATE-RJ that may be sent (PS3.8 Table 9-21); others are reserved.

    Result 1 is permanent, 2 transient; source 1 is the service user, 2 the ACSE related service provider,
    3 the presentation related service provider. A reason has meaning only beside its source.
    """

    NO_REASON_GIVEN = (1, 1, 1)
    APPLICATION_CONTEXT_NAME_NOT_SUPPORTED = (1, 1, 2)
    CALLING_AE_TITLE_NOT_RECOGNIZED = (1, 1, 3)
    CALLED_AE_TITLE_NOT_RECOGNIZED = (1, 1, 7)
    PROTOCOL_VERSION_NOT_SUPPORTED = (1, 2, 2)
    TEMPORARY_CONGESTION = (2, 3, 1)
    LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True, slots=True)
class AssociateReject:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4): reserved (1), result (1), source (1), reason (1)."""

    result: int
    source: int
    reason: int

    @classmethod
    def of(cls, rejection: Rejection) -> Self:
        """The PDU for one of the reasons that we give."""
        return cls(*rejection.value)

    def encode(self) -> bytes:
        """The whole PDU."""
        return encode_pdu(ASSOCIATE_RJ, bytes((0, self.result, self.source, self.reason)))

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        """Decode the body."""
        check_short(len(body))
        return cls(body[1], body[2], body[3])


class PresentationDataValue(NamedTuple):
    """One PDV of a P-DATA-TF (PS3.8 9.3.5.1); the control header's bits are ``is_command``, ``is_last``."""

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes

    def encode(self) -> bytes:
        """The PDV with its header."""
        control = self.is_command | self.is_last << 1
        return PDV_HEADER.pack(len(self.data) + 2, self.context_id, control) + self.data


@dataclass(frozen=True, slots=True)
class DataTransfer:
    """P-DATA-TF (PS3.8 9.3.5): one or more PDVs, all of one message (Annex E)."""

    values: tuple[PresentationDataValue, ...]

    def encode(self) -> bytes:
        """The whole PDU."""
        return encode_pdu(P_DATA_TF, b"".join(value.encode() for value in self.values))

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        """Decode the body.

        Raises:
            RemoteProtocolError: no PDV, or one with a length that cannot be.
        """
        values = []
        position = 0
        while True:
            check_pdv(body[position : position + PDV_OVERHEAD], len(body) - position)
            length, context_id, control = PDV_HEADER.unpack_from(body, position)
            end = position + 4 + length
            data = bytes(body[position + PDV_OVERHEAD : end])
            values.append(PresentationDataValue(context_id, bool(control & 1), bool(control & LAST), data))
            position = end
            if position == len(body):
                return cls(tuple(values))


def check_pdv(header: bytes | memoryview, room: int) -> None:
    """Check a PDV's header against the ``room`` that the PDU has left for all of it (PS3.8 9.3.5.1).

    Raises:
        RemoteProtocolError: no room for a header, an item-length below 2 or odd, or beyond the PDU.
    """
    if room < PDV_OVERHEAD:
        raise invalid("a P-DATA-TF PDU ends before or within the header of a PDV")
    length = PDV_HEADER.unpack(header)[0]
    if length < 2 or length & 1:  # noqa: PLR2004 - context ID and control header; PS3.8 E.2: fragments are even
        raise invalid("the length of a PDV is below 2 or odd")
    if length > room - 4:
        raise invalid("a PDV overruns its PDU")


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A-RELEASE-RQ (PS3.8 9.3.6): four reserved bytes."""

    def encode(self) -> bytes:
        """The whole PDU."""
        return encode_pdu(RELEASE_RQ, bytes(SHORT_LENGTH))

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        """Decode the body."""
        check_short(len(body))
        return cls()


@dataclass(frozen=True, slots=True)
class ReleaseResponse:
    """A-RELEASE-RP (PS3.8 9.3.7): four reserved bytes."""

    def encode(self) -> bytes:
        """The whole PDU."""
        return encode_pdu(RELEASE_RP, bytes(SHORT_LENGTH))

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        """Decode the body."""
        check_short(len(body))
        return cls()


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT (PS3.8 9.3.8): reserved (2), source (1), reason (1, without meaning from a service user)."""

    source: int = AbortSource.SERVICE_USER
    reason: int = AbortReason.NOT_SPECIFIED

    def encode(self) -> bytes:
        """The whole PDU."""
        return encode_pdu(ABORT, bytes((0, 0, self.source, self.reason)))

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        """Decode the body."""
        check_short(len(body))
        return cls(body[2], body[3])


def check_short(length: int) -> None:
    """Check the PDU-length of an A-ASSOCIATE-RJ, A-RELEASE or A-ABORT.

    Raises:
        RemoteProtocolError: it is not `SHORT_LENGTH`.
    """
    if length != SHORT_LENGTH:
        raise invalid(f"an RJ, RELEASE or ABORT PDU has a length other than {SHORT_LENGTH}")


Pdu = (
    AssociateRequest
    | AssociateAccept
    | AssociateReject
    | DataTransfer
    | ReleaseRequest
    | ReleaseResponse
    | Abort
)

_DECODERS: dict[int, type[Pdu]] = {
    ASSOCIATE_RQ: AssociateRequest,
    ASSOCIATE_AC: AssociateAccept,
    ASSOCIATE_RJ: AssociateReject,
    P_DATA_TF: DataTransfer,
    RELEASE_RQ: ReleaseRequest,
    RELEASE_RP: ReleaseResponse,
    ABORT: Abort,
}


def decode_pdu(kind: int, body: memoryview) -> Pdu:
    """Decode a whole PDU of type ``kind``.

    Raises:
        RemoteProtocolError: an unknown type (abort reason 1), or a malformed body (6).
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise RemoteProtocolError("unknown PDU type", AbortReason.UNRECOGNIZED_PDU)
    return decoder.decode(body)
