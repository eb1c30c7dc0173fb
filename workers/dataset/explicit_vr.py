"""A data set's elements as Explicit VR Little Endian, around the place of its pixel data (PS3.5 A.2, A.4).

From Explicit VR Little Endian the very bytes are spliced. From the other encodings the values are kept and
their headers written anew: the VR is the one on the wire; from implicit VR it is the dictionary's, and UN
where no dictionary knows the element or the value does not fit the VR that it names.

Group lengths (7.2, retired) are left out where they would become wrong: all of them when headers are written
anew, else those of the pixel data's group and of groups with a changed element. They are never recomputed:
7.2 asks readers to ignore them.
"""

import struct
from collections.abc import Mapping, Sequence

from workers.dataset.byte_order import LittleEndianPayload, little_endian
from workers.dataset.dictionary import TEXT_VRS, private_vr, public_vr
from workers.dataset.elements import (
    LONG_VRS,
    LONGEST_DEFINED,
    LONGEST_SHORT,
    PIXEL_DATA,
    SHORT_VRS,
    UNDEFINED,
    Element,
    Kind,
    Token,
    Walker,
    is_group_length,
)
from workers.dataset.payload import JoinedPayload, MemoryPayload, Payload, SlicePayload
from workers.dataset.pixel_data import PIXEL_REPRESENTATION
from workers.dataset.transfer_syntax import Encoding

_SHORT = struct.Struct("<HH2sH").pack  # PS3.5 Table 7.1-2
_LONG = struct.Struct("<HH2sHI").pack  # PS3.5 Table 7.1-1
_ITEM = struct.Struct("<HHI").pack
_LENGTH = struct.Struct("<I").pack_into
_ITEM_END = _ITEM(0xFFFE, 0xE00D, 0)
_SEQUENCE_END = _ITEM(0xFFFE, 0xE0DD, 0)

_SLICED = 4096  # bytes; longer values are not copied
_MOST_COPIED = 64 * 1024 * 1024  # bytes of headers and short values that one data set may hold in memory

_LUT_DESCRIPTOR = 0x0028_3002
_LUT_DATA = 0x0028_3006
_FIRST_CREATOR, _LAST_CREATOR = 0x10, 0xFF  # PS3.5 7.8.1: (gggg,0010-00FF)

_SHORT_VRS = frozenset(vr.decode("ascii") for vr in SHORT_VRS)
_KNOWN_VRS = _SHORT_VRS | {vr.decode("ascii") for vr in LONG_VRS}
# PS3.5 6.2: bytes of one value; a value of another length cannot be of that VR.
_WIDTHS = {
    **dict.fromkeys(("US", "SS", "OW"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "AT", "OF", "OL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}


class CannotReencode(Exception):  # noqa: N818 - the instance is sound, it only stays as it was received
    """The data set has two Pixel Data elements, or is too large in its small elements to be written anew."""


def explicit_header(tag: int, vr: str, length: int) -> bytes:
    """The header of an element (PS3.5 7.1.2)."""
    group, number = tag >> 16, tag & 0xFFFF
    if vr in _SHORT_VRS:
        return _SHORT(group, number, vr.encode("ascii"), length)
    return _LONG(group, number, vr.encode("ascii"), 0, length)


def explicit_element(tag: int, vr: str, value: bytes) -> bytes:
    """A whole element; ``value`` is padded to even length (PS3.5 6.2: text with a space, UI and bytes with NUL)."""
    if len(value) % 2:
        value += b" " if vr in TEXT_VRS and vr != "UI" else b"\0"
    return explicit_header(tag, vr, len(value)) + value


class _DataSet:
    """What one data set tells about the VRs of its elements."""

    def __init__(self, pixel_representation: int) -> None:
        self.pixel_representation = pixel_representation
        self.lut_entries = 0
        self.creators: dict[int, str] = {}  # by group and block, as the upper 24 bits of their elements' tags

    def learn(self, tag: int, value: bytes) -> None:
        """Take up what later elements depend on; ``value`` is little endian."""
        number = tag & 0xFFFF
        if tag & 0x1_0000:
            if _FIRST_CREATOR <= number <= _LAST_CREATOR:
                self.creators[(tag >> 16) << 8 | number] = value.rstrip(b" \0").decode("latin-1")
        elif tag == PIXEL_REPRESENTATION:
            self.pixel_representation = int.from_bytes(value[:2], "little")
        elif tag == _LUT_DESCRIPTOR:
            self.lut_entries = int.from_bytes(value[:2], "little")

    def vr(self, tag: int) -> str:
        """The VR of an element that came without one; ``UN`` where nothing tells it."""
        if tag & 0x1_0000:
            if _FIRST_CREATOR <= tag & 0xFFFF <= _LAST_CREATOR:
                return "LO"
            creator = self.creators.get(tag >> 8)
            return "UN" if creator is None else private_vr(tag, creator)
        vr = public_vr(tag)
        if len(vr) == 2:  # noqa: PLR2004 - no choice
            return vr
        if vr == "US or SS":
            # PS3.3 C.7.6.3: these attributes have the sign of the pixels they speak of.
            return "SS" if self.pixel_representation == 1 else "US"
        if tag == _LUT_DATA:
            # PS3.3 C.11.1.1: with one entry there is one value.
            return "US" if self.lut_entries == 1 else "OW"
        return "OW"  # PS3.5 A.1: in implicit VR what may be OB or OW is OW


class _Writer:
    """Writes tokens of a walk as Explicit VR Little Endian. Lengths are filled in when their end is known."""

    def __init__(self, payload: Payload, walker: Walker, pixel_representation: int) -> None:
        self._payload = payload
        self._walker = walker
        self._segments: list[Payload] = []
        self._buffer = bytearray()
        self._start = 0  # of the buffer, in the output
        self._copied = 0
        self._data_sets = [_DataSet(pixel_representation)]
        self._open: list[
            tuple[bytearray, int, int]
        ] = []  # where a length goes; output position behind it, or -1
        self._raw_depth = -1  # of the sequence that is kept as bytes, while inside it

    @property
    def _position(self) -> int:
        return self._start + len(self._buffer)

    def take(self) -> Payload:
        """What has been written since the last call."""
        self._flush()
        taken = JoinedPayload(self._segments)
        self._segments = []
        return taken

    def _flush(self) -> None:
        if self._buffer:
            self._start += len(self._buffer)
            # Lengths may still be filled in; the memoryview sees that, since the buffer no longer grows.
            self._segments.append(MemoryPayload([self._buffer]))
            self._buffer = bytearray()

    def _put(self, data: bytes) -> None:
        self._copied += len(data)
        if self._copied > _MOST_COPIED:
            raise CannotReencode(f"more than {_MOST_COPIED} bytes of small elements")
        self._buffer += data

    def _put_value(self, token: Token, *, turn: bool) -> None:
        """A value's bytes: copied if short, else left where they are."""
        if token.length <= _SLICED:
            value = self._walker.value(token)
            self._put(little_endian(value, token.vr) if turn else bytes(value))
            return
        piece: Payload = SlicePayload(self._payload, token.value, token.length)
        self._flush()
        self._segments.append(LittleEndianPayload(piece, token.vr) if turn else piece)
        self._start += token.length

    def insert(self, element: bytes | None) -> None:
        """A whole element in place of one that was not written."""
        if element is not None:
            self._put(element)

    def write(self, token: Token) -> None:
        """The next token, unless it is inside something that is kept as bytes."""
        kind = token.kind
        if self._raw_depth >= 0:
            if kind is Kind.SEQUENCE_END and token.depth == self._raw_depth:
                self._raw_depth = -1
            return
        if kind is Kind.VALUE:
            self._write_value(token)
        elif kind is Kind.SEQUENCE:
            self._begin_sequence(token)
        elif kind is Kind.ITEM:
            self._begin(_ITEM(0xFFFE, 0xE000, UNDEFINED), token.length)
            self._data_sets.append(_DataSet(self._data_sets[-1].pixel_representation))
        elif kind is Kind.ITEM_END:
            self._data_sets.pop()
            self._end(_ITEM_END)
        elif kind is Kind.SEQUENCE_END:
            self._end(_SEQUENCE_END)
        elif kind is Kind.FRAGMENTS:
            self._put(explicit_header(token.tag, "OB", UNDEFINED))
        elif kind is Kind.FRAGMENT:
            self._put(_ITEM(0xFFFE, 0xE000, token.length))
            self._put_value(token, turn=False)
        else:
            self._put(_SEQUENCE_END)

    def _vr(self, token: Token) -> str:
        if not token.vr:
            return self._data_sets[-1].vr(token.tag)
        vr = token.vr.decode("ascii")
        return vr if vr in _KNOWN_VRS else "UN"

    def _write_value(self, token: Token) -> None:
        tag = token.tag
        if is_group_length(tag, token.length):
            return
        vr = self._vr(token)
        if (
            (
                vr == "SQ" and token.length  # not items, as the walk has found
            )
            or token.length % _WIDTHS.get(vr, 1)
            or (vr in _SHORT_VRS and token.length > LONGEST_SHORT)
        ):
            vr = "UN"
        turn = token.big and vr != "UN"
        if token.length <= _SLICED:
            value = self._walker.value(token)
            self._data_sets[-1].learn(tag, little_endian(value, token.vr) if turn else bytes(value))
        self._put(explicit_header(tag, vr, token.length))
        self._put_value(token, turn=turn)

    def _begin_sequence(self, token: Token) -> None:
        """A sequence whose VR is SQ, or that only a delimiter ends, is written anew; others stay bytes."""
        if self._vr(token) == "SQ" or token.length == UNDEFINED:
            self._begin(explicit_header(token.tag, "SQ", UNDEFINED), token.length)
            return
        self._raw_depth = token.depth
        self._write_value(token)

    def _begin(self, header: bytes, length: int) -> None:
        self._put(header)
        self._open.append(
            (self._buffer, len(self._buffer) - 4, -1 if length == UNDEFINED else self._position)
        )

    def _end(self, delimiter: bytes) -> None:
        """End an item or sequence in the form it came in; one grown too long for a length gets a delimiter."""
        buffer, at, start = self._open.pop()
        length = self._position - start
        if start < 0 or length > LONGEST_DEFINED:
            self._put(delimiter)
        else:
            _LENGTH(buffer, at, length)


def _spliced(
    payload: Payload, elements: Sequence[Element], changes: Mapping[int, bytes | None]
) -> tuple[Payload, Payload]:
    """Explicit VR Little Endian as it is, but for what is changed and the group lengths that this makes wrong."""
    groups = {tag >> 16 for tag in changes} | {PIXEL_DATA >> 16}
    sides: tuple[list[Payload], list[Payload]] = [], []
    segments = sides[0]
    start = 0
    for element in elements:
        tag = element.tag
        stale = is_group_length(tag, element.length) and tag >> 16 in groups
        if tag != PIXEL_DATA and tag not in changes and not stale:
            continue
        segments.append(SlicePayload(payload, start, element.offset - start))
        start = element.end
        change = changes.get(tag)
        if tag == PIXEL_DATA:
            segments = sides[1]
        elif change is not None:
            segments.append(MemoryPayload([change]))
    end = elements[-1].end if elements else 0
    segments.append(SlicePayload(payload, start, end - start))
    return JoinedPayload(sides[0]), JoinedPayload(sides[1])


def explicit_vr(
    payload: Payload,
    encoding: Encoding,
    elements: Sequence[Element],
    changes: Mapping[int, bytes | None] | None = None,
) -> tuple[Payload, Payload]:
    """All elements but top-level Pixel Data as Explicit VR Little Endian: those before it, those behind it.

    ``elements``: the top-level index of ``payload``, as `validate` gives it. ``changes``: for the tag of a
    top-level element either a whole element to stand in its place (see `explicit_element`) or ``None`` to
    leave it out; tags that are not there stay absent. Without pixel data all is "before". Bytes behind the
    last element (trailing zeros) are not elements and are left out. Long values are read from ``payload``
    when the result is read.

    Raises:
        CannotReencode: Pixel Data occurs twice, or the elements are not explicit little endian already and
            too many to write anew.
        Rejected: the data set cannot be walked, which its validation would have found.
    """
    changes = changes or {}
    if sum(element.tag == PIXEL_DATA for element in elements) > 1:
        raise CannotReencode("Pixel Data occurs twice")
    if encoding is Encoding.EXPLICIT_LITTLE:
        return _spliced(payload, elements, changes)
    walker = Walker(payload, encoding)
    writer = _Writer(payload, walker, _pixel_representation(payload, elements))
    before: Payload | None = None
    skipping = False
    for token in walker:
        if not token.depth and token.kind in (Kind.VALUE, Kind.SEQUENCE, Kind.FRAGMENTS):
            skipping = token.tag == PIXEL_DATA or token.tag in changes
            if token.tag == PIXEL_DATA and before is None:
                before = writer.take()
            elif skipping:
                writer.insert(changes[token.tag])
        if not skipping:
            writer.write(token)
    rest = writer.take()
    return (rest, MemoryPayload([])) if before is None else (before, rest)


def _pixel_representation(payload: Payload, elements: Sequence[Element]) -> int:
    """(0028,0103) ahead of the walk, since elements before it depend on it; 0 where it is absent."""
    for element in elements:
        if element.tag == PIXEL_REPRESENTATION and element.length == 2:  # noqa: PLR2004 - bytes of an US
            return int.from_bytes(payload.read(element.value, 2), "big" if element.big else "little")
    return 0
