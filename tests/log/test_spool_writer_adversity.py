"""The writer where the disk is full, small, slow or broken, or a defect is ours."""

import asyncio
import errno
import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.contract.checkpoint import Checkpoint, write_checkpoints
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import LogSettings, Settings
from ingest.contract.spool import Layout, OsDisk, Space
from ingest.errors import LogUnavailable, OutOfResources
from ingest.log import SpoolWriter
from tests.support.asynchronous import asynchronous, until
from tests.support.file_limit import longest_file
from tests.support.spool_log import (
    EITHER_THREAD,
    MiB,
    part,
    payloads,
    publish,
    read_all,
    running,
    segment_sizes,
    settings,
    taken_by,
)
from workers.log.spool_reader import SpoolReader


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
