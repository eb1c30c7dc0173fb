"""What every log of one machine promises, from `publish` to the worker's reader; Kafka's is in ``test_kafka_writer.py``."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import MiB, Settings
from ingest.contract.spool import SpoolError, SpoolMissing
from ingest.errors import LogUnavailable
from ingest.log import Log, log_of
from tests.support.asynchronous import asynchronous
from workers.log.choice import LocalReader, local_reader
from workers.log.entries import LogRecord

FROM_THE_START = {0: 0, 1: 0}


@pytest.fixture(params=["spool"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    log = {
        "kind": request.param,
        "partitions": 2,
        "segment_size": 2 * MiB,
        "maximum_size": 8 * MiB,
        "reserve": 0,
    }
    return Settings.model_validate({"data": tmp_path, "log": log})


@contextlib.asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Log]:
    log = log_of(settings)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


def published(log: Log, partition: int, sequence: int, data: bytes) -> asyncio.Future[None]:
    payload = [memoryview(data)]
    header = encode_header(Kind.PART, UploadId.of(1, 1, sequence), 0, None, payload)
    return log.publish(partition, header, payload)


def all_of(reader: LocalReader) -> list[LogRecord]:
    """Whole records, to the end."""
    found: list[LogRecord] = []
    while entries := reader.read():
        found += [entry for entry in entries if isinstance(entry, LogRecord)]
        assert len(found) >= len(entries)
    return found


def read(settings: Settings, starts: Mapping[int, int] = FROM_THE_START) -> list[LogRecord]:
    with contextlib.closing(local_reader(settings, starts)) as reader:
        return all_of(reader)


def test_before_a_receiver_there_is_no_log(settings: Settings) -> None:
    """Which a worker waits for, and does not take for an empty one."""
    with pytest.raises(SpoolMissing):
        local_reader(settings, FROM_THE_START)


@asynchronous
async def test_what_is_acknowledged_is_read_in_its_order(settings: Settings) -> None:
    """In each partition, at positions that grow, whole, behind the EPOCH of the start."""
    async with started(settings) as log:
        await asyncio.gather(
            *(published(log, number % 2, number, bytes([number]) * number) for number in range(40))
        )
    for partition in (0, 1):
        first, *rest = [found for found in read(settings) if found.partition == partition]
        assert (first.record.kind, first.record.upload_id) == (
            Kind.EPOCH,
            UploadId.of(log.receiver_id, log.epoch, 0),
        )
        assert [bytes(found.record.payload) for found in rest] == [
            bytes([number]) * number for number in range(partition, 40, 2)
        ]
        for before, after in zip([first, *rest], rest, strict=False):
            assert before.position < before.next_position <= after.position


@asynchronous
async def test_reading_goes_on_where_a_checkpoint_says(settings: Settings) -> None:
    """Of each partition from its own position; of no other partition."""
    async with started(settings) as log:
        for number in range(6):
            await published(log, number % 2, number, b"%d" % number)
        found = read(settings)
        half = next(one for one in found if bytes(one.record.payload) == b"2")
        behind = [
            (one.position, bytes(one.record.payload)) for one in found if bytes(one.record.payload) == b"4"
        ]
        again = read(settings, {0: half.next_position})
        assert [(one.position, bytes(one.record.payload)) for one in again] == behind


@asynchronous
async def test_headers_are_made_once_in_the_order_of_the_calls(settings: Settings) -> None:
    """The seal of an instance is: each makes it go on. Afterwards the buffers are the publisher's again."""
    made: list[int] = []
    buffers = [bytearray(b"%04d" % number) for number in range(20)]

    def header(number: int) -> bytes:
        made.append(number)
        return encode_header(Kind.PART, UploadId.of(1, 1, 1), number, None, [memoryview(buffers[number])])

    async with started(settings) as log:
        await asyncio.gather(
            *(
                log.publish(0, functools.partial(header, number), [memoryview(buffers[number])])
                for number in range(20)
            )
        )
        for buffer in buffers:
            buffer[:] = b"----"
    assert made == list(range(20))
    parts = [one for one in read(settings) if one.record.kind is Kind.PART]
    assert [(one.record.index, bytes(one.record.payload)) for one in parts] == [
        (number, b"%04d" % number) for number in range(20)
    ]


@asynchronous
async def test_a_start_is_told_from_the_one_before(settings: Settings) -> None:
    """The receiver stays who it is, its epoch grows, and each partition tells; what was there stays where it was."""
    async with started(settings) as one:
        await published(one, 0, 1, b"first")
    before = read(settings)
    async with started(settings) as other:
        await published(other, 0, 2, b"second")
    assert other.receiver_id == one.receiver_id
    assert other.epoch > one.epoch
    found = read(settings)
    assert found[: len(before)] == before
    assert [(entry.partition, entry.record.kind) for entry in found[len(before) :]] == [
        (0, Kind.EPOCH), (1, Kind.EPOCH), (0, Kind.PART),
    ]  # fmt: skip


@asynchronous
async def test_a_reader_follows_the_writer(settings: Settings) -> None:
    """What is acknowledged can be read at once, is not waited for, and moves the end of its partition."""
    async with started(settings) as log:
        with contextlib.closing(local_reader(settings, {0: 0})) as reader:
            all_of(reader)
            end = await reader.end_of(0)
            assert reader.read_to(0) == end
            await reader.wait(0)  # nothing is there, so it only returns
            await published(log, 0, 1, b"more")
            await reader.wait(60)  # something is there, so nothing is waited for
            assert await reader.end_of(0) > end
            assert [bytes(entry.record.payload) for entry in all_of(reader)] == [b"more"]
            assert reader.read_to(0) == await reader.end_of(0)


@asynchronous
async def test_a_partition_has_one_reader(settings: Settings) -> None:
    """Two would each place an instance, and neither would know what the other counted."""
    async with started(settings):
        with contextlib.closing(local_reader(settings, {0: 0})):
            with pytest.raises(SpoolError):
                local_reader(settings, FROM_THE_START)
            local_reader(settings, {1: 0}).close()
        local_reader(settings, FROM_THE_START).close()


@asynchronous
async def test_what_is_closed_takes_nothing(settings: Settings) -> None:
    """It says why, and whoever publishes all the same learns it."""
    async with started(settings) as log:
        assert log.refusal() is None
    assert log.refusal()
    with pytest.raises(LogUnavailable):
        await published(log, 0, 1, b"late")
