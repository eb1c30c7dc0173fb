"""The account of one partition as a committed offset and the metadata string beside it.

On Kafka there is no other checkpoint: the broker takes a commit whole or not at all, and only from the member
that has the partition, so along the chain of commits each upload is counted once. The offset is the low-water
mark. The metadata, at most `LIMIT` bytes of ASCII:

    dicom-ingest/1 {"done":"...","counters":{...},"reasons":{...},"attempts":{...},"remains":{...},"starts":1}

``done`` holds ranges of positions at and above the mark, in Base64: for each range two unsigned LEB128 numbers,
its distance from the end of the one before (the first: from the mark) and its length less one. An END or
INSTANCE record in one of them ends an upload that is counted. Upload ids are Base64, too.

Evolution: new fields have defaults; types and meanings never change; a new layout takes a new number.
"""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Place

LIMIT: Final = 4096  # bytes; a broker's offset.metadata.max.bytes unless told otherwise
_NAME: Final = "dicom-ingest/"
_VERSION: Final = "1"
_LOW_BITS: Final = 0x7F
_MORE: Final = 0x80
_BITS: Final = 7


class Range(NamedTuple):
    """Positions from ``first`` to ``last``, both included."""

    first: int
    last: int


def is_within(position: int, ranges: Sequence[Range]) -> bool:
    """Whether one of ``ranges``, in order and apart from each other, has this position."""
    at = bisect_right(ranges, position, key=lambda found: found.first) - 1
    return at >= 0 and position <= ranges[at].last


class OffsetCheckpoint(Checkpoint, frozen=True, kw_only=True):
    """What one commit says. ``done`` of its base holds uploads that no record of their own ends, and what damage has cut off."""

    done_ranges: tuple[Range, ...] = ()  # in order, apart from each other
    # Owners in a row that lost it unasked or by an error, before the mark moved on, and this one.
    starts: int = 0
    lost: int = 0  # records that retention took unread or brokers lost, since the group was made
    # Uploads whose attempts have the one under way; no commit says which.
    marked: frozenset[bytes] = frozenset()

    def counts(self, position: int) -> bool:
        """Whether ``done_ranges`` has the upload that the record at ``position`` ends."""
        return is_within(position, self.done_ranges)


class ForeignCommit(ValueError):  # noqa: N818 - states what was found
    """A committed offset without an account that this release can read; only an administrator can decide."""


class _Account(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON part."""

    done: str = ""
    counters: Mapping[Place, int] = {}
    reasons: Mapping[str, int] = {}
    attempts: Mapping[str, int] = {}
    remains: Mapping[str, int] = {}
    starts: int = 0
    lost: int = 0


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(_Account)


def encode_metadata(checkpoint: OffsetCheckpoint) -> str:
    """The string beside the offset; the caller checks it against `LIMIT`."""
    account = _Account(
        done=_text(_numbers(checkpoint.low_water_mark, checkpoint.done_ranges)),
        counters=checkpoint.counters,
        reasons=checkpoint.reasons,
        attempts=_with_text_ids(checkpoint.attempts),
        remains=_with_text_ids(checkpoint.done),
        starts=checkpoint.starts,
        lost=checkpoint.lost,
    )
    return f"{_NAME}{_VERSION} {_encoder.encode(account).decode()}"


def decode_metadata(partition: int, offset: int, metadata: str) -> OffsetCheckpoint:
    """The account of a partition in a commit.

    Raises:
        ForeignCommit: another program's string, a newer release's, or a damaged one.
    """
    head, _, body = metadata.partition(" ")
    if not head.startswith(_NAME):
        raise ForeignCommit(
            f"partition {partition}: the committed offset {offset} has no account of this program; the group is "
            "another's, or its offsets were set by hand"
        )
    if head != _NAME + _VERSION:
        raise ForeignCommit(
            f"partition {partition}: the commit at {offset} is of version {head.removeprefix(_NAME)!r}; "
            f"this release reads {_VERSION}"
        )
    try:
        account = _decoder.decode(body)
        return OffsetCheckpoint(
            partition=partition,
            low_water_mark=offset,
            done=_with_ids(account.remains),
            counters=account.counters,
            attempts=_with_ids(account.attempts),
            reasons=account.reasons,
            done_ranges=tuple(_ranges(offset, _bytes(account.done))),
            starts=account.starts,
            lost=account.lost,
        )
    except (msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise ForeignCommit(f"partition {partition}: the commit at {offset} is damaged: {error}") from None


def _numbers(mark: int, ranges: Iterable[Range]) -> bytes:
    found = bytearray()
    behind = mark
    for first, last in ranges:
        for number in (first - behind, last - first):
            left = number
            while left > _LOW_BITS:
                found.append(left & _LOW_BITS | _MORE)
                left >>= _BITS
            found.append(left)
        behind = last + 1
    return bytes(found)


def _ranges(mark: int, data: bytes) -> Iterator[Range]:
    numbers = _leb128(data)
    behind = mark
    for distance in numbers:
        first = behind + distance
        last = first + next(numbers, -1)
        if last < first:
            raise ValueError("a range has no end")
        yield Range(first, last)
        behind = last + 1


def _leb128(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & _LOW_BITS) << shift
        shift += _BITS
        if not byte & _MORE:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("a number has no end")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _with_text_ids(counts: Mapping[bytes, int]) -> dict[str, int]:
    return {_text(bytes(upload_id)): count for upload_id, count in counts.items()}


def _with_ids(counts: Mapping[str, int]) -> dict[bytes, int]:
    found = {_bytes(upload_id): count for upload_id, count in counts.items()}
    if any(len(upload_id) != UploadId.SIZE for upload_id in found):
        raise ValueError("an upload id has not its size")
    return found
