"""SOP Class and SOP Instance UID of a data set, from its first bytes (PS3.5 section 7).

The receiver reads no further than (0008,0018): enough to see that the command set and the data set speak
of the same instance. Where elements are out of order it looks for it behind higher tags. Everything else is judged by workers.
"""

import struct
from typing import NamedTuple

from ingest.association.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN

EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# Deflated Explicit VR Little Endian (PS3.5 A.5): nothing can be read without inflating. Its JPIP kin are never accepted.
DEFLATED = "1.2.840.10008.1.2.1.99"

SOP_CLASS_UID = 0x0008_0016
SOP_INSTANCE_UID = 0x0008_0018

_ITEM = 0xFFFE_E000
_ITEM_DELIMITATION = 0xFFFE_E00D
_SEQUENCE_DELIMITATION = 0xFFFE_E0DD
_UNDEFINED = 0xFFFF_FFFF
# Headers looked at: a look holds up all associations, and real data sets have a dozen before their SOP Instance UID.
ELEMENTS_MAX = 4096
_UID_VALUE_MAX = 66  # 64 characters and a pad; a longer value is cut, and then differs from the command's
_LONG_VR = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)


class Unreadable(ValueError):  # noqa: N818 - named like the status it leads to, C000H "cannot understand"
    """The bytes are not a data set in the negotiated transfer syntax."""


class TooManyElements(ValueError):  # noqa: N818 - states what was found
    """More than `ELEMENTS_MAX` elements, items and delimiters come before (0008,0018)."""


class Incomplete(Exception):  # noqa: N818 - more bytes may still come
    """The bytes end before (0008,0018)."""


class Absent(Incomplete):
    """Tags above (0008,0018) came already: it is missing, unless elements are out of order, as some senders have them."""


class Identity(NamedTuple):
    """What the data set calls itself; ``None`` where the element is absent."""

    sop_class_uid: str | None
    sop_instance_uid: str | None


class _Layout(NamedTuple):
    """How a transfer syntax lays out the header of an element."""

    implicit: bool
    header: struct.Struct  # group, element, VR, 16-bit length
    long: struct.Struct  # 32-bit length


_LITTLE_ENDIAN = _Layout(implicit=False, header=struct.Struct("<HH2sH"), long=struct.Struct("<I"))
_LAYOUTS = {
    IMPLICIT_VR_LITTLE_ENDIAN: _LITTLE_ENDIAN._replace(implicit=True),
    EXPLICIT_VR_BIG_ENDIAN: _Layout(implicit=False, header=struct.Struct(">HH2sH"), long=struct.Struct(">I")),
}


class _Found:
    """What was met on the way."""

    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    is_above = False  # a tag above (0008,0018) was met


def read_identity(head: memoryview, transfer_syntax_uid: str) -> Identity:
    """Read (0008,0016) and (0008,0018) from the start of a data set that is not deflated.

    Values of defined length are stepped over, undefined ones walked into; in UN, they are in Implicit VR Little Endian
    (PS3.5 6.2.2).

    Raises:
        Incomplete: ``head`` ends before (0008,0018); `Absent` where tags above it came.
        Unreadable: the bytes are no data set in this transfer syntax.
        TooManyElements: what comes before (0008,0018) is not worth reading.
    """
    found = _Found()
    try:
        _look(head, _LAYOUTS.get(transfer_syntax_uid, _LITTLE_ENDIAN), found)
    except Incomplete:
        if found.is_above:
            raise Absent from None
        raise
    except (Unreadable, TooManyElements):
        if not found.is_above:
            raise
    return Identity(found.sop_class_uid, found.sop_instance_uid)


def _look(head: memoryview, layout: _Layout, found: _Found) -> None:
    """Walk up to (0008,0018), or a delimiter that ends nothing."""
    # Of the data set, and of what is open in it.
    layouts = [layout]
    position = 0
    for _ in range(ELEMENTS_MAX):
        tag, inside, length, position = _header(head, position, layouts[-1])
        outermost = len(layouts) == 1
        if outermost:
            found.is_above |= tag > SOP_INSTANCE_UID
            if tag == SOP_INSTANCE_UID:
                found.sop_instance_uid = _uid(head, position, length)
                return
            if tag == SOP_CLASS_UID:
                found.sop_class_uid = _uid(head, position, length)
        if tag in (_ITEM_DELIMITATION, _SEQUENCE_DELIMITATION):
            if outermost:
                return
            layouts.pop()
        elif length == _UNDEFINED:
            layouts.append(inside)
        elif tag != _ITEM or outermost:
            position += length
        # An item of defined length inside an undefined sequence is walked into: its elements are stepped over.
    raise TooManyElements


def _header(head: memoryview, position: int, layout: _Layout) -> tuple[int, _Layout, int, int]:
    """Tag of the element at ``position``, the layout of what it has inside, value length, and where its value begins."""
    end = position + 8
    if end > len(head):
        raise Incomplete
    group, element, vr, length = layout.header.unpack_from(head, position)
    inside = layout
    if layout.implicit or group == 0xFFFE:  # noqa: PLR2004 - PS3.5 7.5: items and delimiters have no VR
        (length,) = layout.long.unpack_from(head, position + 4)
    elif vr in _LONG_VR:
        if end + 4 > len(head):
            raise Incomplete
        (length,) = layout.long.unpack_from(head, end)
        end += 4
        if vr == b"UN":
            inside = _LAYOUTS[IMPLICIT_VR_LITTLE_ENDIAN]
    elif not (vr.isalpha() and vr.isupper()):
        raise Unreadable(f"no VR after tag at byte {position}")
    return group << 16 | element, inside, length, end


def _uid(head: memoryview, position: int, length: int) -> str:
    """The UID value at ``position``, its NUL or space padding taken off."""
    end = position + min(length, _UID_VALUE_MAX)
    if end > len(head):
        raise Incomplete
    return bytes(head[position:end]).rstrip(b"\0 ").decode("ascii", "replace")
