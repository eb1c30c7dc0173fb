"""C-STORE requests as PDUs, encoded once and sent many times (PS3.8 9.3, PS3.7 9.3.1).

This encoder is the benchmarks' own, so that no fault of the product's codec can hide in its own measurement.
"""

import struct
from dataclasses import dataclass
from typing import Final

from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, IMPLEMENTATION_CLASS_UID, Template, UidSeries

DEFAULT_PDU_LENGTH: Final = 16 * 1024  # what most toolkits announce and send
CONTEXT_ID: Final = 1
MESSAGE_ID: Final = 1  # one operation at a time, so one number is enough
PDU_HEADER: Final = 6  # type, reserved, length (PS3.8 9.3.1)
_PDU: Final = struct.Struct(">BxI")
_PDV: Final = struct.Struct(">IBB")
_ITEM: Final = struct.Struct(">BxH")
_APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
_COMMAND_LAST: Final = 0x03
_DATA: Final = 0x00
_DATA_LAST: Final = 0x02


class UnexpectedAnswer(Exception):  # noqa: N818 - a fact about the peer
    """A peer answered with something else than the success that a benchmark counts."""


@dataclass(frozen=True)
class Message:
    """One C-STORE request; ``first`` holds the UIDs and is an association's own, ``rest`` may be shared."""

    first: bytearray
    rest: tuple[memoryview, ...]
    uid_offsets: tuple[int, ...]
    data_set_size: int  # bytes of the data set, which is what throughput counts

    @property
    def wire_size(self) -> int:
        """Bytes of all PDUs."""
        return len(self.first) + sum(len(piece) for piece in self.rest)

    def own(self) -> "Message":
        """The same message with UIDs of its own to patch."""
        return Message(bytearray(self.first), self.rest, self.uid_offsets, self.data_set_size)

    def patch(self, uid: bytes) -> None:
        """Make it another instance."""
        for offset in self.uid_offsets:
            self.first[offset : offset + len(uid)] = uid


def store_message(
    template: Template, pdu_length: int = DEFAULT_PDU_LENGTH, context_id: int = CONTEXT_ID
) -> Message:
    """The request that stores ``template``, in P-DATA-TF PDUs of ``pdu_length``.

    The data set is cut as one stream through its first frame; each further frame starts a PDU, so that equal
    frames are equal PDUs and are encoded once.
    """
    frames = list(template.frames())
    placeholder = template.head[template.uid_offset :][: UidSeries.LENGTH]
    command = command_set(template.kind.sop_class_uid, placeholder)
    head = template.head + frames[0]
    start = min(len(head), pdu_length - 6)
    first = bytearray(encode_fragments(command, pdu_length, _COMMAND_LAST, _COMMAND_LAST, context_id))
    only = len(frames) == 1
    first += encode_fragments(
        head[:start], pdu_length, _DATA, _DATA_LAST if only and start == len(head) else _DATA, context_id
    )
    offsets = (first.index(placeholder), first.rindex(placeholder))
    rest: list[memoryview] = []
    if start < len(head):
        rest.append(_view(head[start:], pdu_length, context_id, last=only))
    encoded: dict[int, memoryview] = {}
    for frame in frames[1:-1]:
        if id(frame) not in encoded:
            encoded[id(frame)] = _view(frame, pdu_length, context_id, last=False)
        rest.append(encoded[id(frame)])
    if not only:
        rest.append(_view(frames[-1], pdu_length, context_id, last=True))
    return Message(first, tuple(rest), offsets, template.size)


def _view(data: bytes, pdu_length: int, context_id: int, *, last: bool) -> memoryview:
    return memoryview(encode_fragments(data, pdu_length, _DATA, _DATA_LAST if last else _DATA, context_id))


def encode_fragments(
    data: bytes, pdu_length: int, control: int, last_control: int, context_id: int = CONTEXT_ID
) -> bytes:
    """``data`` as P-DATA-TF PDUs of one PDV each; the last one has ``last_control`` (PS3.8 E.2)."""
    room = pdu_length - 6  # PDV length (4), context id, control header
    pdus = []
    for start in range(0, len(data), room):
        piece = data[start : start + room]
        is_last = start + room >= len(data)
        pdus.append(_PDU.pack(0x04, len(piece) + 6))
        pdus.append(_PDV.pack(len(piece) + 2, context_id, last_control if is_last else control))
        pdus.append(piece)
    return b"".join(pdus)


def _command_element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0000, number, len(value)) + value


def _uid(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def command_set(sop_class_uid: str, sop_instance_uid: bytes) -> bytes:
    """C-STORE-RQ (PS3.7 Table 9.3-1)."""
    body = b"".join(
        (
            _command_element(0x0002, _uid(sop_class_uid.encode("ascii"))),
            _command_element(0x0100, struct.pack("<H", 0x0001)),
            _command_element(0x0110, struct.pack("<H", MESSAGE_ID)),
            _command_element(0x0700, struct.pack("<H", 0)),
            _command_element(0x0800, struct.pack("<H", 0x0001)),
            _command_element(0x1000, _uid(sop_instance_uid)),
        )
    )
    return _command_element(0x0000, struct.pack("<I", len(body))) + body


def response_pdu(sop_class_uid: str, sop_instance_uid: bytes, context_id: int = CONTEXT_ID) -> bytes:
    """A C-STORE-RSP of status 0000H, as a discard sink gives it (PS3.7 Table 9.3-2)."""
    body = b"".join(
        (
            _command_element(0x0002, _uid(sop_class_uid.encode("ascii"))),
            _command_element(0x0100, struct.pack("<H", 0x8001)),
            _command_element(0x0120, struct.pack("<H", MESSAGE_ID)),
            _command_element(0x0800, struct.pack("<H", 0x0101)),
            _command_element(0x0900, struct.pack("<H", 0)),
            _command_element(0x1000, _uid(sop_instance_uid)),
        )
    )
    command = _command_element(0x0000, struct.pack("<I", len(body))) + body
    return encode_fragments(command, DEFAULT_PDU_LENGTH, _COMMAND_LAST, _COMMAND_LAST, context_id)


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _user_information() -> bytes:
    return _item(
        0x50,
        _item(0x51, struct.pack(">I", DEFAULT_PDU_LENGTH))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode("ascii"))
        + _item(0x55, b"BENCHMARKS"),
    )


def _associate(kind: int, called: str, contexts: bytes, calling: str = "BENCHMARK") -> bytes:
    body = (
        struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode("ascii"), calling.ljust(16).encode("ascii"))
        + _item(0x10, _APPLICATION_CONTEXT)
        + contexts
        + _user_information()
    )
    return _PDU.pack(kind, len(body)) + body


def context_id_of(number: int) -> int:
    """Of the presentation context with this number from 0: odd, and the first is `CONTEXT_ID` (PS3.8 9.3.2.2)."""
    return CONTEXT_ID + 2 * number


def associate_request(
    called_ae_title: str, *sop_class_uids: str, calling_ae_title: str = "BENCHMARK"
) -> bytes:
    """A-ASSOCIATE-RQ with a context a class, each in Explicit VR Little Endian (PS3.8 9.3.2)."""
    syntax = _item(0x40, EXPLICIT_VR_LITTLE_ENDIAN.encode("ascii"))
    contexts = (
        _item(0x20, bytes((context_id_of(number), 0, 0, 0)) + _item(0x30, uid.encode("ascii")) + syntax)
        for number, uid in enumerate(sop_class_uids)
    )
    return _associate(0x01, called_ae_title, b"".join(contexts), calling_ae_title)


def associate_accept(called_ae_title: str, contexts: int = 1) -> bytes:
    """A-ASSOCIATE-AC that accepts so many contexts of `associate_request` (PS3.8 9.3.3)."""
    syntax = _item(0x40, EXPLICIT_VR_LITTLE_ENDIAN.encode("ascii"))
    accepted = (_item(0x21, bytes((context_id_of(number), 0, 0, 0)) + syntax) for number in range(contexts))
    return _associate(0x02, called_ae_title, b"".join(accepted))


RELEASE_REQUEST: Final = _PDU.pack(0x05, 4) + bytes(4)
RELEASE_RESPONSE: Final = _PDU.pack(0x06, 4) + bytes(4)


def pdu_size(received: bytes | bytearray) -> int:
    """Bytes of the first PDU, header included; those of a header while even that is not there."""
    if len(received) < PDU_HEADER:
        return PDU_HEADER
    return PDU_HEADER + int(_PDU.unpack_from(received)[1])


def first_pdu(received: bytearray) -> bytes | None:
    """Take the first PDU out of ``received``, or nothing when it is not whole yet."""
    size = pdu_size(received)
    if size == PDU_HEADER or len(received) < size:
        return None
    pdu = bytes(received[:size])
    del received[:size]
    return pdu


def accepted_pdu_length(pdu: bytes) -> int:
    """The maximum length that an A-ASSOCIATE-AC announces; 0 means no limit (PS3.8 D.1.1).

    Raises:
        UnexpectedAnswer: it is another PDU, or the context was not accepted.
    """
    if pdu[0] != 0x02:
        raise UnexpectedAnswer(f"association answered with PDU type {pdu[0]:02X}H")
    length = 0
    for kind, value in _items(pdu[74:]):
        if kind == 0x21 and value[2] != 0:
            raise UnexpectedAnswer(f"presentation context refused, reason {value[2]}")
        if kind == 0x50:
            length = next((int.from_bytes(part, "big") for sub, part in _items(value) if sub == 0x51), 0)
    return length


def _items(data: bytes) -> list[tuple[int, bytes]]:
    items, at = [], 0
    while at + 4 <= len(data):
        kind, length = _ITEM.unpack_from(data, at)
        items.append((int(kind), data[at + 4 : at + 4 + length]))
        at += 4 + length
    return items


def check_response(pdu: bytes) -> None:
    """Accept nothing but a C-STORE-RSP of status 0000H to our message, whole in one PDV.

    Raises:
        UnexpectedAnswer: anything else, with the status.
    """
    if pdu[0] != 0x04 or len(pdu) < 12:
        raise UnexpectedAnswer(f"C-STORE answered with PDU type {pdu[0]:02X}H")
    _, _, control = _PDV.unpack_from(pdu, 6)
    if control != _COMMAND_LAST:
        raise UnexpectedAnswer(f"C-STORE answered with message control header {control:02X}H")
    found: dict[int, bytes] = {}
    at = 12
    while at + 8 <= len(pdu):
        _, number, length = struct.unpack_from("<HHI", pdu, at)
        found[number] = pdu[at + 8 : at + 8 + length]
        at += 8 + length
    expected = {0x0100: 0x8001, 0x0120: MESSAGE_ID, 0x0900: 0}
    for number, value in expected.items():
        if int.from_bytes(found.get(number, b"\xff\xff"), "little") != value:
            raise UnexpectedAnswer(f"C-STORE-RSP has (0000,{number:04X}) = {found.get(number, b'').hex()}")
