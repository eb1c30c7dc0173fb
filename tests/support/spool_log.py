"""The spool in a folder of its own: written to by a test, and read back as workers read it."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, encode_header
from ingest.contract.settings import LogSettings, Settings
from ingest.contract.spool import OsDisk
from ingest.errors import OutOfResources
from ingest.log import SpoolWriter
from workers.log.entries import Entry, LogRecord
from workers.log.spool_reader import SpoolReader

MiB = 1 << 20
INSTANCE = Instance("1.2", "1.2.3", "1.2.840.10008.1.2", 4, b"\0" * 16, "A", "B", "::1", 1)
# One publisher: groups are written in its own thread; more: in the writer's.
EITHER_THREAD = pytest.mark.parametrize("publishers", [1, 2])
_OWN_UPLOAD = itertools.count(1000)


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
