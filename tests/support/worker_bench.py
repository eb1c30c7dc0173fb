"""A worker of one partition, in a folder of its own, with the log and the pipeline that a test gives it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import xxhash

from ingest.contract.checkpoint import Checkpoint, checkpoint_path, read_checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, Outcome, Place, decode, encode_header
from ingest.contract.settings import WorkerSettings
from tests.support.fences import any_fences
from workers.log.checkpoint import Announced, CheckpointFolder, Progress
from workers.log.entries import Entry, LogRecord
from workers.log.in_hand import InHand
from workers.log.scratch import ScratchFolder
from workers.log.upload import Upload
from workers.partition import OwnedPartition
from workers.pipeline import Tries
from workers.worker import Worker


class ListLog:
    """Instances of one partition; position n is record n."""

    def __init__(self, start: int = 0) -> None:
        self.records: list[bytes] = []
        self.at = start
        self.more = asyncio.Event()

    def add(self, uid: str, data: bytes = b"data", parts: int = 0) -> None:
        upload_id = UploadId.of(1, 1, len(self.records))
        instance = Instance(
            "1.2", uid, "1.2.840.10008.1.2", len(data) * max(parts, 1), xxhash.xxh3_128_digest(data * max(parts, 1)),
            "A", "B", "::1", 1, False, f"ab-{len(self.records)}",
        )  # fmt: skip
        for index in range(parts):
            self.records.append(encode_header(Kind.PART, upload_id, index, None, [memoryview(data)]) + data)
        if parts:
            self.records.append(encode_header(Kind.END, upload_id, parts, instance))
        else:
            self.records.append(
                encode_header(Kind.INSTANCE, upload_id, 1, instance, [memoryview(data)]) + data
            )
        self.more.set()

    def read_to(self, partition: int) -> int:
        return self.at

    def read(self) -> Sequence[Entry]:
        entries = [
            LogRecord(at, at + 1, 0, decode(self.records[at]))
            for at in range(self.at, min(self.at + 8, len(self.records)))
        ]
        self.at += len(entries)
        return entries

    async def end_of(self, partition: int) -> int:
        return len(self.records)

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - as the real one's
        self.more.clear()
        if self.at == len(self.records):
            await asyncio.wait_for(self.more.wait(), 60)


class ListOutcomes:
    """An outcome log that nothing can go wrong with."""

    def __init__(self) -> None:
        self.announced: list[Announced] = []

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        self.announced += outcomes
        return len(self.announced)

    def counted(self, position: int) -> None:
        pass


class Placer:
    """Stores everything, after what ``before`` says of an upload."""

    def __init__(self, before: Callable[[Upload, Tries], None] = lambda upload, tries: None) -> None:
        self.before = before
        self.placed: list[Upload] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.working = 0

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        self.working += 1
        try:
            await self.gate.wait()
            self.before(upload, tries)
        finally:
            self.working -= 1
        self.placed.append(upload)
        return stored(upload)


def stored(upload: Upload) -> Outcome:
    return Outcome(
        upload.instance.sop_instance_uid, Place.STORED, "", "", "default", "key", 1, upload.end_position
    )


class Bench:
    """A worker of partition 0 in a folder, which may be started again."""

    def __init__(self, folder: Path, log: ListLog, placer: Placer, **settings: float) -> None:
        self.folder = folder
        self.log = log
        self.placer = placer
        self.outcomes = ListOutcomes()
        self.settings = WorkerSettings.model_validate({"checkpoint_interval": 0.01, **settings})
        (folder / "checkpoints").mkdir(exist_ok=True)

    def worker(self) -> Worker:
        checkpoint = read_checkpoint(checkpoint_path(self.folder / "checkpoints", 0)) or Checkpoint(
            partition=0
        )
        self.log.at = checkpoint.low_water_mark
        self.progress = Progress(checkpoint)
        self.in_hand = InHand(self.folder / "marks")
        return Worker(
            self.settings,
            [OwnedPartition(self.progress, self.in_hand, self.outcomes)],
            reader=self.log,
            checkpoints=CheckpointFolder(self.folder / "checkpoints"),
            scratch=ScratchFolder(self.folder / "scratch", [0], 1 << 30),
            pipeline=self.placer,
            fences=any_fences(),
        )

    def written(self) -> Checkpoint:
        checkpoint = read_checkpoint(checkpoint_path(self.folder / "checkpoints", 0))
        assert checkpoint is not None
        return checkpoint
