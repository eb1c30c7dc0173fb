"""What the spool holds complete, read while its writer goes on and after it is gone."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, encode_header
from ingest.contract.settings import LogSettings, Settings
from ingest.contract.spool import Layout
from ingest.log import SpoolWriter
from workers.cli.backlog import Completed, completed_uploads

MiB = 1024 * 1024
PAYLOAD = memoryview(bytes(100_000))


def settings(data: Path) -> Settings:
    return Settings(
        data=data, log=LogSettings(partitions=2, segment_size=2 * MiB, maximum_size=64 * MiB, reserve=0)
    )


def upload_id(number: int) -> UploadId:
    return UploadId.of(1, 1, number)


def instance(number: int) -> Instance:
    return Instance(
        "1.2", f"1.3.{number}", "1.2.840.10008.1.2", 1000 + number, bytes(16), "A", "B", "::1", number
    )


async def publish(
    writer: SpoolWriter, partition: int, kind: Kind, number: int, payload: Sequence[memoryview]
) -> None:
    metadata = instance(number) if kind in {Kind.INSTANCE, Kind.END} else None
    await writer.publish(partition, encode_header(kind, upload_id(number), 1, metadata, payload), payload)


def found(data: Path, marks: dict[int, int] | None = None) -> list[Completed]:
    return list(completed_uploads(data / "spool", marks or {}))


def test_only_complete_uploads_count(tmp_path: Path) -> None:
    """An INSTANCE and an END complete an upload; parts without an end, and aborted ones, are nothing yet."""

    async def scenario() -> None:
        writer = SpoolWriter(settings(tmp_path))
        await writer.start()
        assert found(tmp_path) == []
        await publish(writer, 0, Kind.INSTANCE, 1, [PAYLOAD])
        await publish(writer, 1, Kind.PART, 2, [PAYLOAD])
        await publish(writer, 1, Kind.PART, 3, [PAYLOAD])
        await publish(writer, 1, Kind.END, 2, [])
        await publish(writer, 1, Kind.ABORT, 3, [])
        while_it_runs = found(tmp_path)
        await writer.close()
        assert [(one.partition, one.upload_id, one.size, one.received_at) for one in while_it_runs] == [
            (0, upload_id(1), 1001, 1),
            (1, upload_id(2), 1002, 2),
        ]
        assert found(tmp_path) == while_it_runs

    asyncio.run(scenario())


def test_marks_are_each_partitions_own(tmp_path: Path) -> None:
    """What is below its partition's mark is left out, though the other partition is further behind."""

    async def scenario() -> None:
        writer = SpoolWriter(settings(tmp_path))
        await writer.start()
        for number in range(60):  # several segments
            await publish(writer, number % 2, Kind.INSTANCE, number, [PAYLOAD])
        await writer.close()

    asyncio.run(scenario())
    everything = found(tmp_path)
    assert len(everything) == 60
    mark = everything[30].end_position
    left = found(tmp_path, {0: mark, 1: 0})
    assert left == [one for one in everything if one.partition == 1 or one.end_position > mark]
    assert found(tmp_path, {0: everything[-1].end_position, 1: everything[-1].end_position}) == []


def test_lost_segment_hides_only_itself(tmp_path: Path) -> None:
    """A segment that is recycled, or lost, while it is read takes nothing else out of the count."""

    async def scenario() -> None:
        writer = SpoolWriter(settings(tmp_path))
        await writer.start()
        for number in range(60):
            await publish(writer, 0, Kind.INSTANCE, number, [PAYLOAD])
        await writer.close()

    asyncio.run(scenario())
    everything = found(tmp_path)
    layout = Layout(tmp_path / "spool")
    layout.segment(1).unlink()
    kept = found(tmp_path)
    assert kept == [one for one in everything if (one.end_position - 1) // (2 * MiB) != 1]
    assert 0 < len(kept) < len(everything)


@pytest.mark.parametrize(
    ("checkpoint", "settled"),
    [
        (Checkpoint(partition=0, low_water_mark=100), True),
        (Checkpoint(partition=0, low_water_mark=99), False),
        (Checkpoint(partition=0, low_water_mark=0, done={b"u" * 16: 100}), True),
    ],
)
def test_settled_by_mark_or_done_set(checkpoint: Checkpoint, settled: bool) -> None:
    """A checkpoint counts what ends at or below its mark, and what is in its done set."""
    assert Completed(0, b"u" * 16, 100, 10, 0).settled_in(checkpoint) is settled
