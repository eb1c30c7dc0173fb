"""Damage on Kafka and a partition that goes to another worker: what may have been acknowledged is handed out by one of them."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import xxhash

from ingest.contract.identifiers import UploadId
from ingest.contract.records import HEADER, Instance, Kind, Outcome, Place, decode, encode_header
from workers.log.commit_metadata import OffsetCheckpoint, decode_metadata, encode_metadata
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.offset_progress import OffsetProgress, started
from workers.log.reassembly import Reassembler
from workers.log.scratch import ScratchFolder

if TYPE_CHECKING:
    from workers.log.upload import Upload


EXPIRE_AFTER = 180.0  # s
STEP = 5000  # ms between two records
HURT, OTHER, LATER = (UploadId.of(1, 1, number) for number in (1, 2, 3))
PART = b"part"


def rotten(record: bytes, hit: int | None) -> bytes:
    """The record; ``hit``: which of its bytes has rotted."""
    return record if hit is None else record[:hit] + bytes([record[hit] ^ 0xFF]) + record[hit + 1 :]


def part(upload_id: UploadId, index: int, hit: int | None = None) -> bytes:
    return rotten(encode_header(Kind.PART, upload_id, index, None, [memoryview(PART)]) + PART, hit)


def end(upload_id: UploadId, count: int, hit: int | None = None) -> bytes:
    data = PART * count
    instance = Instance("1.2", "1.2.3", "1.2.1", len(data), xxhash.xxh3_128_digest(data), "A", "B", "::1", 1)
    return rotten(encode_header(Kind.END, upload_id, count, instance), hit)


# Bytes of a record by what follows when they rot: of its header the kind, the upload id, and the CRC alone; of its metadata the first.
ILLEGIBLE, MISNAMED, SEALING, UNREADABLE = 1, 12, 8, HEADER.size


def is_sound(record: bytes) -> bool:
    try:
        decode(record)
    except ValueError:
        return False
    return True


class Owner:
    """One worker's ownership of the partition, from a commit on."""

    def __init__(self, folder: Path, log: list[bytes], commit: OffsetCheckpoint) -> None:
        self.log = log
        self.progress = OffsetProgress(started(commit), len(log))
        self.reassembler = Reassembler(
            {0: self.progress}, ScratchFolder(folder, [0]), memory_limit=1000, expire_after=EXPIRE_AFTER
        )
        self.placed: list[Upload] = []

    def read_to(self, position: int) -> OffsetCheckpoint:
        """Read, place and commit all before ``position``; what is committed."""
        while self.progress.read_to < position:
            at = self.progress.read_to
            record, appended_at = self.log[at], 1_700_000_000_000 + at * STEP
            entry: Entry = (
                LogRecord(at, at + 1, 0, decode(record), appended_at)
                if is_sound(record)
                else DamagedRecord(at, at + 1, 0, memoryview(record), appended_at)
            )
            for upload in asyncio.run(self.reassembler.add(entry, at * STEP / 1000)):
                self.placed.append(upload)
                place = Place.QUARANTINED if upload.damage else Place.STORED
                outcome = Outcome("", place, "", "", "", "", 1, upload.end_position)
                self.progress.settle(upload.upload_id, outcome)
        self.progress.count(self.progress.settled(), 0)
        commit = self.progress.checkpoint()
        return decode_metadata(0, commit.low_water_mark, encode_metadata(commit))


def owners(folder: Path, log: list[bytes], first_reads: int) -> tuple[Owner, Owner, OffsetCheckpoint]:
    """One that reads the beginning of the log, and one that goes on to its end; with what is committed then."""
    one = Owner(folder, log, OffsetCheckpoint(partition=0))
    other = Owner(folder, log, one.read_to(first_reads))
    return one, other, other.read_to(len(log))


def passing(count: int) -> list[bytes]:
    """An upload that goes on for so many records, so that time passes in the log."""
    return [part(LATER, index) for index in range(count)]


@pytest.mark.parametrize("hit", [ILLEGIBLE, MISNAMED, UNREADABLE])
def test_what_damage_may_have_sealed_is_kept_by_the_next_owner(tmp_path: Path, hit: int) -> None:
    """The END of an upload has rotted; the partition goes to another before the upload's time is up."""
    log = [part(HURT, 0), part(HURT, 1), end(HURT, 2, hit), *passing(60), end(LATER, 60)]
    one, other, commit = owners(tmp_path, log, 5)
    assert HURT not in {upload.upload_id for upload in one.placed}, "its END may be another's"
    (kept,) = [upload for upload in other.placed if upload.upload_id == HURT]
    assert kept.damage
    assert bytes(kept.payload.read(0, kept.payload.size)) == PART * 2
    assert other.reassembler.orphans == 0
    assert commit.count(Place.QUARANTINED) == 2, "the upload, and what is left of its END"
    assert (commit.count(Place.STORED), commit.low_water_mark) == (1, len(log))


def test_an_upload_that_has_lost_its_first_part_as_well_is_kept(tmp_path: Path) -> None:
    """Damage has put it under another upload id, so that the END does not fit what is there."""
    log = [part(HURT, 0, MISNAMED), part(HURT, 1), end(HURT, 2, SEALING), *passing(60), end(LATER, 60)]
    _, other, commit = owners(tmp_path, log, 5)
    (kept,) = [upload for upload in other.placed if upload.upload_id == HURT]
    assert bytes(kept.payload.read(0, kept.payload.size)) == PART
    assert commit.low_water_mark == len(log)


@pytest.mark.parametrize("holds_the_mark", [0, 1])
def test_what_a_rotten_end_has_sealed_is_handed_out_once(tmp_path: Path, holds_the_mark: int) -> None:
    """Though the next owner reads its parts again, all of them or some, as another upload holds the mark."""
    log = [part(HURT, 0), part(HURT, 1), end(HURT, 2, SEALING)]
    log.insert(holds_the_mark, part(OTHER, 0))
    log += [*passing(10), end(OTHER, 1), *[part(LATER, 10 + index) for index in range(50)], end(LATER, 60)]
    one, other, commit = owners(tmp_path, log, 5)
    assert [(upload.upload_id, bool(upload.damage)) for upload in one.placed] == [(HURT, True)]
    assert [upload.upload_id for upload in other.placed] == [OTHER, LATER]
    assert commit.low_water_mark == len(log)
