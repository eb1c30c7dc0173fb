"""Uploads that no receiver works on any more end by the log's own time; those at work never do."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, Outcome, Place, decode, encode_header
from tests.support.file_limit import longest_file
from workers.log.checkpoint import Progress
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.log_clock import LogClock
from workers.log.reassembly import Reassembler
from workers.log.scratch import ScratchFolder
from workers.log.upload import Upload

GAP = 90.0  # seconds; two records of one upload are never further apart
EXPIRE_AFTER = 2 * GAP
ORPHAN, BUSY = UploadId.of(1, 1, 1), UploadId.of(1, 1, 2)
STRAY = UploadId.of(77, 1, 1)  # no receiver's
START = 1_700_000_000.0  # seconds


def instance(data: bytes) -> Instance:
    return Instance("1.2", "1.2.3", "1.2.1", len(data), xxhash.xxh3_128_digest(data), "A", "B", "::1", 1)


class Reader(NamedTuple):
    """A reassembler of partition 0, fed record by record."""

    progress: Progress
    reassembler: Reassembler
    uploads: list[Upload]

    @classmethod
    def of(cls, folder: Path, memory_limit: int = 1000) -> "Reader":
        return cls._of(folder, memory_limit, expire_after=EXPIRE_AFTER)

    @classmethod
    def of_spool(cls, folder: Path) -> "Reader":
        """Its sound uploads end by ABORT, END or EPOCH alone."""
        return cls._of(folder, 1000, stray_after=EXPIRE_AFTER)

    @classmethod
    def _of(cls, folder: Path, memory_limit: int, **limits: float) -> "Reader":
        progress = Progress(Checkpoint(partition=0))
        return cls(
            progress, Reassembler({0: progress}, ScratchFolder(folder, [0]), memory_limit, **limits), []
        )

    def take(self, record: bytes, at: float, *, damaged: bool = False) -> None:
        """One more record, appended ``at`` seconds after the first."""
        position = self.progress.read_to
        stamp = int(1000 * (START + at))
        entry: Entry = (
            DamagedRecord(position, position + 1, 0, memoryview(record), stamp)
            if damaged
            else LogRecord(position, position + 1, 0, decode(record), stamp)
        )
        self.uploads.extend(asyncio.run(self.reassembler.add(entry, at)))

    def part(self, upload_id: UploadId, index: int, at: float, *, damaged: bool = False) -> None:
        payload = memoryview(b"part")
        self.take(encode_header(Kind.PART, upload_id, index, None, [payload]) + payload, at, damaged=damaged)

    def end(self, upload_id: UploadId, count: int, at: float, *, damaged: bool = False) -> None:
        record = bytearray(encode_header(Kind.END, upload_id, count, instance(b"part" * count)))
        if damaged:
            record[1] = 99
        self.take(bytes(record), at, damaged=damaged)


def test_an_orphan_ends_when_the_log_has_moved_on(tmp_path: Path) -> None:
    """Other uploads' records make time pass; until it is up the orphan holds the mark, then it lets go of it."""
    reader = Reader.of(tmp_path)
    reader.part(ORPHAN, 0, 0)
    for index in range(40):
        at = 5.0 * (index + 1)
        reader.part(BUSY, index, at)
        if at <= EXPIRE_AFTER:
            assert reader.progress.low_water_mark == 0
    assert reader.progress.low_water_mark == 1, "the busy one's first"
    assert reader.reassembler.orphans == 1
    reader.end(BUSY, 40, 201)
    (upload,) = reader.uploads
    assert (upload.upload_id, upload.damage) == (BUSY, "")


def test_an_end_that_comes_after_expiry_makes_no_instance(tmp_path: Path) -> None:
    """A broker that stood still appends what its receiver refused long ago: nothing of it may appear."""
    reader = Reader.of(tmp_path)
    reader.part(ORPHAN, 0, 0)
    for index in range(40):
        reader.part(BUSY, index, 5.0 * (index + 1))
    assert reader.reassembler.orphans == 1
    reader.part(ORPHAN, 1, 201)
    reader.end(ORPHAN, 2, 201)
    reader.end(BUSY, 40, 201)
    assert [upload.upload_id for upload in reader.uploads] == [BUSY]
    assert reader.reassembler.late == 2
    assert reader.progress.low_water_mark < reader.progress.read_to, "only what waits for its place holds it"


def test_an_end_after_expiry_that_its_receiver_may_have_answered_with_success_is_handed_out(
    tmp_path: Path,
) -> None:
    """A receiver stood still with its machine, and the next leader's clock is behind: by its times there was no pause."""
    reader = Reader.of(tmp_path)
    reader.part(ORPHAN, 0, 0)
    for index in range(40):
        reader.part(BUSY, index, 5.0 * (index + 1))
    assert reader.reassembler.orphans == 1
    reader.part(ORPHAN, 1, GAP - 1)
    reader.end(ORPHAN, 2, GAP)
    (upload,) = reader.uploads
    assert (upload.upload_id, upload.damage) == (ORPHAN, "1 of 2 parts are there, and 0 beyond")
    assert upload.instance == instance(b"partpart")
    assert reader.reassembler.late == 0


def test_an_orphan_that_lies_in_scratch_leaves_no_file(tmp_path: Path) -> None:
    """Its scratch file goes with it."""
    reader = Reader.of(tmp_path, memory_limit=6)
    for index in range(3):
        reader.part(ORPHAN, index, 0)
    assert list((tmp_path / "0").iterdir())
    for index in range(60):
        reader.part(BUSY, index, 5.0 * index)
    reader.end(BUSY, 60, 301)
    (upload,) = reader.uploads
    asyncio.run(reader.reassembler.release(upload))
    assert not list((tmp_path / "0").iterdir())
    assert reader.reassembler.held == 0


def test_scratch_beyond_a_limit_on_the_size_of_files_changes_nothing(tmp_path: Path) -> None:
    """As on a full disk: the entry is refused whole and comes again, and then the upload has each part once."""
    reader = Reader.of(tmp_path, memory_limit=6)
    reader.part(BUSY, 0, 0)
    with longest_file(2), pytest.raises(OSError, match="File too large"):
        reader.part(BUSY, 1, 1)
    for index in range(1, 4):
        reader.part(BUSY, index, index)
    reader.end(BUSY, 4, 5)
    (upload,) = reader.uploads
    assert (bytes(upload.payload.read(0, 16)), upload.damage) == (b"part" * 4, "")


def test_at_the_end_of_the_log_its_reader_waits_by_its_own_clock(tmp_path: Path) -> None:
    """Nothing more is appended: `expire` drops what has waited long enough, and nothing else."""
    reader = Reader.of(tmp_path)
    reader.part(ORPHAN, 0, 0)
    reader.part(BUSY, 0, 100)
    assert reader.reassembler.waits_since(0) == 0
    assert asyncio.run(reader.reassembler.expire(0, EXPIRE_AFTER)) == []
    assert reader.progress.low_water_mark == 0
    assert asyncio.run(reader.reassembler.expire(0, EXPIRE_AFTER + 1)) == []
    assert reader.progress.low_water_mark == 1
    assert reader.reassembler.waits_since(0) == 100
    reader.end(BUSY, 1, 101)
    assert len(reader.uploads) == 1


def test_in_the_spool_only_a_damaged_upload_id_ends_by_the_logs_time(tmp_path: Path) -> None:
    """A part whose upload id was hit waits for no END that could come: it must not hold the mark until a restart.

    A sound upload may still be answered, however long the disk took, so it is never given up.
    """
    reader = Reader.of_spool(tmp_path)
    reader.part(STRAY, 1, 0, damaged=True)
    reader.part(ORPHAN, 0, 1)
    for index in range(60):
        reader.part(BUSY, index, 5.0 * (index + 1))
        if 5.0 * (index + 1) <= EXPIRE_AFTER:
            assert reader.progress.low_water_mark == 0
    (stray,) = reader.uploads
    assert (stray.damage, bytes(stray.payload.read(0, 4))) == ("its upload id is damaged", b"part")
    assert stray.upload_id not in (STRAY, ORPHAN, BUSY), "the place of what was hit is no other upload's"
    assert reader.progress.low_water_mark == 0, "until it has its place"
    outcome = Outcome("", Place.QUARANTINED, "damaged", "", "", "", 1)
    reader.progress.settle(stray.upload_id, outcome)
    reader.progress.count(reader.progress.settled(), 1)
    assert reader.progress.low_water_mark == 1, "the sound one's first"
    assert reader.reassembler.orphans == 0
    reader.end(ORPHAN, 1, 400)
    assert reader.uploads[-1].upload_id == ORPHAN
    assert not reader.uploads[-1].damage


def test_what_the_same_record_ends_by_itself_and_by_its_time_is_handed_out_once(tmp_path: Path) -> None:
    """Two tries of one upload would share its scratch file, which the first that has its place removes."""
    for before in range(30, 45):
        reader = Reader.of_spool(tmp_path)
        reader.part(STRAY, 1, 0, damaged=True)
        for index in range(before):
            reader.part(BUSY, index, 5.0 * (index + 1))
        reader.take(encode_header(Kind.EPOCH, UploadId.of(2, 2, 0)), 5.0 * (before + 1))
        assert [upload.damage for upload in reader.uploads] == ["its upload id is damaged"]


def test_an_upload_whose_first_part_is_damaged_is_handed_out_whole_while_it_goes_on(tmp_path: Path) -> None:
    """Its upload id was not hit after all: its own records keep it, and its END takes all of it."""
    reader = Reader.of_spool(tmp_path)
    reader.part(BUSY, 0, 0, damaged=True)
    for index in range(1, 60):
        reader.part(BUSY, index, 5.0 * index)
        reader.part(ORPHAN, index, 5.0 * index)
    reader.end(BUSY, 60, 301)
    (upload,) = reader.uploads
    assert (upload.upload_id, upload.damage, upload.payload.size) == (BUSY, "", 240)


def test_what_damage_may_have_sealed_is_kept(tmp_path: Path) -> None:
    """An upload whose END may be among damage that names no upload is handed out, not dropped."""
    reader = Reader.of(tmp_path)
    reader.part(ORPHAN, 0, 0)
    reader.end(ORPHAN, 1, 1, damaged=True)
    for index in range(60):
        reader.part(BUSY, index, 5.0 * index)
    upload = next(upload for upload in reader.uploads if upload.upload_id == ORPHAN)
    assert upload.damage
    assert upload.sealed_at is None
    assert reader.reassembler.orphans == 0


def test_a_log_without_time_expires_nothing(tmp_path: Path) -> None:
    """The spool's entries carry no time, and its epochs end what is dead."""
    progress = Progress(Checkpoint(partition=0))
    reassembler = Reassembler({0: progress}, ScratchFolder(tmp_path, [0]), 1000, EXPIRE_AFTER)
    payload = memoryview(b"part")
    for position, upload_id in enumerate((ORPHAN, *[BUSY] * 50)):
        index = max(position - 1, 0)
        record = decode(encode_header(Kind.PART, upload_id, index, None, [payload]) + payload)
        asyncio.run(reassembler.add(LogRecord(position, position + 1, 0, record), 1000.0 * position))
    assert progress.low_water_mark == 0


@given(
    steps=st.lists(st.floats(0, GAP / 4), min_size=1, max_size=120),
    leaps=st.lists(st.tuples(st.integers(0, 119), st.floats(-1e5, 1e5)), max_size=3),
)
def test_a_wrong_clock_ends_nobodys_upload(
    tmp_path_factory: pytest.TempPathFactory,
    steps: Sequence[float],
    leaps: Sequence[tuple[int, float]],
) -> None:
    """Whatever leaps the brokers' clocks make, an upload with a record in every gap is never taken for dead."""
    reader = Reader.of(tmp_path_factory.mktemp("scratch"))
    at = last = skew = 0.0
    parts = 0
    for number, step in enumerate(steps):
        at += step
        skew += sum(size for when, size in leaps if when == number)
        if number == 0 or at + GAP / 4 - last > GAP:
            reader.part(BUSY, parts, at + skew)
            parts, last = parts + 1, at
        else:
            reader.part(UploadId.of(2, 2, number), 0, at + skew)
    reader.end(BUSY, parts, at + skew)
    assert [(upload.upload_id, upload.damage) for upload in reader.uploads] == [(BUSY, "")]


@given(st.lists(st.integers(1, 2**40)), st.integers(0, 2**30))
def test_the_logs_clock_only_goes_forward(stamps: Sequence[int], longest: int) -> None:
    """Steps back count for nothing, leaps for no more than the longest step."""
    clock = LogClock(longest)
    before = 0
    for stamp in stamps:
        foretold = clock.after(stamp)
        clock.advance(stamp)
        assert clock.elapsed == foretold
        assert before <= clock.elapsed <= before + longest
        before = clock.elapsed
