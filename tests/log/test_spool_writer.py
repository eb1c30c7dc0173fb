"""The writer and the reader on a real file system."""

import asyncio
import contextlib
import errno
import functools
import itertools
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ingest.contract.checkpoint import Checkpoint, write_checkpoints
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, encode_header
from ingest.contract.settings import LogSettings, Settings
from ingest.contract.spool import Layout, OsDisk, Space, SpoolLocked, SpoolMismatch, write_slot
from ingest.errors import LogUnavailable, OutOfResources
from ingest.log import SpoolWriter
from tests.support.asynchronous import asynchronous, until
from tests.support.fences import fence_record
from tests.support.file_limit import longest_file
from workers.log.checkpoint import Progress
from workers.log.entries import Entry, LogRecord
from workers.log.spool_reader import SpoolReader

MiB = 1 << 20
INSTANCE = Instance("1.2", "1.2.3", "1.2.840.10008.1.2", 4, b"\0" * 16, "A", "B", "::1", 1)


def settings(data: Path, partitions: int = 2, maximum_size: int = 8 * MiB, reserve: int = 0) -> Settings:
    log = LogSettings(partitions=partitions, segment_size=2 * MiB, maximum_size=maximum_size, reserve=reserve)
    return Settings(data=data, log=log)


@contextlib.asynccontextmanager
async def running(
    config: Settings, disk: OsDisk | None = None, patience: float = 0.05, publishers: int = 2
) -> AsyncIterator[SpoolWriter]:
    writer = SpoolWriter(config, disk, patience=patience)
    writer.publishers = publishers
    await writer.start()
    try:
        yield writer
    finally:
        await writer.close()


def part(sequence: int, payload: Sequence[memoryview]) -> bytes:
    return encode_header(Kind.PART, UploadId.of(1, 1, sequence), 0, None, payload)


# One publisher: groups are written in its own thread; more: in the writer's.
EITHER_THREAD = pytest.mark.parametrize("publishers", [1, 2])
_OWN_UPLOAD = itertools.count(1000)


async def publish(writer: SpoolWriter, partition: int, data: bytes, sequence: int | None = None) -> None:
    payload = [memoryview(data)]
    header = part(next(_OWN_UPLOAD) if sequence is None else sequence, payload)
    await writer.publish(partition, header, payload)


async def taken_by(writer: SpoolWriter) -> bool:
    """Whether a large record finds room."""
    try:
        await publish(writer, 0, bytes(900_000))
    except OutOfResources:
        return False
    return True


def segment_sizes(data: Path) -> list[int]:
    """Of those that are made: one in the making may have got its name before it is looked at."""
    return [path.stat().st_size for path in (data / "spool/segments").iterdir() if path.name != "new"]


def descriptors() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


def read_all(data: Path, partitions: Sequence[int] = (0, 1), start: int = 0) -> list[Entry]:
    reader = SpoolReader(data / "spool", dict.fromkeys(partitions, start))
    try:
        entries: list[Entry] = []
        while more := reader.read():
            entries += more
        return entries
    finally:
        reader.close()


def payloads(entries: Sequence[Entry]) -> list[bytes]:
    return [
        bytes(entry.record.payload)
        for entry in entries
        if isinstance(entry, LogRecord) and entry.record.kind is Kind.PART
    ]


@EITHER_THREAD
@asynchronous
async def test_what_was_published_is_read_back_in_order(tmp_path: Path, publishers: int) -> None:
    """Each partition has its records in the order of publishing, whole and once."""
    sent = {partition: [os.urandom(size) for size in (0, 1, 4096, 900_000)] for partition in (0, 1)}
    async with running(settings(tmp_path), publishers=publishers) as writer:
        await asyncio.gather(*(publish(writer, p, data) for p, items in sent.items() for data in items))
    for partition, items in sent.items():
        assert payloads(read_all(tmp_path, [partition])) == items


@asynchronous
async def test_records_in_pieces_are_joined(tmp_path: Path) -> None:
    """A payload of several buffers is one record, however many there are."""
    pieces = [memoryview(os.urandom(7)) for _ in range(1500)]
    async with running(settings(tmp_path)) as writer:
        await writer.publish(0, part(1, pieces), pieces)
    assert payloads(read_all(tmp_path)) == [b"".join(pieces)]


@asynchronous
async def test_a_start_is_noted_in_every_partition(tmp_path: Path) -> None:
    """EPOCH is the first record of a start everywhere, so that orphans of older starts are dead at once."""
    epochs = []
    for _ in range(2):
        async with running(settings(tmp_path, partitions=3)) as writer:
            epochs.append(writer.epoch)
            receiver = writer.receiver_id
    for partition in range(3):
        records = [entry.record for entry in read_all(tmp_path, [partition]) if isinstance(entry, LogRecord)]
        assert [record.kind for record in records] == [Kind.EPOCH, Kind.EPOCH]
        assert [record.upload_id.epoch for record in records] == epochs
        assert {record.upload_id.receiver for record in records} == {receiver}


@asynchronous
async def test_the_epoch_grows_when_the_clock_jumps_back(tmp_path: Path) -> None:
    """An epoch is above every earlier one, whatever the clock says."""
    async with running(settings(tmp_path)):
        pass
    future = 2**47
    write_slot(OsDisk(), Layout(tmp_path / "spool").epoch, future)
    async with running(settings(tmp_path)) as writer:
        assert writer.epoch == future + 1


@asynchronous
async def test_there_is_one_writer(tmp_path: Path) -> None:
    """A second receiver on the same spool does not start, and the lock ends with its holder."""
    async with running(settings(tmp_path)):
        with pytest.raises(SpoolLocked):
            await SpoolWriter(settings(tmp_path)).start()
    async with running(settings(tmp_path)):
        pass


@asynchronous
async def test_publishing_after_close_fails(tmp_path: Path) -> None:
    """Nobody waits for ever on a closed log."""
    async with running(settings(tmp_path)) as writer:
        pass
    with pytest.raises(LogUnavailable):
        await publish(writer, 0, b"late")


class WatchedDisk(OsDisk):
    """Knows which thread synced last, and syncs as slowly as it is told, however slow the machine's disk is."""

    def __init__(self) -> None:
        self.synced_by = 0
        self.delay = 0.0

    def fdatasync(self, fd: int) -> None:
        time.sleep(self.delay)
        self.synced_by = threading.get_ident()


@asynchronous
async def test_a_lone_publisher_writes_in_its_own_thread_while_the_disk_is_quick(tmp_path: Path) -> None:
    """A slow sync holds up the event loop once, not again; and after some quick ones all is as before."""
    disk, own = WatchedDisk(), threading.get_ident()
    async with running(settings(tmp_path), disk, publishers=1) as writer:

        async def written_here() -> bool:
            await publish(writer, 0, b"x")
            return disk.synced_by == own

        async def slow_one_here() -> bool:
            while not await written_here():  # noqa: ASYNC110 - it publishes
                await asyncio.sleep(0.01)
            disk.delay = 0.2
            here = await written_here()
            disk.delay = 0.0
            return here

        while not await slow_one_here():
            pass  # the machine was slow with a write, and the log took it for the disk
        assert not await written_here()
        while not await written_here():  # noqa: ASYNC110 - it publishes
            await asyncio.sleep(0.01)


@asynchronous
async def test_close_writes_what_waits(tmp_path: Path) -> None:
    """What was published before `close` is durable after it."""
    async with running(settings(tmp_path)) as writer:
        futures = [asyncio.ensure_future(publish(writer, 0, b"%d" % n)) for n in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*futures)
    assert len(payloads(read_all(tmp_path))) == 20


@EITHER_THREAD
@asynchronous
async def test_a_full_log_refuses_and_recovers_by_itself(tmp_path: Path, publishers: int) -> None:
    """At maximum size new records fail with OutOfResources; once workers are past them, all goes on."""
    config = settings(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    async with running(config, publishers=publishers) as writer:
        taken = 0
        while await taken_by(writer):
            taken += 1
        assert 6 <= taken <= 8, "four segments of two records each"
        assert writer.refusal() is not None
        end = read_all(tmp_path)[-1].next_position
        for partition in (0, 1):
            write_checkpoints(checkpoints, [Checkpoint(partition=partition, low_water_mark=end)])
        await until(lambda: writer.refusal() is None)
        for _ in range(3):
            await publish(writer, 0, b"again" + bytes(900_000))
    assert len(payloads(read_all(tmp_path, start=end))) == 3
    assert segment_sizes(tmp_path) == [2 * MiB] * 4


@asynchronous
async def test_one_slow_partition_keeps_its_segments(tmp_path: Path) -> None:
    """A segment is used again only when every partition is past it."""
    config = settings(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    async with running(config) as writer:
        await publish(writer, 1, b"slow")
        while await taken_by(writer):
            pass
        end = read_all(tmp_path)[-1].next_position
        write_checkpoints(checkpoints, [Checkpoint(partition=0, low_water_mark=end)])
        assert not await taken_by(writer)
        assert payloads(read_all(tmp_path, [1])) == [b"slow"]


class ToldDisk(OsDisk):
    """Notes each write of a group, and refuses them when told to."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.refuse = False

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], position: int) -> int:
        if len(buffers) > 1:
            self.calls.append("write")
            if self.refuse:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwritev(fd, buffers, position)

    def start_writeback(self, fd: int, length: int, position: int) -> None:
        self.calls.append("begin")
        super().start_writeback(fd, length, position)


async def publish_together(writer: SpoolWriter, calls: list[str], count: int) -> list[asyncio.Future[None]]:
    """So many large records that are all in the queue before the first is made."""
    payload = [memoryview(bytes(700_000))]
    together = threading.Event()

    def made(number: int) -> bytes:
        together.wait()
        calls.append("make")
        return part(number, payload)

    futures = [writer.publish(0, functools.partial(made, number), payload) for number in range(count)]
    together.set()
    await asyncio.wait(futures)
    return futures


@asynchronous
async def test_the_disk_has_begun_before_the_last_record_is_hashed(tmp_path: Path) -> None:
    """Each record is written right behind its hashing, and a group that is large is on its way by then."""
    calls: list[str] = []
    config = Settings(data=tmp_path, log=LogSettings(partitions=1, segment_size=8 * MiB, reserve=0))
    async with running(config, ToldDisk(calls)) as writer:
        calls.clear()
        for future in await publish_together(writer, calls, 4):
            future.result()
    assert calls == ["make", "make", "write", "begin", "make", "make", "write", "begin", "write", "write"]
    assert len(payloads(read_all(tmp_path, [0]))) == 4


@asynchronous
async def test_all_that_wait_are_refused_with_the_first(tmp_path: Path) -> None:
    """Who waits behind a group that was refused half way does not wait for the same refusal again."""
    calls: list[str] = []
    disk = ToldDisk(calls)
    config = Settings(data=tmp_path, log=LogSettings(partitions=1, segment_size=8 * MiB, reserve=0))
    async with running(config, disk) as writer:
        calls.clear()
        disk.refuse = True
        for future in await publish_together(writer, calls, 5):
            assert isinstance(future.exception(), OutOfResources)
        disk.refuse = False
        assert calls.count("write") == 1
        await publish(writer, 0, b"later")
    assert payloads(read_all(tmp_path, [0])) == [b"later"]


class SmallDisk(OsDisk):
    """A file system whose free space a test decides."""

    def __init__(self) -> None:
        self.found = Space(200 * MiB, 200 * MiB)

    def space(self, path: Path) -> Space:
        return self.found


@asynchronous
async def test_the_reserve_is_kept_free(tmp_path: Path) -> None:
    """Below the reserve new instances are refused though the log has room; above it they are taken again."""
    disk = SmallDisk()
    async with running(settings(tmp_path, reserve=1000 * MiB), disk) as writer:
        assert writer.refusal() is None, "the reserve is at most a tenth of the file system"
        disk.found = Space(200 * MiB, 19 * MiB)
        await until(lambda: "reserve" in (writer.refusal() or ""))
        # With room for the next segment, which may not have been made before the disk was found full.
        disk.found = Space(200 * MiB, 23 * MiB)
        await until(lambda: writer.refusal() is None)


@asynchronous
async def test_few_large_segments_are_not_made_on_a_small_disk(tmp_path: Path) -> None:
    """On a small file system segments are smaller than the settings say, so that space comes free in steps."""
    config = Settings(data=tmp_path, log=LogSettings(partitions=1, segment_size=32 * MiB))
    async with running(config, SmallDisk()):
        await until(lambda: segment_sizes(tmp_path) == [8 * MiB, 8 * MiB])  # the second in the background


class FailingDisk(OsDisk):
    """Fails what a test tells it to."""

    def __init__(self) -> None:
        self.sync_error = 0
        self.write_error = 0

    def fdatasync(self, fd: int) -> None:
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().fdatasync(fd)

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], position: int) -> int:
        if self.write_error and len(buffers) > 1:  # a group, not the page that takes it back
            raise OSError(self.write_error, os.strerror(self.write_error))
        return super().pwritev(fd, buffers, position)


@EITHER_THREAD
@asynchronous
async def test_after_a_failed_sync_nothing_is_acknowledged_and_recovery_cuts(
    tmp_path: Path, publishers: int
) -> None:
    """The waiting fail, the process is told, and the next start goes on behind a segment that is retired."""
    disk = FailingDisk()
    config = settings(tmp_path)
    async with running(config, disk, publishers=publishers) as writer:
        await publish(writer, 0, b"before")
        disk.sync_error = errno.EIO
        with pytest.raises(LogUnavailable):
            await publish(writer, 0, b"not durable")
        await writer.failed
        with pytest.raises(LogUnavailable):
            await publish(writer, 0, b"after")
        assert writer.refusal() is not None
        disk.sync_error = 0
        with pytest.raises(LogUnavailable):
            await publish(writer, 0, b"never again in this process")
    async with running(config) as writer:
        await publish(writer, 0, b"next start")
    assert payloads(read_all(tmp_path)) == [b"before", b"next start"]
    layout = Layout(tmp_path / "spool")
    assert list(layout.retired_ends(OsDisk())) == [0]
    assert 0 not in layout.segment_numbers(OsDisk())


@asynchronous
async def test_a_reader_at_work_follows_into_the_next_start(tmp_path: Path) -> None:
    """A worker need not be restarted when the receiver is, not even over a retired segment."""
    disk = FailingDisk()
    config = settings(tmp_path)
    async with running(config, disk) as writer:
        await publish(writer, 0, b"one")
        reader = SpoolReader(tmp_path / "spool", {0: 0})
        assert payloads(reader.read()) == [b"one"]
        disk.sync_error = errno.EIO
        with pytest.raises(LogUnavailable):
            await publish(writer, 0, b"lost")
    async with running(config) as writer:
        await publish(writer, 0, b"two")
        assert payloads(reader.read()) == [b"two"]
    reader.close()


@EITHER_THREAD
@pytest.mark.parametrize(("code", "expected"), [(errno.ENOSPC, OutOfResources), (errno.EIO, LogUnavailable)])
@asynchronous
async def test_a_refused_write_is_taken_back(
    tmp_path: Path, publishers: int, code: int, expected: type[Exception]
) -> None:
    """A group that the disk refuses fails its publishers alone, and leaves no trace in the log."""
    disk = FailingDisk()
    async with running(settings(tmp_path), disk, publishers=publishers) as writer:
        await publish(writer, 0, b"before")
        disk.write_error = code
        with pytest.raises(expected):
            await publish(writer, 0, b"refused")
        disk.write_error = 0
        await publish(writer, 0, b"after")
    assert payloads(read_all(tmp_path)) == [b"before", b"after"]


@EITHER_THREAD
@asynchronous
async def test_a_limit_on_the_size_of_files_is_like_a_full_disk(tmp_path: Path, publishers: int) -> None:
    """A segment that cannot be made, or written to its end, is a refusal; all is well once the limit is lifted."""
    with longest_file(MiB):
        async with running(settings(tmp_path), publishers=publishers) as writer:
            assert "File too large" in str(writer.refusal())
            assert not await taken_by(writer)
    async with running(settings(tmp_path), publishers=publishers) as writer:
        first, second = os.urandom(900_000), os.urandom(900_000)
        await publish(writer, 0, first)
        with longest_file(MiB + MiB // 2), pytest.raises(OutOfResources):
            await publish(writer, 0, os.urandom(900_000))
        await publish(writer, 0, second)
        assert not writer.failed.done()
    assert payloads(read_all(tmp_path)) == [first, second]


@asynchronous
async def test_offsets_start_behind_every_committed_one(tmp_path: Path) -> None:
    """A spool that lost its end, or all of its files, never gives a settled position to a new record."""
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    committed = 11 * MiB + 8
    for partition in (0, 1):
        write_checkpoints(
            checkpoints,
            [Checkpoint(partition=partition, low_water_mark=5 * MiB, done={b"u" * 16: committed})],
        )
    async with running(settings(tmp_path)) as writer:
        await publish(writer, 0, b"new")
    entries = read_all(tmp_path, start=5 * MiB)
    assert payloads(entries) == [b"new"]
    assert min(entry.position for entry in entries) >= committed


@asynchronous
async def test_the_number_of_partitions_changes_only_while_the_log_is_settled(tmp_path: Path) -> None:
    """With an instance waiting another number is refused; once it is settled it is taken."""
    async with running(settings(tmp_path, partitions=2)) as writer:
        payload = [memoryview(b"data")]
        header = encode_header(Kind.INSTANCE, UploadId.of(1, 1, 1), 1, INSTANCE, payload)
        await writer.publish(1, header, payload)
    refused = SpoolWriter(settings(tmp_path, partitions=3))
    with pytest.raises(SpoolMismatch, match="partitions"):
        await refused.start()
    await refused.close()
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    write_checkpoints(
        checkpoints,
        [Checkpoint(partition=1, done={bytes(UploadId.of(1, 1, 1)): read_all(tmp_path)[-1].next_position})],
    )
    async with running(settings(tmp_path, partitions=3)) as writer:
        await publish(writer, 2, b"third")
    assert payloads(read_all(tmp_path, [2])) == [b"third"]


@asynchronous
async def test_a_fence_that_waits_keeps_the_number_of_partitions(tmp_path: Path) -> None:
    """What it asks about must be found in its own partition; once it is passed the number may change."""
    fence_id = UploadId.of(1, 1, 1)
    record = memoryview(fence_record(fence_id, ["1.2.3"]))
    async with running(settings(tmp_path, partitions=2)) as writer:
        await writer.publish(1, bytes(record[:32]), [record[32:]])
    refused = SpoolWriter(settings(tmp_path, partitions=3))
    with pytest.raises(SpoolMismatch, match="partitions"):
        await refused.start()
    await refused.close()
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    progress = Progress(Checkpoint(partition=1))
    progress.hold(fence_id, 0)
    progress.passed(fence_id, read_all(tmp_path)[-1].next_position)
    write_checkpoints(checkpoints, [progress.checkpoint()])
    async with running(settings(tmp_path, partitions=3)):
        pass


@asynchronous
async def test_a_cancelled_waiter_disturbs_nobody(tmp_path: Path) -> None:
    """A future that its waiter gave up is passed over."""
    async with running(settings(tmp_path)) as writer:
        first = writer.publish(0, part(1, []), [])
        first.cancel()
        await publish(writer, 0, b"second")
    assert b"second" in payloads(read_all(tmp_path))


@asynchronous
async def test_no_descriptor_reaches_a_child(tmp_path: Path) -> None:
    """Locks and segments are close-on-exec: a codec that outlives its worker must not hold them."""
    before = descriptors()
    async with running(settings(tmp_path)) as writer:
        await publish(writer, 0, b"data")
        reader = SpoolReader(tmp_path / "spool", {0: 0, 1: 0})
        reader.read()
        for descriptor in descriptors() - before:
            with contextlib.suppress(OSError):  # the listing's own
                assert not os.get_inheritable(descriptor)
        reader.close()


@asynchronous
async def test_an_upload_that_lost_a_record_is_not_sealed(tmp_path: Path) -> None:
    """An END that was on its way when a part of it was refused is refused too; its ABORT is welcome."""
    config = settings(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    async with running(config) as writer:
        await publish(writer, 0, bytes(900_000), sequence=1)
        while await taken_by(writer):
            pass
        with pytest.raises(OutOfResources):
            await publish(writer, 0, bytes(900_000), sequence=1)
        end = read_all(tmp_path)[-1].next_position
        for partition in (0, 1):
            write_checkpoints(checkpoints, [Checkpoint(partition=partition, low_water_mark=end)])
        await until(lambda: writer.refusal() is None)
        with pytest.raises(LogUnavailable):
            await publish(writer, 0, b"the rest", sequence=1)
        await writer.publish(0, encode_header(Kind.ABORT, UploadId.of(1, 1, 1)), ())
        await publish(writer, 0, b"another", sequence=2)
    assert payloads(read_all(tmp_path, start=end)) == [b"another"]


@asynchronous
async def test_the_order_holds_when_the_number_of_publishers_changes(tmp_path: Path) -> None:
    """Records of one upload stay in order whoever's thread writes them, over many segments, all acknowledged."""
    sizes = random.Random(1)
    async with running(settings(tmp_path, maximum_size=64 * MiB)) as writer:
        futures = []
        for number in range(60):
            writer.publishers = sizes.choice((1, 2))
            payload = [memoryview(number.to_bytes(4, "big") * sizes.randrange(1, 200_000))]
            futures.append(writer.publish(0, part(5, payload), payload))
            if sizes.random() < 0.5:
                await futures[-1]
        await asyncio.gather(*futures)
    found = [int.from_bytes(payload[:4], "big") for payload in payloads(read_all(tmp_path))]
    assert found == list(range(60))


@asynchronous
async def test_a_defect_in_the_logs_thread_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for that thread is answered, nobody waits for it later, and the process is told to end."""
    async with running(settings(tmp_path)) as writer:
        writer.publishers = 2  # so that the thread writes
        await publish(writer, 0, b"before")

        def defect(*_: object) -> int:
            raise ZeroDivisionError

        monkeypatch.setattr(writer._log, "append", defect)
        with pytest.raises(LogUnavailable):
            await publish(writer, 0, b"meanwhile")
        assert "ended" in str(await writer.failed)
        with pytest.raises(LogUnavailable):
            await publish(writer, 0, b"after")
    assert payloads(read_all(tmp_path))[-1] == b"before"


@asynchronous
async def test_a_wake_up_that_cannot_be_sent_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor for a reader's FIFO the log goes on; the reader looks by itself now and then."""
    reader_end = []

    def exhausted(path: Path, flags: int, *mode: int) -> int:
        if path.parent.name == "wake":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return really(path, flags, *mode)

    async with running(settings(tmp_path)) as writer:
        reader_end.append(SpoolReader(tmp_path / "spool", {0: 0, 1: 0}))
        really = os.open
        monkeypatch.setattr(os, "open", exhausted)
        for publishers in (1, 2):
            writer.publishers = publishers
            await asyncio.sleep(0.05)  # after which it looks for readers again
            await publish(writer, 0, b"data")
        monkeypatch.undo()
        reader_end.pop().close()
    assert payloads(read_all(tmp_path))[-2:] == [b"data"] * 2


@EITHER_THREAD
@asynchronous
async def test_a_defect_in_making_a_record_ends_the_log_too(tmp_path: Path, publishers: int) -> None:
    """Whoever's thread meets it: the waiter is told, nothing more is taken, and the process is told to end."""

    def defective() -> bytes:
        raise ZeroDivisionError

    async with running(settings(tmp_path), publishers=publishers) as writer:
        await publish(writer, 0, b"sound")
        with pytest.raises(LogUnavailable):
            await writer.publish(0, defective, ())
        assert "ended" in str(await writer.failed)
        with pytest.raises(LogUnavailable):
            await publish(writer, 0, b"too late")


class UnaskableDisk(OsDisk):
    """A disk that at times cannot even say how much space it has."""

    error: Exception | None = None

    def space(self, path: Path) -> Space:
        if self.error is not None:
            raise self.error
        return super().space(path)


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "I/O error"), ZeroDivisionError()], ids=["disk", "defect"]
)
@asynchronous
async def test_no_failure_of_the_supply_leaves_the_writer_waiting(tmp_path: Path, error: Exception) -> None:
    """Whatever keeps segments from being made refuses instances while it lasts, and passes without a restart."""
    disk = UnaskableDisk()
    async with running(settings(tmp_path, maximum_size=64 * MiB), disk) as writer:
        disk.error = error
        await until(lambda: writer.refusal() is not None)
        while await taken_by(writer):
            pass
        disk.error = None
        await until(lambda: writer.refusal() is None)
        await publish(writer, 0, b"again")
