"""Groups and frames: the spool's bytes, encoded and checked. Pure; the layout is in the package's docstring."""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from crc32c import crc32c

from ingest.contract import records
from ingest.contract.spool.disk import Buffer

# A group starts on a page of its own, so writing it never touches a page with acknowledged bytes, and never
# makes the kernel read a page back before it is changed.
PAGE: Final = 4096
GROUP_MAGIC: Final = b"DICMGRP1"
GROUP: Final = struct.Struct("<8sIIQQQQQQ")
FRAME_MAGIC: Final = b"DRec"
FRAME: Final = struct.Struct("<4sIHHI")
FRAME_ALIGNMENT: Final = 8
# Of a record; a frame's CRC covers it, and with it the record's own CRC.
HEAD_SIZE: Final = records.HEADER.size
FRAME_AND_HEAD: Final = FRAME.size + HEAD_SIZE

_GROUP_CRC_END: Final = 12
_GROUP_BODY: Final = struct.Struct("<IQQQQQQ")
# Log id and position are in no byte of the frame: they tie it to its place, so that neither a record of a
# recycled segment nor bytes that a peer made up can pass for one.
_FRAME_COVERED: Final = struct.Struct(f"<QQ4sIHH{HEAD_SIZE}s")
_FRAME_PLACE: Final = struct.Struct("<QQ")


class Appended(NamedTuple):
    """One record on its way into the log: all of it but the payload, and the payload in pieces."""

    partition: int
    header: bytes
    payload: Sequence[memoryview]

    @property
    def size(self) -> int:
        """Bytes of the record."""
        return len(self.header) + sum(map(len, self.payload))


class GroupHeader(NamedTuple):
    """What a group says of itself. Positions are bytes of the stream."""

    records: int
    position: int
    length: int  # bytes from `position` to the end of the last record
    previous: int  # where the group before this one ended
    synced: int  # the durable end when this group was written
    written_at: int  # nanoseconds since 1970-01-01 UTC

    @property
    def end(self) -> int:
        """Where the next group may start."""
        return page_ceiling(self.position + self.length)


class Frame(NamedTuple):
    """A record's place: its frame is at ``position``, its ``size`` bytes follow."""

    position: int
    partition: int
    size: int

    @property
    def record_position(self) -> int:
        """Where the record's bytes start."""
        return self.position + FRAME.size

    @property
    def end(self) -> int:
        """Where the next frame starts."""
        return frame_ceiling(self.position + FRAME.size + self.size)


def page_ceiling(position: int) -> int:
    """The first page boundary at or after ``position``."""
    return -(-position // PAGE) * PAGE


def frame_ceiling(position: int) -> int:
    """The first place for a frame at or after ``position``."""
    return -(-position // FRAME_ALIGNMENT) * FRAME_ALIGNMENT


def framed_size(record_size: int) -> int:
    """Bytes that a record takes within a group."""
    return frame_ceiling(FRAME.size + record_size)


def encode_record(log_id: int, position: int, gap: int, record: Appended) -> list[Buffer]:
    """The buffers of one record whose frame is at ``position``, behind ``gap`` zeros; the payload is passed on uncopied."""
    head = record.header
    return [
        b"\0" * gap + encode_frame(log_id, position, record.partition, record.size, head) + head,
        *record.payload,
    ]


def encode_group_header(log_id: int, header: GroupHeader) -> bytes:
    """The 64 bytes at the start of a group."""
    body = _GROUP_BODY.pack(
        header.records,
        log_id,
        header.position,
        header.length,
        header.previous,
        header.synced,
        header.written_at,
    )
    return GROUP_MAGIC + crc32c(body).to_bytes(4, "little") + body


def decode_group_header(data: bytes | memoryview, log_id: int, position: int) -> GroupHeader | None:
    """The header at the start of ``data``, or None when it is not a group of this log at this position."""
    if len(data) < GROUP.size or data[: len(GROUP_MAGIC)] != GROUP_MAGIC:
        return None
    _, crc, count, log, at, length, previous, synced, written_at = GROUP.unpack_from(data)
    if log != log_id or at != position or crc32c(data[_GROUP_CRC_END : GROUP.size]) != crc:
        return None
    return GroupHeader(count, at, length, previous, synced, written_at)


def encode_frame(log_id: int, position: int, partition: int, size: int, head: bytes) -> bytes:
    """The 16 bytes in front of a record whose first `HEAD_SIZE` bytes are those of ``head``."""
    covered = _FRAME_COVERED.pack(log_id, position, FRAME_MAGIC, size, partition, 0, head)
    return covered[_FRAME_PLACE.size : -HEAD_SIZE] + crc32c(covered).to_bytes(4, "little")


def decode_frame(data: bytes | memoryview, log_id: int, position: int) -> Frame | None:
    """The frame at the start of ``data``, which holds frame and record head, or None when there is none."""
    if len(data) < FRAME_AND_HEAD or data[: len(FRAME_MAGIC)] != FRAME_MAGIC:
        return None
    _, size, partition, _, crc = FRAME.unpack_from(data)
    if size < HEAD_SIZE or size > records.MAX_RECORD:
        return None
    place = crc32c(_FRAME_PLACE.pack(log_id, position))
    covered = crc32c(data[FRAME.size : FRAME_AND_HEAD], crc32c(data[: FRAME.size - 4], place))
    return Frame(position, partition, size) if covered == crc else None
