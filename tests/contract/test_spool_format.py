"""The spool's bytes: golden groups, and what makes stale, foreign and torn ones fail."""

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Kind, encode_header, is_whole
from ingest.contract.spool.format import (
    FRAME,
    FRAME_AND_HEAD,
    GROUP,
    PAGE,
    Appended,
    GroupHeader,
    decode_frame,
    decode_group_header,
    frame_ceiling,
)
from ingest.contract.spool.group_writer import GroupWriter
from ingest.contract.spool.layout import Meta
from tests.log.simulated_disk import SimulatedDisk

LOG_ID = 0x1122334455667788
HEADER = GroupHeader(
    records=0, position=8 * PAGE, length=0, previous=7 * PAGE, synced=6 * PAGE, written_at=1_700_000_000_000_000_000
)  # fmt: skip


def appended(partition: int, payload: bytes, sequence: int = 1) -> Appended:
    pieces = [memoryview(payload)] if payload else []
    return Appended(partition, encode_header(Kind.PART, UploadId.of(1, 2, sequence), 0, None, pieces), pieces)


def encode_group(log_id: int, header: GroupHeader, group: Sequence[Appended]) -> bytes:
    """What a group leaves on the disk."""
    meta = Meta(log_id=log_id, receiver_id=1, segment_size=8 * PAGE, partitions=1)
    disk = SimulatedDisk(1)
    fd = disk.open(Path("/segment"), write=True, create=True)
    writer = GroupWriter(disk, fd, meta, header.position, room=8 * PAGE, piece=8 * PAGE)
    for record in group:
        assert writer.fits(record)
        writer.add(record)
    size = writer.finish(header)
    return disk.pread(fd, size + 1, 0)


GROUP_OF_TWO = [appended(5, b"one"), appended(300, b"")]

GOLDEN_GROUP = (
    "4449434d47525031afe15bbd02000000"  # magic, CRC-32C, number of records
    "88776655443322110080000000000000a800000000000000"  # log id, position, length
    "0070000000000000006000000000000000002a36fe9c9717"  # previous, synced, written at
    "4452656323000000050000008192ff2e"  # frame: magic, size, partition, reserved, CRC-32C
    "0102000003000000b118c03300000001000000000002000000000001000000006f6e650000000000"  # record, 35 bytes, and 5 to the next frame
    "44526563200000002c0100003726c0ab"  # frame
    "01020000000000009d435ba50000000100000000000200000000000100000000"  # record
)


def test_golden_group() -> None:
    """A group has these bytes: header, frame, record, gap to the next eighth byte, frame, record, gap to a page."""
    data = encode_group(LOG_ID, HEADER, GROUP_OF_TWO)
    assert len(data) == PAGE
    assert data.hex() == GOLDEN_GROUP + "00" * (PAGE - 168)


def test_a_group_reads_back() -> None:
    """Header, frames and records are found where they were put."""
    data = encode_group(LOG_ID, HEADER, GROUP_OF_TWO)
    header = decode_group_header(data, LOG_ID, HEADER.position)
    assert header is not None
    assert (header.records, header.previous, header.synced) == (2, 7 * PAGE, 6 * PAGE)
    assert header.end == 9 * PAGE
    at = GROUP.size
    for record in GROUP_OF_TWO:
        frame = decode_frame(data[at : at + FRAME_AND_HEAD], LOG_ID, HEADER.position + at)
        assert frame is not None
        assert (frame.partition, frame.size) == (record.partition, record.size)
        body = data[at + FRAME.size : at + FRAME.size + frame.size]
        assert body == record.header + b"".join(record.payload)
        assert is_whole(body)
        at = frame.end - HEADER.position
    assert frame_ceiling(header.length) == at


@given(position=st.integers(0, 2**40), log_id=st.integers(0, 2**64 - 1))
def test_bytes_of_another_place_or_log_do_not_pass(position: int, log_id: int) -> None:
    """A group or record is valid at its own position of its own log: a recycled segment's is stale elsewhere."""
    data = encode_group(LOG_ID, HEADER, GROUP_OF_TWO)
    frame = data[GROUP.size : GROUP.size + FRAME_AND_HEAD]
    own = HEADER.position + GROUP.size
    if position not in (HEADER.position, own):
        assert decode_group_header(data, LOG_ID, position) is None
        assert decode_frame(frame, LOG_ID, position) is None
    if log_id != LOG_ID:
        assert decode_group_header(data, log_id, HEADER.position) is None
        assert decode_frame(frame, log_id, own) is None


@given(bit=st.integers(0, GROUP.size * 8 - 1))
def test_every_flipped_bit_of_a_header_is_found(bit: int) -> None:
    """One wrong bit makes a group's header invalid."""
    data = bytearray(encode_group(LOG_ID, HEADER, GROUP_OF_TWO))
    data[bit // 8] ^= 1 << bit % 8
    assert decode_group_header(bytes(data), LOG_ID, HEADER.position) is None


@given(bit=st.integers(0, FRAME_AND_HEAD * 8 - 1))
def test_every_flipped_bit_of_a_frame_is_found(bit: int) -> None:
    """The frame's CRC covers the record's head: a frame never vouches for another record of the same size."""
    data = bytearray(encode_group(LOG_ID, HEADER, GROUP_OF_TWO)[GROUP.size :])
    data[bit // 8] ^= 1 << bit % 8
    assert decode_frame(bytes(data[:FRAME_AND_HEAD]), LOG_ID, HEADER.position + GROUP.size) is None


def test_a_whole_stale_record_behind_a_new_frame_does_not_pass() -> None:
    """A torn write may leave the frame new and the record old, of the same size and sound in itself."""
    new = encode_group(LOG_ID, HEADER, [appended(5, bytes(8000), 1)])
    old = encode_group(LOG_ID, HEADER, [appended(5, bytes(8000), 2)])
    cut = GROUP.size + FRAME.size
    torn = new[:cut] + old[cut:]
    assert is_whole(torn[cut : cut + 8032])
    assert (
        decode_frame(torn[GROUP.size : GROUP.size + FRAME_AND_HEAD], LOG_ID, HEADER.position + GROUP.size)
        is None
    )


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.integers(0, 2**63))
def test_random_bytes_are_nothing(data: bytes, log_id: int, position: int) -> None:
    """No bytes raise anything; none are taken for a group, a frame or a record."""
    assert decode_group_header(data, log_id, position) is None
    assert decode_frame(data, log_id, position) is None
    assert not is_whole(data)
