"""A record batch of Kafka's format 2 (KIP-98), in pieces, so that no value is copied.

::

    head of the batch and of its first record | value | tail, head of the next record | value | ... | tail

A record has no key and no headers; its value is a record of ours.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from crc32c import crc32c

Piece = bytes | bytearray | memoryview

# BaseOffset, Length, PartitionLeaderEpoch, Magic, CRC.
_BEFORE_CRC: Final = struct.Struct(">qiibI")
# Attributes, LastOffsetDelta, FirstTimestamp, MaxTimestamp, ProducerId, ProducerEpoch, BaseSequence, number of records.
_AFTER_CRC: Final = struct.Struct(">hiqqqhii")
_LENGTH_FROM: Final = 12  # bytes that Length does not count: its own and those before it
_MAGIC: Final = 2
_NO_KEY: Final = b"\x01"  # -1
_TAIL: Final = b"\x00"  # no headers
# Of a record beside its value: length, attributes, two deltas, key, length of the value, headers.
MOST_OVERHEAD: Final = 5 + 1 + 1 + 5 + 1 + 5 + 1
HEAD: Final = _BEFORE_CRC.size + _AFTER_CRC.size


class ProducerId(NamedTuple):
    """As a broker gives it out: with it and a sequence number, brokers know a batch that they have."""

    id: int
    epoch: int


class RecordBatch(NamedTuple):
    """``pieces`` of ``size`` bytes in all, in their order; to be left as they are until brokers have them."""

    pieces: list[Piece]
    size: int


def encode_batch(values: Sequence[Piece], producer: ProducerId, sequence: int, timestamp: int) -> RecordBatch:
    """A batch of records with these values; ``timestamp`` in milliseconds since 1970, for all of them."""
    pieces: list[Piece] = []
    before, size = b"", HEAD
    for delta, value in enumerate(values):
        inner = b"".join((b"\x00\x00", _varint(delta), _NO_KEY, _varint(len(value))))
        head = _varint(len(inner) + len(value) + len(_TAIL)) + inner
        pieces += (before + head, value)
        size += len(head) + len(value) + len(_TAIL)
        before = _TAIL
    pieces.append(_TAIL)
    last = len(values) - 1
    counted = _AFTER_CRC.pack(
        0, last, timestamp, timestamp, producer.id, producer.epoch, sequence, len(values)
    )
    crc = crc32c(counted)
    for piece in pieces:
        crc = crc32c(piece, crc)
    pieces[0] = _BEFORE_CRC.pack(0, size - _LENGTH_FROM, -1, _MAGIC, crc) + counted + pieces[0]
    return RecordBatch(pieces, size)


def _varint(number: int) -> bytes:
    """A number that is not negative, as Kafka's records have it: zigzag, seven bits a byte, the lowest first."""
    left = number << 1
    encoded = bytearray()
    while left > 0x7F:  # noqa: PLR2004 - the largest in seven bits
        encoded.append(0x80 | left & 0x7F)
        left >>= 7
    encoded.append(left)
    return bytes(encoded)
