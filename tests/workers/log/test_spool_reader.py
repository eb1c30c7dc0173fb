"""The spool as a worker reads it: to the durable end, its own partitions, and damage told."""

import asyncio
import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Kind, NewerRecord, encode_header
from ingest.contract.spool import (
    Appended,
    Layout,
    OsDisk,
    PoolLimits,
    SegmentLog,
    SpoolLocked,
    SpoolMismatch,
    SpoolMissing,
    WakeUps,
    make_log,
    open_log,
)
from tests.log.simulated_disk import PAGE, SimulatedDisk
from tests.support.asynchronous import asynchronous
from tests.support.next_release import newer_record
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.spool_reader import FAILED_READS, MAXIMUM_PASSED, SpoolReader

SEGMENT = 8 * PAGE
LIMITS = PoolLimits(SEGMENT, 64 * SEGMENT, 0)
PARTITIONS = 3

Written = list[tuple[int, int, bytes]]  # position, partition, payload


@contextmanager
def writing(folder: Path, disk: OsDisk | SimulatedDisk, mark: int = 0) -> Iterator[SegmentLog]:
    layout = Layout(folder)
    disk.make_folder(folder)
    meta = make_log(disk, layout, PARTITIONS, LIMITS)
    log, _, _ = open_log(disk, layout, meta, LIMITS, low_water_mark=lambda: mark, committed=mark)
    with closing(log):
        yield log


def appended(partition: int, payload: bytes, sequence: int) -> Appended:
    pieces = [memoryview(payload)]
    return Appended(partition, encode_header(Kind.PART, UploadId.of(1, 1, sequence), 0, None, pieces), pieces)


def fill(log: SegmentLog, groups: int, size: int = 1500) -> list[tuple[int, bytes]]:
    """Write groups of three records, one a partition; what they hold, in order."""
    written = []
    for group in range(groups):
        records = [appended(p, b"%d-%d" % (group, p) + b"x" * size, group * 3 + p) for p in range(3)]
        written += [(record.partition, b"".join(record.payload)) for record in records]
        while records:
            del records[: log.append(records)]
        log.sync()
    return written


def read_all(reader: SpoolReader) -> list[Entry]:
    entries: list[Entry] = []
    while more := reader.read(4096):
        entries += more
    return entries


@asynchronous
async def test_a_long_stretch_of_foreign_records_is_passed_in_steps(tmp_path: Path) -> None:
    """One read never takes long; an empty one in the middle is followed by the next at once."""
    with writing(tmp_path, OsDisk()) as log:
        for group in range(MAXIMUM_PASSED // 100 + 2):
            records = [appended(0, b"", group * 100 + n) for n in range(100)]
            while records:
                del records[: log.append(records)]
        log.append([appended(1, b"own", 1)])
        log.sync()
    with closing(SpoolReader(tmp_path, {1: 0})) as reader:
        assert reader.read() == []
        await reader.wait(3600)
        assert contents(reader.read()) == [(1, b"own")]


def contents(entries: Sequence[Entry]) -> list[tuple[int, bytes]]:
    return [(e.partition, bytes(e.record.payload)) for e in entries if isinstance(e, LogRecord)]


def test_records_come_in_order_over_segments(tmp_path: Path) -> None:
    """All of the reader's partitions, in the order of the log; the position reaches the log's end."""
    with writing(tmp_path, OsDisk()) as log:
        written = fill(log, 20)
        end = log.end
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0})) as reader:
        entries = read_all(reader)
        assert contents(entries) == written
        assert reader.position == end
    assert [e.position for e in entries] == sorted(e.position for e in entries)


def test_only_own_partitions_are_handed_out(tmp_path: Path) -> None:
    """Foreign records are passed over, and the position passes them too."""
    with writing(tmp_path, OsDisk()) as log:
        written = fill(log, 12)
        with closing(SpoolReader(tmp_path, {1: 0})) as reader:
            assert contents(read_all(reader)) == [item for item in written if item[0] == 1]
            assert reader.position == log.end


def test_nothing_beyond_the_durable_end_is_handed_out(tmp_path: Path) -> None:
    """A group that is written and not yet synced does not exist for a reader."""
    with writing(tmp_path, OsDisk()) as log, closing(SpoolReader(tmp_path, {0: 0})) as reader:
        log.append([appended(0, b"soon", 1)])
        assert reader.read() == []
        log.sync()
        assert contents(reader.read()) == [(0, b"soon")]


def test_each_partition_starts_where_it_was(tmp_path: Path) -> None:
    """A restart goes on at each partition's own position, wherever in a group it is."""
    with writing(tmp_path, OsDisk()) as log:
        fill(log, 12)
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0})) as reader:
        entries = read_all(reader)
    for cut in range(0, len(entries), 3):
        starts = {0: entries[cut].position, 1: entries[cut // 2].next_position}
        with closing(SpoolReader(tmp_path, starts)) as reader:
            rest = read_all(reader)
        assert rest == [entry for entry in entries if entry.position >= starts[entry.partition]]


def test_a_recycled_start_is_no_damage(tmp_path: Path) -> None:
    """A partition that nobody has read yet starts with the oldest segment that is there."""
    disk = OsDisk()
    with writing(tmp_path, disk) as log:
        fill(log, 12)
        middle = log.end
    with writing(tmp_path, disk, mark=middle) as log:
        fill(log, 12)
    with closing(SpoolReader(tmp_path, {0: 0})) as reader:
        entries = read_all(reader)
    assert all(isinstance(entry, LogRecord) for entry in entries)
    assert entries[0].position > 0


def test_reads_are_bounded(tmp_path: Path) -> None:
    """One read hands out about as many bytes as were asked for, however much waits."""
    with writing(tmp_path, OsDisk()) as log:
        fill(log, 20)
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0})) as reader:
        while entries := reader.read(5000):
            assert sum(entry.next_position - entry.position for entry in entries) < 5000 + 1600


def test_a_partition_has_one_reader(tmp_path: Path) -> None:
    """Two workers never own one partition; the lock goes with its process or reader."""
    with pytest.raises(SpoolMissing):
        SpoolReader(tmp_path / "none", {0: 0})
    with writing(tmp_path, OsDisk()):
        pass
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0})):
        with pytest.raises(SpoolLocked):
            SpoolReader(tmp_path, {1: 0})
        SpoolReader(tmp_path, {2: 0}).close()
    SpoolReader(tmp_path, {1: 0}).close()
    with pytest.raises(SpoolMismatch):
        SpoolReader(tmp_path, {PARTITIONS: 0})


@asynchronous
async def test_a_wake_up_ends_the_wait(tmp_path: Path) -> None:
    """The reader of a partition wakes when something is published there, and not by its time-out."""
    with (
        writing(tmp_path, OsDisk()) as log,
        closing(SpoolReader(tmp_path, {1: 0})) as reader,
        closing(WakeUps(Layout(tmp_path), PARTITIONS)) as wake_ups,
    ):
        for _ in range(3):
            waiting = asyncio.ensure_future(reader.wait(3600))
            await asyncio.sleep(0)
            log.append([appended(1, b"now", 1)])
            log.sync()
            wake_ups.wake({0, 1, 2})
            await waiting
            assert contents(reader.read()) == [(1, b"now")]
        log.append([appended(1, b"before the wait", 1)])
        log.sync()
        await reader.wait(3600)
        reader.read()
        await reader.wait(0)


def test_wake_ups_never_block_nor_fail(tmp_path: Path) -> None:
    """Without a reader, with a full FIFO, or after the reader has gone, the writer goes on."""
    with writing(tmp_path, OsDisk()), closing(WakeUps(Layout(tmp_path), PARTITIONS)) as wake_ups:
        wake_ups.wake({0})
        reader = SpoolReader(tmp_path, {0: 0})
        for _ in range(70_000):
            wake_ups.wake({0})
        reader.close()
        wake_ups.wake({0})
        wake_ups.wake({0})


def test_a_disk_error_is_an_error_first_and_damage_when_it_stays(tmp_path: Path) -> None:
    """A page that cannot be read loses nothing while it may recover, and holds nobody up for ever."""
    disk = SimulatedDisk(1)
    with writing(tmp_path, disk) as log:
        written = fill(log, 3, size=9000)
    file = disk.names_now[Layout(tmp_path).segment(0)]
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0}, disk)) as reader:
        disk.unreadable.add((file, 1))
        for _ in range(2):
            with pytest.raises(OSError, match="unreadable"):
                reader.read()
        disk.unreadable.clear()
        assert contents(read_all(reader)) == written
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0}, disk)) as reader:
        disk.unreadable.add((file, 1))
        for _ in range(FAILED_READS):
            with pytest.raises(OSError, match="unreadable"):
                reader.read()
        entries = read_all(reader)
    assert contents(entries) == written[1:]
    assert [entry.partition for entry in entries if isinstance(entry, DamagedRecord)] == [0]


def test_a_disk_that_is_away_is_not_taken_for_damage(tmp_path: Path) -> None:
    """However long nothing of the log can be read: it all comes once the disk is back."""
    disk = SimulatedDisk(1)
    with writing(tmp_path, disk) as log:
        written = fill(log, 30)
    segments = disk.names_now.values()
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0}, disk)) as reader:
        disk.unreadable = {(file, number) for file in segments for number in range(SEGMENT // PAGE)}
        for _ in range(3 * FAILED_READS):
            with pytest.raises(OSError, match="unreadable"):
                reader.read()
        disk.unreadable.clear()
        assert contents(read_all(reader)) == written


def test_other_disk_errors_are_not_taken_for_damage(tmp_path: Path) -> None:
    """Only what the disk cannot read is ever given up."""

    class Full(SimulatedDisk):
        def pread(self, fd: int, length: int, position: int) -> bytes:
            raise OSError(errno.ENOMEM, "memory")

    disk = SimulatedDisk(1)
    with writing(tmp_path, disk) as log:
        fill(log, 1)
    with closing(SpoolReader(tmp_path, {0: 0}, disk)) as reader:
        disk.__class__ = Full
        for _ in range(FAILED_READS * 2):
            with pytest.raises(OSError, match="memory"):
                reader.read()


def test_records_tell_when_they_were_written(tmp_path: Path) -> None:
    """In milliseconds, by the clock of the writer's groups: the log's own time, by which damage is given up."""
    before = time.time_ns() // 1_000_000
    with writing(tmp_path, OsDisk()) as log:
        fill(log, 2)
    after = time.time_ns() // 1_000_000
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0})) as reader:
        stamps = [entry.appended_at for entry in read_all(reader)]
    assert len(stamps) == 6
    assert stamps == sorted(stamps)
    assert before <= stamps[0] <= stamps[-1] <= after


def test_a_damaged_payload_is_handed_out_to_its_partition(tmp_path: Path) -> None:
    """The record keeps its place and its bytes, marked as damaged; its neighbours are untouched."""
    disk = SimulatedDisk(1)
    with writing(tmp_path, disk) as log:
        written = fill(log, 2)
    disk.damage(Layout(tmp_path).segment(0), 64 + 16 + 32 + 700)
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0}, disk)) as reader:
        entries = read_all(reader)
    assert isinstance(entries[0], DamagedRecord)
    assert (entries[0].partition, len(entries[0].data)) == (0, 32 + 3 + 1500)
    assert contents(entries[1:]) == written[1:]


def test_a_record_of_a_newer_release_is_not_passed_over(tmp_path: Path) -> None:
    """It is no damage: what comes before it is handed out, and then nothing more, however often it is tried."""
    with writing(tmp_path, OsDisk()) as log:
        written = fill(log, 1)
        log.append([Appended(0, newer_record(UploadId.of(1, 1, 9)), [])])
        log.append([appended(0, b"behind it", 10)])
        log.sync()
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0})) as reader:
        assert contents(reader.read()) == written
        for _ in range(2):
            with pytest.raises(NewerRecord, match="upgrade"):
                reader.read()


def test_a_missing_segment_is_told_to_every_partition(tmp_path: Path) -> None:
    """Acknowledged records that are gone are never passed over in silence."""
    disk = SimulatedDisk(1)
    with writing(tmp_path, disk) as log:
        written = fill(log, 20)
    disk.unlink(Layout(tmp_path).segment(2))
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0}, disk)) as reader:
        entries = read_all(reader)
    lost = [entry for entry in entries if isinstance(entry, DamagedRecord)]
    assert [(e.position // SEGMENT, e.partition) for e in lost] == [(2, 0), (2, 1), (2, 2)]
    found = contents(entries)
    assert set(found) < set(written)
    assert found[-1] == written[-1]


@st.composite
def injuries(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    kinds = st.sampled_from(["bit", "page", "garbage"])
    return draw(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, SEGMENT - 1), kinds), min_size=1, max_size=4)
    )


@given(damage=injuries(), seed=st.integers(0, 1000))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_is_passed_over_in_silence(
    tmp_path: Path, damage: list[tuple[int, int, str]], seed: int
) -> None:
    """Whatever bytes of the segments change: each record is handed out as it was, or as damage at its place.

    Nothing else is handed out, and nothing but documented errors comes of it.
    """
    disk = SimulatedDisk(seed)
    layout = Layout(tmp_path)
    with writing(tmp_path, disk) as log:
        fill(log, 18)
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0}, disk)) as reader:
        before = {
            e.position: (e.partition, bytes(e.record.payload))
            for e in read_all(reader)
            if isinstance(e, LogRecord)
        }
    for number, position, kind in damage:
        file = disk.names_now[layout.segment(number)]
        if kind == "bit":
            disk.damage(layout.segment(number), position)
        else:
            page = bytes(PAGE) if kind == "page" else disk.rng.randbytes(PAGE)
            file.cache[position // PAGE] = page
    with closing(SpoolReader(tmp_path, {0: 0, 1: 0, 2: 0}, disk)) as reader:
        entries = read_all(reader)
    sound = {e.position: (e.partition, bytes(e.record.payload)) for e in entries if isinstance(e, LogRecord)}
    lost = [entry for entry in entries if isinstance(entry, DamagedRecord)]
    assert sound.items() <= before.items()
    for position, (partition, _) in before.items():
        told = any(e.position <= position < e.next_position and e.partition == partition for e in lost)
        assert (position in sound) != told, f"record at {position}"
