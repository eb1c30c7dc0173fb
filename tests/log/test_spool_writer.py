"""The writer and the reader on a real file system."""

import asyncio
import contextlib
import os
import random
import threading
import time
from pathlib import Path

import pytest

from ingest.contract.checkpoint import Checkpoint, write_checkpoints
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Kind, encode_header
from ingest.contract.spool import Layout, OsDisk, SpoolLocked, SpoolMismatch, write_slot
from ingest.errors import LogUnavailable
from ingest.log import SpoolWriter
from tests.support.asynchronous import asynchronous
from tests.support.fences import fence_record
from tests.support.spool_log import (
    EITHER_THREAD,
    INSTANCE,
    MiB,
    part,
    payloads,
    publish,
    read_all,
    running,
    settings,
)
from workers.log.checkpoint import Progress
from workers.log.entries import LogRecord
from workers.log.spool_reader import SpoolReader


def descriptors() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


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
