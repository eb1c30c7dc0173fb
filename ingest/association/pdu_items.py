"""The items inside A-ASSOCIATE-RQ and A-ASSOCIATE-AC (PS3.8 9.3.2 and 9.3.3, PS3.7 Annex D.3.3).

Every item is type (1 byte), reserved (1), length (2, big-endian), value. Each type below is frozen, encodes
itself with `encode`, and decodes from the value alone; `decode` raises `RemoteProtocolError` for one that is
malformed. Unknown items are ignored (PS3.8 D.2), and sub-items that nobody here reads as well where they are malformed;
of an item that comes twice the first counts, as other acceptors do it. How many there may be is bounded.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

from ingest.errors import AbortReason, RemoteProtocolError

APPLICATION_CONTEXT = 0x10
PRESENTATION_CONTEXT_RQ = 0x20
PRESENTATION_CONTEXT_AC = 0x21
ABSTRACT_SYNTAX = 0x30
TRANSFER_SYNTAX = 0x40
USER_INFORMATION = 0x50
MAXIMUM_LENGTH = 0x51
IMPLEMENTATION_CLASS_UID = 0x52
ASYNCHRONOUS_OPERATIONS_WINDOW = 0x53
ROLE_SELECTION = 0x54
IMPLEMENTATION_VERSION_NAME = 0x55
EXTENDED_NEGOTIATION = 0x56
COMMON_EXTENDED_NEGOTIATION = 0x57
USER_IDENTITY_RQ = 0x58
USER_IDENTITY_AC = 0x59

DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1, the only one

MAX_PRESENTATION_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255
MAX_TRANSFER_SYNTAXES = 64  # PS3.6 registers some 60, and a context has each at most once
# Items a level, unknown ones included. 128 contexts and the three kinds of negotiation item that may come
# once a context are 512; an honest peer stays far below twice that. So do the related classes of all items 57H.
MAX_ITEMS = 1024
# Items of a context, unknown ones included: 128 times as many as in another place take 50 ms of everybody's time.
MAX_CONTEXT_ITEMS = 80

_ITEM = struct.Struct(">BxH")
_TWO = struct.Struct(">H")
_FOUR = struct.Struct(">I")
_WINDOW = struct.Struct(">HH")
T = TypeVar("T")


def invalid(message: str) -> RemoteProtocolError:
    """The error for a value that PS3.8 does not allow: abort reason 6."""
    return RemoteProtocolError(message, AbortReason.INVALID_PDU_PARAMETER_VALUE)


def encode_item(kind: int, value: bytes) -> bytes:
    """An item with its header. A value longer than 65,535 bytes is a ``struct.error``."""
    return _ITEM.pack(kind, len(value)) + value


def decode_items(data: memoryview, maximum: int = MAX_ITEMS) -> Iterator[tuple[int, memoryview]]:
    """Yield (type, value) of each item in ``data``, as views.

    Raises:
        RemoteProtocolError: an item overruns ``data``, or there are more than ``maximum``.
    """
    position = 0
    count = 0
    while position < len(data):
        count += 1
        if count > maximum:
            raise invalid(f"more than {maximum} items in one place")
        if len(data) - position < _ITEM.size:
            raise invalid("an item header is cut")
        kind, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size
        if length > len(data) - position:
            raise invalid(f"item {kind:02X}H overruns what holds it")
        yield kind, data[position : position + length]
        position += length


def decode_text(value: bytes | memoryview) -> str:
    """Text up to a NUL, without the spaces around it; what may be a UID or an AE title is judged by negotiation.

    PS3.8 pads AE titles with spaces and nothing else. Peers append NUL or space, copy C strings into fields that they
    have not cleared, and put names there in whatever characters they have: as Latin-1, any byte survives.
    """
    return bytes(value).partition(b"\0")[0].decode("latin-1").strip(" ")


def _number(value: memoryview, layout: struct.Struct, name: str) -> int:
    if len(value) != layout.size:
        raise invalid(f"{name} has a length other than {layout.size}")
    return int(layout.unpack(value)[0])


class _Parts:
    """Reads length-prefixed parts of a value, and never past its end."""

    def __init__(self, value: memoryview, name: str) -> None:
        self._value = value
        self._name = name
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._value) - self._position

    def take(self, length: int) -> memoryview:
        if length > self.left:
            raise invalid(f"{self._name} ends early")
        part = self._value[self._position : self._position + length]
        self._position += length
        return part

    def counted(self) -> memoryview:
        """A part that its 2-byte length precedes."""
        return self.take(int(_TWO.unpack(self.take(2))[0]))

    def rest(self) -> bytes:
        return bytes(self.take(self.left))


def _counted(value: bytes) -> bytes:
    return _TWO.pack(len(value)) + value


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """Item 20H, a presentation context as proposed (PS3.8 9.3.2.2).

    ========  ======================================
    byte      content
    ========  ======================================
    1         presentation context ID, odd
    2 to 4    reserved
    5 on      one item 30H, then one or more 40H
    ========  ======================================
    """

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]

    def encode(self) -> bytes:
        """The item with its header."""
        value = bytes((self.context_id, 0, 0, 0)) + encode_item(
            ABSTRACT_SYNTAX, self.abstract_syntax.encode("latin-1")
        )
        for uid in self.transfer_syntaxes:
            value += encode_item(TRANSFER_SYNTAX, uid.encode("latin-1"))
        return encode_item(PRESENTATION_CONTEXT_RQ, value)

    @classmethod
    def decode(cls, value: memoryview) -> Self:
        """Decode the item's value.

        Raises:
            RemoteProtocolError: not one abstract syntax, not 1 to 64 transfer syntaxes, or too many items of others.
        """
        context_id = _Parts(value, "item 20H").take(4)[0]
        abstract_syntaxes = []
        transfer_syntaxes = []
        for kind, part in decode_items(value[4:], MAX_CONTEXT_ITEMS):
            if kind == ABSTRACT_SYNTAX:
                abstract_syntaxes.append(decode_text(part))
            elif kind == TRANSFER_SYNTAX:
                transfer_syntaxes.append(decode_text(part))
        if len(abstract_syntaxes) != 1:
            raise invalid("a presentation context has not exactly one abstract syntax")
        if not 1 <= len(transfer_syntaxes) <= MAX_TRANSFER_SYNTAXES:
            raise invalid(f"a presentation context has not 1 to {MAX_TRANSFER_SYNTAXES} transfer syntaxes")
        return cls(context_id, abstract_syntaxes[0], tuple(transfer_syntaxes))


@dataclass(frozen=True, slots=True)
class PresentationContextResult:
    """Item 21H, the answer to one proposed context (PS3.8 9.3.3.2).

    ========  ===========================================================
    byte      content
    ========  ===========================================================
    1         presentation context ID
    2         reserved
    3         result, 0 acceptance to 4 transfer-syntaxes-not-supported
    4         reserved
    5 on      one item 40H, without meaning unless the result is 0
    ========  ===========================================================
    """

    context_id: int
    result: int
    transfer_syntax: str

    def encode(self) -> bytes:
        """The item with its header."""
        value = bytes((self.context_id, 0, self.result, 0)) + encode_item(
            TRANSFER_SYNTAX, self.transfer_syntax.encode("latin-1")
        )
        return encode_item(PRESENTATION_CONTEXT_AC, value)

    @classmethod
    def decode(cls, value: memoryview) -> Self:
        """Decode the item's value.

        Raises:
            RemoteProtocolError: accepted, but without exactly one transfer syntax.
        """
        head = _Parts(value, "item 21H").take(4)
        syntaxes = [part for kind, part in decode_items(value[4:]) if kind == TRANSFER_SYNTAX]
        result = head[2]
        if result != 0:
            # "not significant": not even whether it is there, or what it is made of
            return cls(head[0], result, "")
        if len(syntaxes) != 1:
            raise invalid("an accepted presentation context has not exactly one transfer syntax")
        return cls(head[0], result, decode_text(syntaxes[0]))


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """Sub-item 54H: which roles the requestor would play, or may play (PS3.7 D.3.3.4)."""

    sop_class_uid: str
    scu_role: bool
    scp_role: bool

    def encode(self) -> bytes:
        """The item with its header."""
        roles = bytes((self.scu_role, self.scp_role))
        return encode_item(ROLE_SELECTION, _counted(self.sop_class_uid.encode("latin-1")) + roles)

    @classmethod
    def decode(cls, value: memoryview) -> Self:
        """Decode the item's value."""
        parts = _Parts(value, "item 54H")
        uid = decode_text(parts.counted())
        roles = parts.take(2)
        return cls(uid, roles[0] == 1, roles[1] == 1)


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """Sub-item 56H: what a service class wants to know of one SOP Class (PS3.7 D.3.3.5)."""

    sop_class_uid: str
    information: bytes

    def encode(self) -> bytes:
        """The item with its header."""
        return encode_item(
            EXTENDED_NEGOTIATION, _counted(self.sop_class_uid.encode("latin-1")) + self.information
        )

    @classmethod
    def decode(cls, value: memoryview) -> Self:
        """Decode the item's value."""
        parts = _Parts(value, "item 56H")
        return cls(decode_text(parts.counted()), parts.rest())


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """Sub-item 57H: the service class of a SOP Class, and the general classes it is kin to (PS3.7 D.3.3.6)."""

    sop_class_uid: str
    service_class_uid: str
    related_general_sop_classes: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The item with its header."""
        related = b"".join(_counted(uid.encode("latin-1")) for uid in self.related_general_sop_classes)
        value = _counted(self.sop_class_uid.encode("latin-1")) + _counted(
            self.service_class_uid.encode("latin-1")
        )
        return encode_item(COMMON_EXTENDED_NEGOTIATION, value + _counted(related))

    @classmethod
    def decode(cls, value: memoryview) -> Self:
        """Decode the item's value; what follows the related classes is reserved for later versions."""
        parts = _Parts(value, "item 57H")
        sop_class_uid = decode_text(parts.counted())
        service_class_uid = decode_text(parts.counted())
        related = []
        # PS3.7 Table D.3-11 lets the related classes be left out whole.
        if parts.left:
            uids = _Parts(parts.counted(), "item 57H")
            while uids.left:
                related.append(decode_text(uids.counted()))
                if len(related) > MAX_ITEMS:
                    raise _too_many_related()
        return cls(sop_class_uid, service_class_uid, tuple(related))


def _too_many_related() -> RemoteProtocolError:
    return invalid(f"items 57H name more than {MAX_ITEMS} related classes")


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Sub-item 58H: who the user is (PS3.7 D.3.3.7.1). Its fields are secrets and never shown.

    Types are 1 user name, 2 user name and passcode, 3 Kerberos, 4 SAML, 5 JWT.
    """

    kind: int
    positive_response_requested: bool
    primary_field: bytes
    secondary_field: bytes = b""

    def __repr__(self) -> str:
        return f"UserIdentity(kind={self.kind})"

    def encode(self) -> bytes:
        """The item with its header."""
        value = bytes((self.kind, self.positive_response_requested))
        return encode_item(
            USER_IDENTITY_RQ, value + _counted(self.primary_field) + _counted(self.secondary_field)
        )

    @classmethod
    def decode(cls, value: memoryview) -> Self:
        """Decode the item's value."""
        parts = _Parts(value, "item 58H")
        head = parts.take(2)
        return cls(head[0], head[1] == 1, bytes(parts.counted()), bytes(parts.counted()))


@dataclass(frozen=True, slots=True)
class UserInformation:
    """Item 50H and its sub-items 51H to 59H (PS3.8 9.3.2.3, D.1; PS3.7 D.3.3).

    ``maximum_length`` limits the PDU-length field of the P-DATA-TF PDUs that its sender receives; 0 means no
    limit. ``asynchronous_operations_window`` is (operations invoked, performed); 0 means any number.
    """

    maximum_length: int | None = None
    implementation_class_uid: str | None = None
    asynchronous_operations_window: tuple[int, int] | None = None
    role_selections: tuple[RoleSelection, ...] = ()
    implementation_version_name: str | None = None
    extended_negotiations: tuple[ExtendedNegotiation, ...] = ()
    common_extended_negotiations: tuple[CommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentity | None = None
    user_identity_response: bytes | None = None

    def encode(self) -> bytes:
        """The item with its header; sub-items in the order of their types."""
        value = b""
        if self.maximum_length is not None:
            value += encode_item(MAXIMUM_LENGTH, _FOUR.pack(self.maximum_length))
        if self.implementation_class_uid is not None:
            value += encode_item(IMPLEMENTATION_CLASS_UID, self.implementation_class_uid.encode("latin-1"))
        if self.asynchronous_operations_window is not None:
            value += encode_item(
                ASYNCHRONOUS_OPERATIONS_WINDOW, _WINDOW.pack(*self.asynchronous_operations_window)
            )
        value += b"".join(item.encode() for item in self.role_selections)
        if self.implementation_version_name is not None:
            value += encode_item(
                IMPLEMENTATION_VERSION_NAME, self.implementation_version_name.encode("latin-1")
            )
        value += b"".join(item.encode() for item in self.extended_negotiations)
        value += b"".join(item.encode() for item in self.common_extended_negotiations)
        if self.user_identity is not None:
            value += self.user_identity.encode()
        if self.user_identity_response is not None:
            value += encode_item(USER_IDENTITY_AC, _counted(self.user_identity_response))
        return encode_item(USER_INFORMATION, value)

    @classmethod
    def decode(cls, value: memoryview) -> Self:
        """Decode the item's value; sub-items of unknown type are ignored (PS3.8 D.2).

        Raises:
            RemoteProtocolError: a maximum length, role selection or common extended negotiation that is malformed.
        """
        single: dict[int, memoryview] = {}
        roles: list[RoleSelection] = []
        extended: list[memoryview] = []
        common: list[CommonExtendedNegotiation] = []
        related = 0
        for kind, part in decode_items(value):
            if kind == ROLE_SELECTION:
                roles.append(RoleSelection.decode(part))
            elif kind == EXTENDED_NEGOTIATION:
                extended.append(part)
            elif kind == COMMON_EXTENDED_NEGOTIATION:
                common.append(CommonExtendedNegotiation.decode(part))
                related += len(common[-1].related_general_sop_classes)
                if related > MAX_ITEMS:
                    raise _too_many_related()
            else:
                single.setdefault(kind, part)
        negotiations = [_unread(part, ExtendedNegotiation.decode) for part in extended]
        return cls(
            maximum_length=_optional_number(single.get(MAXIMUM_LENGTH)),
            implementation_class_uid=_unread(single.get(IMPLEMENTATION_CLASS_UID), decode_text),
            asynchronous_operations_window=_unread(single.get(ASYNCHRONOUS_OPERATIONS_WINDOW), _window),
            role_selections=tuple(roles),
            implementation_version_name=_unread(single.get(IMPLEMENTATION_VERSION_NAME), decode_text),
            extended_negotiations=tuple(item for item in negotiations if item is not None),
            common_extended_negotiations=tuple(common),
            user_identity=_unread(single.get(USER_IDENTITY_RQ), UserIdentity.decode),
            user_identity_response=_unread(single.get(USER_IDENTITY_AC), _response),
        )


def _optional_number(value: memoryview | None) -> int | None:
    return None if value is None else _number(value, _FOUR, "sub-item 51H")


def _unread(value: memoryview | None, decode: Callable[[memoryview], T]) -> T | None:
    """What nothing here depends on: a malformed one is none, as an association that fails for it helps nobody."""
    try:
        return None if value is None else decode(value)
    except RemoteProtocolError:
        return None


def _window(value: memoryview) -> tuple[int, int]:
    if len(value) != _WINDOW.size:
        raise invalid(f"sub-item 53H has a length other than {_WINDOW.size}")
    invoked, performed = _WINDOW.unpack(value)
    return invoked, performed


def _response(value: memoryview) -> bytes:
    return bytes(_Parts(value, "sub-item 59H").counted())
