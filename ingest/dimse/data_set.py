"""Just enough of PS3.5 for small data sets: sequences of references read and written, little endian.

Reading is one pass without recursion. It looks for a few elements in the data set itself and in the items of
a few of its sequences, steps over all else, and is bounded in depth and in the number of elements; what a
peer sends can cost no more than that.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ingest.contract.identifiers import InvalidIdentifier, check_uid
from ingest.dimse.status import INVALID_ARGUMENT_VALUE, RESOURCE_LIMITATION
from ingest.errors import Refused

Values = dict[int, bytes]  # by tag, 0xGGGGEEEE

# Referenced and failed instances have no sequences below them; private elements of some peers have a few.
MAX_DEPTH: Final = 16
MAX_VALUE: Final = 128  # bytes; what is read are UIDs of at most 64, AE titles and numbers

_ITEM_GROUP: Final = 0xFFFE
_ITEM: Final = 0xE000
_ITEM_DELIMITATION: Final = 0xE00D
_SEQUENCE_DELIMITATION: Final = 0xE0DD
_UNDEFINED: Final = 0xFFFF_FFFF

_IMPLICIT: Final = struct.Struct("<HHI")  # also of items and delimiters, in any transfer syntax
_EXPLICIT: Final = struct.Struct("<HH2sH")
_LONG_FORM: Final = struct.Struct("<HH2sxxI")
_LENGTH: Final = struct.Struct("<I")

# PS3.5 7.1.2: VRs with a length of four bytes, and those with one of two.
_LONG: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())


class Wanted(NamedTuple):
    """Which elements are read, by tag with their VR: of the data set itself, and of items in its sequences."""

    elements: Mapping[int, bytes]
    in_items: Mapping[int, bytes]


class _Open(NamedTuple):
    """A data set, a sequence or an item that is being read."""

    is_sequence: bool
    end: int  # where it ends, or with a delimiter at the latest
    delimited: bool
    explicit: bool
    sequence: int  # tag of the wanted sequence that it is, or is an item of
    wanted: Mapping[int, bytes]
    values: Values | None  # of what is reported once it is closed


def invalid_argument(comment: str) -> Refused:
    """The refusal of a data set that is not what it should be: 0115H, invalid argument value (PS3.7 C.5)."""
    return Refused(INVALID_ARGUMENT_VALUE, comment)


class Scanner:
    """Reads one data set.

    Args:
        data: all of it.
        explicit: whether it is in Explicit VR Little Endian, else in Implicit VR.
        wanted: what to read.
        maximum: elements, items and delimiters to look at.
    """

    __slots__ = ("_at", "_data", "_left", "_open", "_top", "_wanted")

    def __init__(self, data: bytes | bytearray, *, explicit: bool, wanted: Wanted, maximum: int) -> None:
        self._data = data
        self._at = 0
        self._left = maximum
        self._wanted = wanted
        self._open: list[_Open] = []
        self._top = _Open(
            is_sequence=False,
            end=len(data),
            delimited=False,
            explicit=explicit,
            sequence=0,
            wanted=wanted.elements,
            values={},
        )

    def items(self) -> Iterator[tuple[int, Values]]:
        """The wanted values of each item of a wanted sequence, with its tag; last, with 0, the data set's own.

        Raises:
            Refused: 0115H for a data set that cannot be read, 0213H for one that has too many elements.
        """
        while True:
            top = self._top
            closed = self._close() if self._at == top.end and not top.delimited else self._next()
            if closed is None:
                continue
            if closed.values is not None:
                yield closed.sequence, closed.values
            if closed is self._top:
                return

    def _close(self) -> _Open:
        closed = self._top
        if self._open:
            self._top = self._open.pop()
        return closed

    def _next(self) -> _Open | None:
        """Read one element, or the head of one with others inside; what it closes."""
        at, top = self._at, self._top
        if top.end - at < _IMPLICIT.size:
            raise invalid_argument("data set ends within an element")
        self._left -= 1
        if self._left < 0:
            raise Refused(RESOURCE_LIMITATION, "data set has too many elements")
        group, element, length = _IMPLICIT.unpack_from(self._data, at)
        self._at = at + _IMPLICIT.size
        if group == _ITEM_GROUP:
            return self._structure(element, length)
        if top.is_sequence:
            raise invalid_argument("a sequence has other than items")
        tag = group << 16 | element
        expected = top.wanted.get(tag)
        vr = expected
        if top.explicit:
            vr, length = self._explicit(at)
            if expected is not None and vr != expected:
                raise invalid_argument(f"({group:04X},{element:04X}) has the wrong VR")
        if length == _UNDEFINED or expected == b"SQ":
            self._open_sequence(tag, vr, length, wanted=expected is not None)
        else:
            self._value(tag, length, wanted=expected is not None)
        return None

    def _explicit(self, at: int) -> tuple[bytes, int]:
        """VR and length of the element at hand."""
        _, _, vr, length = _EXPLICIT.unpack_from(self._data, at)
        if vr in _SHORT:
            return vr, length
        if vr not in _LONG:
            raise invalid_argument("an element has an unknown VR")
        if self._top.end - self._at < _LENGTH.size:
            raise invalid_argument("data set ends within an element")
        (length,) = _LENGTH.unpack_from(self._data, self._at)
        self._at += _LENGTH.size
        return vr, length

    def _value(self, tag: int, length: int, *, wanted: bool) -> None:
        start, top = self._at, self._top
        if length > top.end - start:
            raise invalid_argument("an element is longer than what it is in")
        self._at = start + length
        if wanted:
            assert top.values is not None
            if tag in top.values or length > MAX_VALUE:
                raise invalid_argument("an element is there twice, or too long")
            top.values[tag] = bytes(self._data[start : self._at])

    def _open_sequence(self, tag: int, vr: bytes | None, length: int, *, wanted: bool) -> None:
        # PS3.5 6.2.2: an undefined length makes UN a sequence, and its items are in implicit VR.
        if vr not in (None, b"SQ", b"UN"):
            raise invalid_argument("an element has an undefined length")
        top = self._top
        if wanted:
            assert top.values is not None
            if tag in top.values:
                raise invalid_argument("a sequence is there twice")
            top.values[tag] = b""
        self._push(
            length,
            is_sequence=True,
            explicit=top.explicit and vr == b"SQ",
            sequence=tag if wanted else 0,
        )

    def _structure(self, element: int, length: int) -> _Open | None:
        """An item begins, or a delimiter closes what is open."""
        top = self._top
        if element == _ITEM and top.is_sequence:
            self._push(length, is_sequence=False, explicit=top.explicit, sequence=top.sequence)
            return None
        closes = _SEQUENCE_DELIMITATION if top.is_sequence else _ITEM_DELIMITATION
        if element != closes or not top.delimited or length:
            raise invalid_argument("an item or delimiter is out of place")
        return self._close()

    def _push(self, length: int, *, is_sequence: bool, explicit: bool, sequence: int) -> None:
        outer, delimited = self._top, length == _UNDEFINED
        if not delimited and length > outer.end - self._at:
            raise invalid_argument("a sequence or item is longer than what it is in")
        if len(self._open) >= MAX_DEPTH:
            raise invalid_argument("sequences are nested too deeply")
        self._open.append(outer)
        reported = bool(sequence) and not is_sequence
        self._top = _Open(
            is_sequence,
            outer.end if delimited else self._at + length,
            delimited,
            explicit,
            sequence,
            self._wanted.in_items if reported else {},
            {} if reported else None,
        )


def uid_of(values: Values, tag: int) -> str:
    """The UID of an element, checked.

    Raises:
        Refused: it is missing, or not usable as one.
    """
    try:
        return check_uid(values.get(tag, b"").decode("latin-1").rstrip("\0 "))
    except InvalidIdentifier:
        raise invalid_argument(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing or no UID") from None


def encode_element(tag: int, vr: bytes, value: bytes, *, explicit: bool) -> bytes:
    """One element; ``value`` is padded to an even length as its VR asks for (PS3.5 6.2)."""
    group, element = tag >> 16, tag & 0xFFFF
    if len(value) & 1:
        value += b"\0" if vr == b"UI" else b" "
    if not explicit:
        return _IMPLICIT.pack(group, element, len(value)) + value
    form = _LONG_FORM if vr in _LONG else _EXPLICIT
    return form.pack(group, element, vr, len(value)) + value


def encode_item(content: bytes) -> bytes:
    """An item of a sequence, with a defined length."""
    return _IMPLICIT.pack(_ITEM_GROUP, _ITEM, len(content)) + content
