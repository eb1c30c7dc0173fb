"""Content digest, scheme c1: the same for every lossless encoding of one object, different for all else.

What is digested is the data set rewritten as implicit VR little endian with undefined lengths for sequences
and items: for each element its tag, its length and its value, so VR and length form play no part. Before:

- trailing spaces and NULs of text elements are taken off (which elements are text, the dictionary says, not
  the wire: a VR that an implicit encoding lost must not change the digest);
- numbers of a big endian data set are turned to little endian;
- a sequence without items and an empty value are the same;
- `LEFT_OUT` and group lengths are skipped, and Photometric Interpretation YBR_RCT counts as RGB: they follow
  from the transfer syntax or the place an object is kept at. Pixel Data is digested apart, with the pixels. Where
  YBR_RCT does not follow from it, in other syntaxes than those of JPEG 2000, the comparison of two objects tells it.

The elements that tell whose object it is go into a digest of their own, so that a conflict can be classed.
Nothing else is normalised: no character set, no number format, no order.
"""

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

from workers.dataset.byte_order import LittleEndianPayload, little_endian
from workers.dataset.dictionary import TEXT_TAGS, is_text
from workers.dataset.elements import (
    BEHIND_FILE_META,
    PIXEL_DATA,
    UNDEFINED,
    Kind,
    Token,
    Walker,
    is_group_length,
)
from workers.dataset.payload import BLOCK, Payload, SlicePayload
from workers.dataset.pixel_data import OF_ENCAPSULATION, PHOTOMETRIC_INTERPRETATION
from workers.dataset.transfer_syntax import Encoding

# Patient's name, ID, issuer and its qualifiers; study, series; accession number and its issuer.
IDENTITY_TAGS = frozenset(
    {
        0x0010_0010,
        0x0010_0020,
        0x0010_0021,
        0x0010_0024,
        0x0020_000D,
        0x0020_000E,
        0x0008_0050,
        0x0008_0051,
    }
)
LEFT_OUT = frozenset(
    {
        0x0008_0054,  # Retrieve AE Title: where it is kept
        0x0008_0056,  # Instance Availability
        0x0028_0006,  # Planar Configuration: means nothing in a codestream (PS3.5 8.2.4)
        0x0088_0130,  # Storage Media File-set ID
        0x0088_0140,  # Storage Media File-set UID
        *OF_ENCAPSULATION,
        PIXEL_DATA,
        0xFFFC_FFFC,  # Data Set Trailing Padding
    }
)
_PAD = b" \0"

_WHOLE = 64 * 1024  # bytes; longer values are digested in blocks
_NOTHING = hashlib.sha256().digest()
_HEADER = struct.Struct("<HHI").pack
# Looked up once: this is a hot path.
_VALUE, _SEQUENCE, _FRAGMENTS = Kind.VALUE, Kind.SEQUENCE, Kind.FRAGMENTS
_ITEM = _HEADER(0xFFFE, 0xE000, UNDEFINED)
_ITEM_END = _HEADER(0xFFFE, 0xE00D, 0)
_SEQUENCE_END = _HEADER(0xFFFE, 0xE0DD, 0)


class ContentDigests(NamedTuple):
    """The two parts of c1 that need no pixels; each SHA-256 as 64 hex digits."""

    identity: str
    elements: str


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


class _Sink:
    """Gathers small pieces, so that hashing is called seldom."""

    __slots__ = ("_pieces", "_size", "hash")

    def __init__(self) -> None:
        self.hash: _Hash = hashlib.sha256()
        self._pieces: list[bytes | memoryview] = []
        self._size = 0

    def add(self, header: bytes, value: bytes | memoryview = b"") -> None:
        pieces = self._pieces
        pieces.append(header)
        pieces.append(value)
        self._size += len(value) + 8
        if self._size > _WHOLE:
            self.flush()

    def flush(self) -> None:
        self.hash.update(b"".join(self._pieces))
        self._pieces.clear()
        self._size = 0


class _Canonical:
    """Turns tokens into the canonical form; ``select`` names the sink of each top-level element, or none."""

    def __init__(self, walker: Walker, payload: Payload, select: Callable[[int], _Sink | None]) -> None:
        self._walker = walker
        self._payload = payload
        self._select = select
        self._sink: _Sink | None = None
        self._pending = b""  # the header of a sequence whose first item has not come

    def add(self, token: Token) -> None:
        """The next token of the walk."""
        kind, tag, vr, _, _, length, depth, big = token
        if not depth and (kind is _VALUE or kind is _SEQUENCE or kind is _FRAGMENTS):
            self._sink = self._select(tag)
        sink = self._sink
        if sink is None:
            return
        if kind is not _VALUE:
            self._add_structure(sink, token)
        elif length > _WHOLE:
            self._add_long(sink, token)
        elif (number := tag & 0xFFFF) or not is_group_length(tag, length):
            value: bytes | memoryview = self._walker.value(token)
            if big:
                value = little_endian(value, vr)
            if tag in TEXT_TAGS or is_text(tag):
                value = bytes(value).rstrip(_PAD)
                if tag == PHOTOMETRIC_INTERPRETATION and not depth and value == b"YBR_RCT":
                    value = b"RGB"
            sink.add(_HEADER(tag >> 16, number, len(value)), value)

    def _add_structure(self, sink: _Sink, token: Token) -> None:
        """Starts and ends of sequences and items; fragments of pixel data in an icon."""
        kind, tag = token.kind, token.tag
        if kind is Kind.SEQUENCE:
            self._pending = _HEADER(tag >> 16, tag & 0xFFFF, UNDEFINED)
        elif kind is Kind.ITEM:
            if self._pending:
                sink.add(self._pending)
                self._pending = b""
            sink.add(_ITEM)
        elif kind is Kind.ITEM_END:
            sink.add(_ITEM_END)
        elif kind is Kind.FRAGMENTS:
            sink.add(_HEADER(tag >> 16, tag & 0xFFFF, UNDEFINED))
        elif kind is Kind.FRAGMENT:
            sink.add(_HEADER(0xFFFE, 0xE000, token.length))
            self._add_blocks(sink, token, token.length)
        elif self._pending:
            sink.add(_HEADER(tag >> 16, tag & 0xFFFF, 0))
            self._pending = b""
        else:
            sink.add(_SEQUENCE_END)

    def _add_long(self, sink: _Sink, token: Token) -> None:
        length = self._text_length(token) if is_text(token.tag) else token.length
        sink.add(_HEADER(token.tag >> 16, token.tag & 0xFFFF, length))
        self._add_blocks(sink, token, length)

    def _text_length(self, token: Token) -> int:
        """Length of a long text without its trailing padding."""
        end = token.length
        while end:
            start = max(0, end - _WHOLE)
            kept = len(self._payload.read(token.value + start, end - start).tobytes().rstrip(_PAD))
            if kept:
                return start + kept
            end = start
        return 0

    def _add_blocks(self, sink: _Sink, token: Token, length: int) -> None:
        sink.flush()
        value: Payload = SlicePayload(self._payload, token.value, token.length)
        if token.big:
            value = LittleEndianPayload(value, token.vr)
        for start in range(0, length, BLOCK):
            sink.hash.update(value.read(start, min(BLOCK, length - start)))


class ContentDigester:
    """Computes c1 in the course of a walk that others use too: `add` each token, then `digests`."""

    def __init__(self, walker: Walker, payload: Payload) -> None:
        """``payload``: what ``walker`` walks."""
        self._walker = walker
        self._identity, self._elements = _Sink(), _Sink()
        self.add = _Canonical(walker, payload, self._select).add

    def _select(self, tag: int) -> _Sink | None:
        if tag in LEFT_OUT or tag < BEHIND_FILE_META:
            return None
        return self._identity if tag in IDENTITY_TAGS else self._elements

    def digests(self) -> ContentDigests | None:
        """The digests after the walk; ``None`` where elements are out of order: only source digests compare."""
        if not self._walker.ordered:
            return None
        self._identity.flush()
        self._elements.flush()
        return ContentDigests(self._identity.hash.hexdigest(), self._elements.hash.hexdigest())


def content_digests(payload: Payload, encoding: Encoding) -> ContentDigests | None:
    """c1 of a data set, without its pixels; ``None`` where elements are out of order.

    Raises:
        Rejected: it cannot be walked.
    """
    walker = Walker(payload, encoding)
    digester = ContentDigester(walker, payload)
    for token in walker:
        digester.add(token)
    return digester.digests()


def _digest_by_tag(payload: Payload, encoding: Encoding) -> dict[int, bytes]:
    """A digest for each top-level element that c1 counts."""
    digests: dict[int, bytes] = {}
    current: list[tuple[int, _Sink]] = []

    def close() -> None:
        for tag, sink in current:
            sink.flush()
            digest = sink.hash.digest()
            if digest != _NOTHING:  # a group length
                # Of a tag that is repeated, in one digest: a list of them all would be copied 60,000 times.
                digests[tag] = hashlib.sha256(digests[tag] + digest).digest() if tag in digests else digest
        current.clear()

    def select(tag: int) -> _Sink | None:
        close()
        if tag in LEFT_OUT or tag < BEHIND_FILE_META:
            return None
        current.append((tag, _Sink()))
        return current[0][1]

    walker = Walker(payload, encoding)
    canonical = _Canonical(walker, payload, select)
    for token in walker:
        canonical.add(token)
    close()
    return digests


def differing_tags(
    first: tuple[Payload, Encoding],
    second: tuple[Payload, Encoding],
    maximum: int,
) -> tuple[int, ...]:
    """The lowest top-level tags, at most ``maximum``, at which two data sets differ by c1.

    A conflict is one of identity if one of `IDENTITY_TAGS` is among them (those below ``maximum`` others are
    always: identity tags come first), else of elements if any is, else of pixels.

    Raises:
        Rejected: one of them cannot be walked.
    """
    one = _digest_by_tag(*first)
    other = _digest_by_tag(*second)
    differing = {tag for tag in one.keys() | other.keys() if one.get(tag) != other.get(tag)}
    ordered = sorted(differing, key=lambda tag: (tag not in IDENTITY_TAGS, tag))
    return tuple(ordered[:maximum])
