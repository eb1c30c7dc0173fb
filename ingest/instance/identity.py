"""SOP Class and SOP Instance UID of a data set, from its first bytes (PS3.5 section 7).

The receiver reads no further than (0008,0018): enough to see that the command set and the data set speak
of the same instance. Everything else is judged by workers.
"""

import struct
from typing import NamedTuple

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# PS3.5 A.5 and the JPIP and DICONDE deflated kin: nothing can be read without inflating.
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

SOP_CLASS_UID = 0x0008_0016
SOP_INSTANCE_UID = 0x0008_0018

_ITEM = 0xFFFE_E000
_ITEM_DELIMITATION = 0xFFFE_E00D
_SEQUENCE_DELIMITATION = 0xFFFE_E0DD
_UNDEFINED = 0xFFFF_FFFF
_UID_VALUE_MAX = 66  # 64 characters and a pad; a longer value is cut, and then differs from the command's
_LONG_VR = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)


class Unreadable(ValueError):  # noqa: N818 - named like the status it leads to, C000H "cannot understand"
    """The bytes are not a data set in the negotiated transfer syntax."""


class Incomplete(Exception):  # noqa: N818 - more bytes may still come
    """The bytes end before (0008,0018)."""


class Identity(NamedTuple):
    """What the data set calls itself; ``None`` where the element is absent."""

    sop_class_uid: str | None
    sop_instance_uid: str | None


class _Cursor:
    """Walks element headers; values of defined length are stepped over, undefined ones walked into."""

    def __init__(self, head: memoryview, transfer_syntax_uid: str) -> None:
        self.head = head
        self.position = 0
        self.depth = 0
        self.implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
        order = ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<"
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "I")

    def _need(self, count: int) -> None:
        if self.position + count > len(self.head):
            raise Incomplete

    def header(self) -> tuple[int, int]:
        """Tag and value length of the next element; the position moves to its value."""
        self._need(8)
        group, element = self._tag.unpack_from(self.head, self.position)
        tag = group << 16 | element
        if self.implicit or group == 0xFFFE:  # noqa: PLR2004 - PS3.5 7.5: items and delimiters have no VR
            (length,) = self._long.unpack_from(self.head, self.position + 4)
            self.position += 8
            return tag, length
        vr = bytes(self.head[self.position + 4 : self.position + 6])
        if not (vr.isalpha() and vr.isupper()):
            raise Unreadable(f"no VR after tag at byte {self.position}")
        if vr in _LONG_VR:
            self._need(12)
            (length,) = self._long.unpack_from(self.head, self.position + 8)
            self.position += 12
        else:
            (length,) = self._short.unpack_from(self.head, self.position + 6)
            self.position += 8
        return tag, length

    def uid(self, length: int) -> str:
        """The UID value at the position, its NUL or space padding taken off."""
        size = min(length, _UID_VALUE_MAX)
        self._need(size)
        value = bytes(self.head[self.position : self.position + size])
        return value.rstrip(b"\0 ").decode("ascii", "replace")

    def step(self, tag: int, length: int) -> None:
        """Move past an element, or into it where its length is undefined."""
        if tag in (_ITEM_DELIMITATION, _SEQUENCE_DELIMITATION):
            self.depth -= 1
            if self.depth < 0:
                raise Unreadable(f"delimiter without sequence before byte {self.position}")
        elif length == _UNDEFINED:
            self.depth += 1
        elif tag != _ITEM or self.depth == 0:
            self.position += length
        # An item of defined length inside an undefined sequence is walked into: its elements are stepped over.


def read_identity(head: memoryview, transfer_syntax_uid: str) -> Identity:
    """Read (0008,0016) and (0008,0018) from the start of a data set that is not deflated.

    Raises:
        Incomplete: ``head`` ends before (0008,0018) and before any tag above it.
        Unreadable: the bytes are no data set in this transfer syntax.
    """
    cursor = _Cursor(head, transfer_syntax_uid)
    sop_class_uid = None
    while True:
        tag, length = cursor.header()
        if cursor.depth == 0:
            if tag == SOP_INSTANCE_UID:
                return Identity(sop_class_uid, cursor.uid(length))
            if tag > SOP_INSTANCE_UID:
                return Identity(sop_class_uid, None)
            if tag == SOP_CLASS_UID:
                sop_class_uid = cursor.uid(length)
        cursor.step(tag, length)
