"""The uploads that the spool holds complete: read-only, beside running processes or with all of them down."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import (
    HEADER,
    MAX_METADATA,
    CorruptRecord,
    Instance,
    Kind,
    Record,
    instance_of,
)
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
from workers.dataset.payload import MemoryPayload
from workers.dataset.subject import HEAD, Subject, read_subject
from workers.log.commit_metadata import OffsetCheckpoint

SEALING: Final = frozenset({Kind.INSTANCE, Kind.END})  # an upload is complete with one of these


class Completed(NamedTuple):
    """A completely received upload, as its last record tells."""

    partition: int
    upload_id: bytes
    end_position: int  # in the log, behind its last record
    size: int  # bytes of the data set
    received_at: int  # nanoseconds since 1970-01-01 UTC
    instance: Instance | None = None
    subject: Subject | None = None  # where it was asked for, as far as its first elements tell

    def settled_in(self, checkpoint: Checkpoint) -> bool:
        """Whether this checkpoint of its partition counts it."""
        return (
            self.end_position <= checkpoint.low_water_mark
            or self.upload_id in checkpoint.done
            or (isinstance(checkpoint, OffsetCheckpoint) and checkpoint.counts(self.end_position - 1))
        )


class Heads:
    """First bytes of the data sets of uploads, kept from their first part until they are complete."""

    def __init__(self) -> None:
        self._parts: dict[bytes, bytes] = {}

    def add(self, kind: int, upload_id: bytes, index: int, payload: bytes) -> None:
        """A PART's payload, or the beginning of it; only the first is kept."""
        if kind == Kind.PART and index == 0:
            self._parts[upload_id] = payload[:HEAD]

    def subject(self, upload_id: bytes, instance: Instance, payload: bytes) -> Subject:
        """Of a complete upload; ``payload``: of an INSTANCE record, empty of an END."""
        head = self._parts.pop(upload_id, payload)
        return read_subject(MemoryPayload([head[:HEAD]]), instance.transfer_syntax_uid)


def completed_uploads(
    spool: Path, marks: Mapping[int, int], heads: Heads | None = None
) -> Iterator[Completed]:
    """What was completely received between each partition's mark and the durable end.

    A segment that is recycled meanwhile is stepped over: all in it is settled by then, and counted by the
    checkpoints that are read afterwards. ``marks`` without a partition means: from the log's start. With ``heads``
    the first elements of each are read, too.

    Raises:
        SpoolMismatch: another release made the spool.
        OSError: the disk's; also where the log is there, and its end is not.
    """
    disk, layout = OsDisk(), Layout(spool)
    try:
        meta = read_meta(disk, layout)
        with closing(disk.counter(layout.durable_end)) as counter:
            limit = counter.load()
    except SpoolMissing:
        return
    start = min(marks.get(partition, 0) for partition in range(meta.partitions))
    with closing(SegmentFiles(disk, layout, meta)) as files:
        walk = GroupWalk(files, start, limit)
        while (group := walk.next(limit)) is not None:
            for frame in FrameWalk(files, group):
                if isinstance(frame, Frame) and frame.position >= marks.get(frame.partition, 0):
                    yield from _completed(files, frame, heads)


def _completed(files: SegmentFiles, frame: Frame, heads: Heads | None) -> Iterator[Completed]:
    """The upload that this record completes, if it completes one; no more of its payload is read than is asked for."""
    try:
        head = files.read(frame.record_position, HEADER.size)
        _, kind, length, _, _, upload_id, index = HEADER.unpack(head)
        if kind not in SEALING and heads is None:
            return
        at = frame.record_position + HEADER.size
        wanted = min(length, MAX_METADATA) + (0 if heads is None else HEAD)
        data = files.read(at, min(wanted, frame.size - HEADER.size))
        payload = data[length:]
        if heads is not None:
            heads.add(kind, upload_id, index, payload)
        if kind not in SEALING:
            return
        record = Record(kind, UploadId(upload_id), index, memoryview(data)[:length], memoryview(b""))
        instance = instance_of(record)
    except (SegmentGone, CorruptRecord):
        return  # recycled under our eyes; or damage, which the worker will find and account for
    subject = None if heads is None else heads.subject(upload_id, instance, payload)
    yield Completed(
        frame.partition, upload_id, frame.end, instance.size, instance.received_at, instance, subject
    )
