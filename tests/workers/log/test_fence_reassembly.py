"""Fences between the records of uploads: handed out, held at, and never taken for an instance."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import HEADER, Instance, Kind, Place, decode, encode_header
from tests.support.fences import asked, fence_record, references
from workers.cli.account import balance
from workers.cli.backlog import SEALING
from workers.log.checkpoint import Progress
from workers.log.commit_metadata import OffsetCheckpoint
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.offset_progress import OffsetProgress
from workers.log.reassembly import Reassembler
from workers.log.scratch import ScratchFolder
from workers.log.upload import Upload

FENCE = UploadId.of(7, 1, 1)
UPLOAD = UploadId.of(1, 1, 1)


def instance(upload_id: UploadId = UPLOAD, uid: str = "1.2") -> bytes:
    """An INSTANCE record."""
    data = b"data"
    facts = Instance("1.2", uid, "1.2.1", len(data), bytes(16), "A", "B", "::1", 1)
    return encode_header(Kind.INSTANCE, upload_id, 1, facts, [memoryview(data)]) + data


class Reading:
    """A partition read from record 0 on."""

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self.progress = progress or Progress(Checkpoint(partition=0))
        self.reassembler = Reassembler({0: self.progress}, ScratchFolder(folder / "scratch", [0]), 1 << 20)
        self.uploads = list[Upload]()
        self.fences = self.reassembler.take_fences()

    def read(self, records: Sequence[bytes], damaged: Sequence[int] = (), start: int = 0) -> None:
        """Read records; those ``damaged`` as such."""
        for at, record in enumerate(records, start):
            data = memoryview(record)
            entry: Entry = (
                LogRecord(at, at + 1, 0, decode(data))
                if at not in damaged
                else DamagedRecord(at, at + 1, 0, data)
            )
            self.uploads += asyncio.run(self.reassembler.add(entry))
            self.fences += self.reassembler.take_fences()


def test_a_fence_holds_the_mark_and_is_no_upload(tmp_path: Path) -> None:
    """It is handed out beside uploads, at its position, and the mark stays there until it is passed."""
    reading = Reading(tmp_path)
    reading.read([fence_record(FENCE, ["1.2", "1.3"], round=2), instance()])
    (fence,) = reading.fences
    assert (fence.fence_id, fence.partition, fence.end_position) == (FENCE, 0, 1)
    assert fence.asked == asked(round=2)
    assert fence.references() == references("1.2", "1.3")
    assert [upload.upload_id for upload in reading.uploads] == [UPLOAD]
    assert reading.progress.low_water_mark == 0
    reading.progress.passed(FENCE, 1)
    assert reading.progress.low_water_mark == 1
    assert reading.progress.checkpoint().counters == {}


def test_a_fence_waits_for_its_own_part_only_once(tmp_path: Path) -> None:
    """A producer's retry is the same question; one that is passed is not asked again above a mark that is held."""
    part = encode_header(Kind.PART, UPLOAD, 0, None, [memoryview(b"part")]) + b"part"
    records = [part, fence_record(FENCE, ["1.2"]), fence_record(FENCE, ["1.2"])]
    reading = Reading(tmp_path)
    reading.read(records)
    assert len(reading.fences) == 1
    reading.progress.passed(FENCE, 2)
    checkpoint = reading.progress.checkpoint()
    assert checkpoint.low_water_mark == 0
    again = Reading(tmp_path, Progress(checkpoint))
    again.read(records)
    assert not again.fences


def test_on_kafka_a_passed_fence_costs_no_room_in_the_commit(tmp_path: Path) -> None:
    """There it is asked again after a restart below which the mark is held, and nothing is counted for it."""
    part = encode_header(Kind.PART, UPLOAD, 0, None, [memoryview(b"part")]) + b"part"
    progress = OffsetProgress(OffsetCheckpoint(partition=0), 0)
    reading = Reading(tmp_path, progress)
    reading.read([part, fence_record(FENCE, ["1.2"])])
    assert progress.checkpoint().low_water_mark == 0
    progress.passed(FENCE, 2)
    checkpoint = progress.checkpoint()
    assert (checkpoint.low_water_mark, checkpoint.done, checkpoint.done_ranges) == (0, {}, ())
    again = Reading(tmp_path, OffsetProgress(checkpoint, 2))
    again.read([part, fence_record(FENCE, ["1.2"])])
    assert len(again.fences) == 1


def test_a_fence_is_no_backlog() -> None:
    """What waits in the log for `status` are uploads."""
    assert Kind.COMMIT_ASKED not in SEALING
    done = {bytes(FENCE): 2}
    account = balance([], {0: Checkpoint(partition=0, done=done, counters={Place.STORED: 1})}, [])
    assert (account.received, account.backlog) == (1, 0)


@pytest.mark.parametrize("at", range(len(fence_record(FENCE, ["1.2.3", "1.2.4"]))))
def test_a_damaged_fence_is_passed_over(at: int, tmp_path: Path) -> None:
    """Whichever byte it is: nothing waits for it, nothing is made of it, and it is reported."""
    record = bytearray(fence_record(FENCE, ["1.2.3", "1.2.4"]))
    record[at] ^= 0xFF
    reading = Reading(tmp_path)
    reading.read([instance(), bytes(record), instance(UploadId.of(1, 1, 2))], damaged=[1])
    assert not reading.fences
    assert reading.progress.read_to == 3
    assert not reading.progress.waits_at(FENCE)
    assert reading.reassembler.unreadable == 1
    assert len(reading.uploads) == 2


@pytest.mark.parametrize("kind", [Kind.INSTANCE, Kind.PART, Kind.END])
def test_a_damaged_instance_is_never_taken_for_a_fence(kind: Kind, tmp_path: Path) -> None:
    """Where only the kind of its record is damaged, what can be read of it tells that it is an instance's."""
    payload = b"" if kind is Kind.END else b"data"
    facts = None if kind is Kind.PART else Instance("1.2", "1.2", "1.2.1", 4, bytes(16), "A", "B", "::1", 1)
    record = bytearray(encode_header(kind, UPLOAD, 1, facts, [memoryview(payload)]) + payload)
    record[1] = Kind.COMMIT_ASKED
    reading = Reading(tmp_path)
    reading.read([bytes(record)], damaged=[0])
    assert reading.reassembler.unreadable == 0
    assert len(reading.uploads) == 1
    assert reading.uploads[0].damage


def test_a_whole_record_that_asks_nothing_is_passed_over(tmp_path: Path) -> None:
    """As from a release that writes otherwise, or with a UID that is none."""
    bad_uid = fence_record(FENCE, ["1.2/../3"])
    no_metadata = encode_header(Kind.COMMIT_ASKED, FENCE)
    reading = Reading(tmp_path)
    reading.read([bad_uid, no_metadata, instance()])
    assert reading.reassembler.unreadable == 2
    assert not reading.fences
    assert reading.progress.low_water_mark == 2
    assert len(bad_uid) > HEADER.size
