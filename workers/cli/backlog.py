"""The uploads that the spool holds complete: read-only, beside running processes or with all of them down."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import HEADER, MAX_METADATA, CorruptRecord, Kind, Record, instance_of
from ingest.contract.spool import (
    Frame,
    FrameWalk,
    GroupWalk,
    Layout,
    OsDisk,
    SegmentFiles,
    SegmentGone,
    SpoolMissing,
    read_meta,
)
from workers.log.commit_metadata import OffsetCheckpoint

SEALING: Final = frozenset({Kind.INSTANCE, Kind.END})  # an upload is complete with one of these


class Completed(NamedTuple):
    """A completely received upload, as its last record tells."""

    partition: int
    upload_id: bytes
    end_position: int  # in the log, behind its last record
    size: int  # bytes of the data set
    received_at: int  # nanoseconds since 1970-01-01 UTC

    def settled_in(self, checkpoint: Checkpoint) -> bool:
        """Whether this checkpoint of its partition counts it."""
        return (
            self.end_position <= checkpoint.low_water_mark
            or self.upload_id in checkpoint.done
            or (isinstance(checkpoint, OffsetCheckpoint) and checkpoint.counts(self.end_position - 1))
        )


def completed_uploads(spool: Path, marks: Mapping[int, int]) -> Iterator[Completed]:
    """What was completely received between each partition's mark and the durable end.

    A segment that is recycled meanwhile is stepped over: all in it is settled by then, and counted by the
    checkpoints that are read afterwards. ``marks`` without a partition means: from the log's start.

    Raises:
        SpoolMismatch: another release made the spool.
        OSError: the disk's.
    """
    disk, layout = OsDisk(), Layout(spool)
    try:
        meta = read_meta(disk, layout)
        with closing(disk.counter(layout.durable_end)) as counter:
            limit = counter.load()
    except (SpoolMissing, FileNotFoundError):
        return
    start = min(marks.get(partition, 0) for partition in range(meta.partitions))
    with closing(SegmentFiles(disk, layout, meta)) as files:
        walk = GroupWalk(files, start, limit)
        while (group := walk.next(limit)) is not None:
            for frame in FrameWalk(files, group):
                if isinstance(frame, Frame) and frame.position >= marks.get(frame.partition, 0):
                    yield from _completed(files, frame)


def _completed(files: SegmentFiles, frame: Frame) -> Iterator[Completed]:
    """The upload that this record completes, if it completes one; its payload is not read."""
    try:
        head = files.read(frame.record_position, HEADER.size)
        _, kind, length, _, _, upload_id, index = HEADER.unpack(head)
        if kind not in SEALING:
            return
        metadata = memoryview(files.read(frame.record_position + HEADER.size, min(length, MAX_METADATA)))
        instance = instance_of(Record(kind, UploadId(upload_id), index, metadata, memoryview(b"")))
    except (SegmentGone, CorruptRecord):
        return  # recycled under our eyes; or damage, which the worker will find and account for
    yield Completed(frame.partition, upload_id, frame.end, instance.size, instance.received_at)
