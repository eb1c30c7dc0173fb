"""Walks the elements of a data set within limits (PS3.5 section 7), without recursion and without its values.

A `Walker` yields a flat run of `Token`: values, and the starts and ends of sequences, items and fragments,
each with its byte positions. A sequence is walked whatever the wire calls it: VR SQ, UN of undefined length
(6.2.2: implicit VR little endian inside), an implicit element whose value is items, and any other value but native
Pixel Data that parses exactly as implicit VR little endian items. So the run is the same for every encoding of one object.
"""

import enum
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from workers.dataset.dictionary import SEQUENCE_TAGS
from workers.dataset.findings import Finding, Findings
from workers.dataset.payload import Payload
from workers.dataset.transfer_syntax import Encoding
from workers.errors import Reason, Rejected

UNDEFINED = 0xFFFF_FFFF
LONGEST_DEFINED = 0xFFFF_FFFE  # PS3.5 7.1.2: even, and not the undefined length
LONGEST_SHORT = 0xFFFE  # PS3.5 6.2.2: a longer value of a VR with a 16-bit length goes as UN
PIXEL_DATA = 0x7FE0_0010
BEHIND_FILE_META = 0x0003_0000  # groups 0000 and 0002 are not of the data set (PS3.10 7.1)

ITEM = 0xFFFE_E000
_ITEM_DELIMITATION = 0xFFFE_E00D
_SEQUENCE_DELIMITATION = 0xFFFE_E0DD
_DELIMITER_GROUP = 0xFFFE
_ITEM_START = b"\xfe\xff\x00\xe0"  # an Item tag in little endian

_WINDOW = 256 * 1024  # bytes read at once; a value is stepped over without being read
_LOOK_AHEAD = 24  # an element header (12) and the first item header of its value, with the VR in it

# PS3.5 7.1.2, Table 7.1-2: 16-bit length; all other VRs, also future ones, have 32 bits.
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_BYTES_VRS = frozenset({b"UN", b"OB"})  # PS3.5 7.3: no byte order concerns these


@dataclass(frozen=True, slots=True)
class Limits:
    """What one instance may cost. The defaults leave room for every real object we know of."""

    depth: int = 128  # nested sequences; functional groups and structured reports stay under 16
    # Elements, items and delimiters in all: a sparse whole slide of 150,000 tiles has 3.3 million; it takes 7 s to walk.
    elements: int = 8_000_000
    # Elements outside sequences, which are kept in memory; real ones stay under 5,000.
    top_level: int = 65_536
    inflated: int = 1024**3  # bytes of a deflated data set once inflated


class Kind(enum.IntEnum):
    """What a token is."""

    VALUE = 0
    SEQUENCE = 1
    ITEM = 2
    ITEM_END = 3
    SEQUENCE_END = 4
    FRAGMENTS = 5  # encapsulated pixel data begins
    FRAGMENT = 6  # one item of it; the first is the Basic Offset Table
    FRAGMENTS_END = 7


_VALUE = Kind.VALUE  # looked up once: this is a hot path


class Token(NamedTuple):
    """One step of the walk. Positions are bytes from the start of the payload."""

    kind: Kind
    tag: int
    vr: bytes  # as on the wire; empty in implicit VR
    offset: int  # of the header; of an end: where the content stops
    value: int  # first byte of the value; of an end: first byte behind it, its delimiter included
    length: int  # of the value; `UNDEFINED` where a delimiter ends it; of an end: 0
    depth: int  # sequences around it
    big: bool  # the value's numbers are big endian


class Element(NamedTuple):
    """One top-level element as a whole; positions are bytes from the start of the payload."""

    tag: int
    vr: bytes  # as on the wire; empty in implicit VR
    offset: int  # of the header
    value: int  # first byte of the value
    length: int  # of the value; `UNDEFINED` where a delimiter ends it
    end: int  # first byte behind the element, its delimiter included
    big: bool  # the value's numbers are big endian


class _Level:
    """One data set, sequence or fragment run that the walk is in."""

    __slots__ = ("big", "end", "explicit", "kind", "long", "previous", "reader", "short", "tag", "undefined")

    def __init__(self, kind: Kind, tag: int, end: int, reader: "_Reader", *, undefined: bool) -> None:
        self.kind = kind
        self.tag = tag
        self.end = end  # if undefined: the end of what is around it
        self.undefined = undefined
        self.previous = -1
        self.reader = reader
        self.explicit, self.big, self.short, self.long = reader


class _Reader(NamedTuple):
    """Reads headers of one encoding."""

    explicit: bool
    big: bool
    short: Callable[..., tuple[Any, ...]]  # explicit: group, element, VR, 16-bit length; else 32-bit length
    long: Callable[..., tuple[int, int, int]]  # group, element, 32-bit length


_LONG_LITTLE = struct.Struct("<HHI").unpack_from
_IMPLICIT = _Reader(explicit=False, big=False, short=_LONG_LITTLE, long=_LONG_LITTLE)
_READERS = {
    Encoding.IMPLICIT_LITTLE: _IMPLICIT,
    Encoding.EXPLICIT_LITTLE: _Reader(
        explicit=True, big=False, short=struct.Struct("<HH2sH").unpack_from, long=_LONG_LITTLE
    ),
    Encoding.EXPLICIT_BIG: _Reader(
        explicit=True,
        big=True,
        short=struct.Struct(">HH2sH").unpack_from,
        long=struct.Struct(">HHI").unpack_from,
    ),
}


def is_group_length(tag: int, length: int) -> bool:
    """Whether an element is a group length (PS3.5 7.2): retired, and told by its number and its four bytes.

    Anything else under such a number would be lost with it if it were taken for one.
    """
    return not tag & 0xFFFF and length == 4  # noqa: PLR2004 - bytes of an UL


def _is_vr(vr: bytes) -> bool:
    return vr.isalpha() and vr.isupper()


class Walker:
    """Iterate it once for the tokens; then `findings` and `ordered` tell what was met on the way."""

    def __init__(
        self,
        payload: Payload,
        encoding: Encoding,
        limits: Limits | None = None,
        findings: Findings | None = None,
    ) -> None:
        """``payload``: a data set without file meta, inflated where its transfer syntax deflates it."""
        self.findings = Findings() if findings is None else findings
        self.ordered = True  # tags increase in every data set, each once (PS3.5 7.1)
        self.count = 0  # elements, items and fragments so far
        self._payload = payload
        self._limits = Limits() if limits is None else limits
        self._end = payload.size
        self._position = 0
        self._view = memoryview(b"")
        self._base = self._top = 0
        self._levels: list[_Level] = []
        self._level = _Level(Kind.ITEM, 0, self._end, _READERS[encoding], undefined=False)
        self._depth = 0
        self._trial = False
        # A byte that is known not to be zero, with nothing but zeros from where it was looked for.
        self._nonzero = -1
        self._finished = False

    def __iter__(self) -> Iterator[Token]:
        """The walk.

        Raises:
            Rejected: STRUCTURE, TRUNCATED or LIMIT, with the position.
        """
        steps = {Kind.ITEM: self._element, Kind.SEQUENCE: self._item, Kind.FRAGMENTS: self._fragment}
        while True:
            level = self._level
            if self._position >= level.end:
                if not self._levels:
                    return
                if self._lacks_delimiter(level):
                    raise self._overrun(level, self._position, "a delimiter is missing")
                yield self._close(level, self._position, self._position)
                continue
            token = steps[level.kind](level)
            if self._finished:
                return
            yield token

    def value(self, token: Token) -> memoryview:
        """The whole value of a token just yielded; the caller has looked at its length."""
        start = token.value - self._base
        if start >= 0 and token.value + token.length <= self._top:
            return self._view[start : start + token.length]
        return self._payload.read(token.value, token.length)

    def _fill(self) -> None:
        """Move the window to the position."""
        self._base = self._position
        self._view = self._payload.read(self._base, min(_WINDOW, self._end - self._base))
        self._top = self._base + len(self._view)

    def _overrun(self, level: _Level, position: int, detail: str) -> Rejected:
        reason = Reason.TRUNCATED if level.end == self._payload.size else Reason.STRUCTURE
        return Rejected(reason, position, detail)

    def _header(self, level: _Level) -> int:
        """Make the next header readable; its index in the window."""
        position = self._position
        self.count += 1
        if self.count > self._limits.elements:
            raise Rejected(Reason.LIMIT, position, f"more than {self._limits.elements} elements")
        if position + 8 > level.end:
            raise self._overrun(level, position, "an element header does not fit")
        if position + _LOOK_AHEAD > self._top and self._top < self._end:
            self._fill()
        return position - self._base

    def _element(self, level: _Level) -> Token:
        """The next element of a data set."""
        position = self._position
        if position + 8 > level.end and self._zeros_remain():
            return self._finish(Finding.TRAILING_ZEROS)
        at = self._header(level)
        group, number, vr, length = 0, 0, b"", 0
        value = position + 8
        if level.explicit:
            group, number, vr, length = level.short(self._view, at)
        else:
            group, number, length = level.short(self._view, at)
        if group == _DELIMITER_GROUP:
            return self._item_delimitation(level, at)
        if not group and not number and self._zeros_remain():
            return self._finish(Finding.TRAILING_ZEROS)
        tag = group << 16 | number
        if level.explicit and vr not in SHORT_VRS:
            length = self._long_length(level, at, tag, vr)
            value += 4
        if tag > level.previous:
            level.previous = tag
        else:
            self.ordered = False
            self.findings.note(Finding.DUPLICATE_TAG if tag == level.previous else Finding.TAG_ORDER, tag)
        if length == UNDEFINED:
            return self._undefined(level, tag, vr, value)
        return self._defined(level, tag, vr, value, length)

    def _defined(self, level: _Level, tag: int, vr: bytes, value: int, length: int) -> Token:
        """An element of defined length: a value to step over, or a sequence to step into."""
        position = self._position
        end = value + length
        if end > level.end:
            raise self._overrun(level, position, "a value is longer than what holds it")
        if length & 1:
            self.findings.note(Finding.ODD_LENGTH, tag)
        if vr == b"SQ":
            return self._open(Kind.SEQUENCE, tag, vr, value, end, level.reader)
        if length and ((not vr and tag in SEQUENCE_TAGS) or self._holds_items(tag, vr, value, length)):
            return self._open(Kind.SEQUENCE, tag, vr, value, end, _IMPLICIT)
        self._position = end
        return Token(_VALUE, tag, vr, position, value, length, self._depth, level.big)

    def _long_length(self, level: _Level, at: int, tag: int, vr: bytes) -> int:
        """The 32-bit length behind a VR and two reserved bytes (PS3.5 7.1.2)."""
        if not _is_vr(vr):
            raise Rejected(Reason.STRUCTURE, self._position, "no VR where an explicit one is due")
        if vr not in LONG_VRS:
            self.findings.note(Finding.UNKNOWN_VR, tag)
        if self._position + 12 > level.end:
            raise self._overrun(level, self._position, "an element header does not fit")
        _, reserved, length = level.long(self._view, at + 4)
        if reserved:
            self.findings.note(Finding.RESERVED_BYTES, tag)
        return length

    def _undefined(self, level: _Level, tag: int, vr: bytes, value: int) -> Token:
        """An element that a delimiter ends: a sequence or encapsulated pixel data, nothing else."""
        if tag == PIXEL_DATA:
            if vr == b"SQ":  # every other reader takes its fragments for items
                raise Rejected(Reason.STRUCTURE, self._position, "pixel data with the VR of a sequence")
            return self._open(Kind.FRAGMENTS, tag, vr, value, None, _READERS[Encoding.EXPLICIT_LITTLE])
        if vr == b"SQ":
            return self._open(Kind.SEQUENCE, tag, vr, value, None, level.reader)
        if vr in (b"", b"UN"):
            return self._open(Kind.SEQUENCE, tag, vr, value, None, _IMPLICIT)
        raise Rejected(Reason.STRUCTURE, self._position, "a value of undefined length that is no sequence")

    def _open(self, kind: Kind, tag: int, vr: bytes, value: int, end: int | None, reader: _Reader) -> Token:  # noqa: PLR0917 - a header's fields and how to read on
        """Step into a sequence, an item or fragments; ``end`` is ``None`` where a delimiter will tell."""
        depth = self._depth
        if kind is not Kind.ITEM:
            if depth >= self._limits.depth:
                raise Rejected(
                    Reason.LIMIT, self._position, f"sequences nest deeper than {self._limits.depth}"
                )
            self._depth += 1
        undefined = end is None
        around = self._level
        self._levels.append(around)
        self._level = _Level(kind, tag, around.end if end is None else end, reader, undefined=undefined)
        offset, self._position = self._position, value
        length = UNDEFINED if end is None else end - value
        return Token(kind, tag, vr, offset, value, length, depth, reader.big)

    def _close(self, level: _Level, offset: int, end: int) -> Token:
        """Step out, behind ``end``."""
        self._position = end
        self._level = self._levels.pop()
        if level.kind is Kind.ITEM:
            return Token(Kind.ITEM_END, ITEM, b"", offset, end, 0, self._depth, level.big)
        self._depth -= 1
        kind = Kind.SEQUENCE_END if level.kind is Kind.SEQUENCE else Kind.FRAGMENTS_END
        return Token(kind, level.tag, b"", offset, end, 0, self._depth, level.big)

    def _item_delimitation(self, level: _Level, at: int) -> Token:
        """(FFFE,E00D) in a data set: its end, and nothing else."""
        group, number, _ = level.long(self._view, at)
        end = self._position + 8
        if group << 16 | number != _ITEM_DELIMITATION or not self._delimits(level, end):
            raise Rejected(Reason.STRUCTURE, self._position, "a delimiter that ends nothing")
        return self._close(level, self._position, end) if self._levels else self._finish(Finding.DELIMITER)

    def _delimits(self, level: _Level, end: int) -> bool:
        """Whether a delimiter up to ``end`` ends the level: nothing else does, or its length does at that very byte."""
        return level.undefined or (end == level.end and self._bears(level))

    def _lacks_delimiter(self, level: _Level) -> bool:
        """Whether a level that only a delimiter should end is over without; an item may end with its sequence."""
        is_item = level.kind is Kind.ITEM and not self._levels[-1].undefined
        return level.undefined and not (is_item and self._bears(level))

    def _bears(self, level: _Level) -> bool:
        """Bear with a delimiter that length makes needless; no trial does, as c1 has always taken such values for bytes."""
        self.findings.note(Finding.DELIMITER, level.tag)
        return not self._trial

    def _item(self, level: _Level) -> Token:
        """The next item of a sequence, or the end of the sequence."""
        at = self._header(level)
        position = self._position
        group, number, length = level.long(self._view, at)
        tag = group << 16 | number
        value = position + 8
        if tag == _SEQUENCE_DELIMITATION and self._delimits(level, value):
            return self._close(level, position, value)
        if tag != ITEM:
            raise Rejected(Reason.STRUCTURE, position, "something other than an item in a sequence")
        reader = level.reader
        if level.explicit and length and self._lacks_vr(value):
            self.findings.note(Finding.IMPLICIT_ITEM, level.tag)
            reader = _IMPLICIT
        if length == UNDEFINED:
            return self._open(Kind.ITEM, tag, b"", value, None, reader)
        if value + length > level.end:
            raise self._overrun(level, position, "an item is longer than its sequence")
        return self._open(Kind.ITEM, tag, b"", value, value + length, reader)

    def _lacks_vr(self, value: int) -> bool:
        """Whether an item of an explicit VR sequence begins with an element that has no VR."""
        start = value - self._base
        head = bytes(self._view[start : start + 6])
        return len(head) == 6 and not _is_vr(head[4:6]) and head[:4] not in _DELIMITERS  # noqa: PLR2004 - tag and VR

    def _fragment(self, level: _Level) -> Token:
        """The next item of encapsulated pixel data (PS3.5 A.4), or its end."""
        at = self._header(level)
        position = self._position
        group, number, length = level.long(self._view, at)
        tag = group << 16 | number
        value = position + 8
        if tag == _SEQUENCE_DELIMITATION:
            return self._close(level, position, value)
        if tag != ITEM or length == UNDEFINED:
            raise Rejected(Reason.STRUCTURE, position, "something other than a fragment in pixel data")
        if value + length > level.end:
            raise self._overrun(level, position, "a fragment is longer than what holds it")
        self._position = value + length
        return Token(Kind.FRAGMENT, level.tag, b"", position, value, length, self._depth, level.big)

    def _holds_items(self, tag: int, vr: bytes, value: int, length: int) -> bool:
        """Whether a value of defined length parses exactly as implicit VR little endian items."""
        if tag == PIXEL_DATA and not self._depth:
            return False  # native, whatever its samples look like
        if length < 8 or (self._level.big and vr not in _BYTES_VRS):  # noqa: PLR2004 - an item header
            return False
        start = value - self._base
        if self._view[start] != _ITEM_START[0] or self._view[start : start + 4] != _ITEM_START:
            return False
        if self._trial:
            return False  # stepped over: whether it is a sequence changes nothing for what holds it
        trial = Walker(self._payload, Encoding.IMPLICIT_LITTLE, self._limits)
        trial._begin_trial(value, value + length, self.count, self._depth + 1)
        try:
            for _ in trial:
                pass
        except Rejected:
            return False
        finally:
            self.count = trial.count
        return True

    def _begin_trial(self, start: int, end: int, count: int, depth: int) -> None:
        """Walk only the items from ``start`` to ``end``; ``count`` and ``depth`` go on from the walker around."""
        self._trial = True
        self.count, self._depth = count, depth
        self._position, self._end = start, end
        self._level = _Level(Kind.SEQUENCE, 0, end, _IMPLICIT, undefined=False)

    def _zeros_remain(self) -> bool:
        """Whether the walk is outside sequences and nothing but zero bytes is left of the payload."""
        if self._levels:
            return False
        position, size = self._position, _LOOK_AHEAD
        if position <= self._nonzero:
            return False  # else each of many empty elements (0000,0000) would have all that follows looked at
        while position < self._end:
            block = self._payload.read(position, min(size, self._end - position)).tobytes()
            zeros = len(block) - len(block.lstrip(b"\0"))
            position += zeros
            if zeros < len(block):
                self._nonzero = position
                return False
            size = min(2 * size, _WINDOW)
        return True

    def _finish(self, finding: Finding) -> Token:
        """Stop before what is no element behind the last one; the token is not yielded."""
        self.findings.note(finding, 0)
        self._finished = True
        return Token(Kind.ITEM_END, ITEM, b"", self._position, self._end, 0, 0, big=False)


_DELIMITERS = frozenset({_ITEM_START, b"\xfe\xff\x0d\xe0", b"\xff\xfe\xe0\x0d"})
