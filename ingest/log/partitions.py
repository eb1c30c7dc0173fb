"""The number of partitions: written once, and changed only while nothing waits in any of them.

Every copy of one SOP Instance UID must meet in one worker, so a UID may not move to another partition while
an instance of it is still in the first.
"""

from collections.abc import Sequence
from contextlib import closing
from typing import Final

import msgspec

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.records import HEADER, Kind
from ingest.contract.spool import (
    Damage,
    Disk,
    Frame,
    FrameWalk,
    GroupWalk,
    Layout,
    Meta,
    SegmentFiles,
    SpoolMismatch,
    write_meta,
)

# A fence must find the instances that it asks about in its own partition, so it waits as they do.
_WAITING: Final = frozenset({Kind.INSTANCE, Kind.END, Kind.COMMIT_ASKED})


def agree_on_partitions(
    disk: Disk, layout: Layout, meta: Meta, *, wanted: int, end: int, checkpoints: Sequence[Checkpoint]
) -> None:
    """Let the log have ``wanted`` partitions; ``end`` is that of the recovered log, whose lock the caller holds.

    Raises:
        SpoolMismatch: it has another number, and instances wait in it.
        OSError: the disk's.
    """
    if meta.partitions == wanted:
        return
    if not _is_settled(disk, layout, meta, end, checkpoints):
        raise SpoolMismatch(
            f"log.partitions is {wanted}, but {layout.folder} has {meta.partitions} and still holds instances; "
            f"run with {meta.partitions} until status shows no backlog, then change it"
        )
    write_meta(disk, layout, msgspec.structs.replace(meta, partitions=wanted))


def _is_settled(disk: Disk, layout: Layout, meta: Meta, end: int, checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether every complete upload has its place and no fence waits. Parts without END are dead once this start is noted."""
    by_partition = {checkpoint.partition: checkpoint for checkpoint in checkpoints}
    start = min(checkpoint.low_water_mark for checkpoint in checkpoints)
    with closing(SegmentFiles(disk, layout, meta)) as files:
        walk = GroupWalk(files, start, end)
        while (group := walk.next(end)) is not None:
            for frame in FrameWalk(files, group):
                if isinstance(frame, Damage):
                    if frame.end > start:
                        return False
                elif _waits(files, frame, by_partition[frame.partition]):
                    return False
    return True


def _waits(files: SegmentFiles, frame: Frame, checkpoint: Checkpoint) -> bool:
    if frame.position < checkpoint.low_water_mark:
        return False
    _, kind, _, _, _, upload_id, _ = HEADER.unpack(files.read(frame.record_position, HEADER.size))
    return kind in _WAITING and upload_id not in checkpoint.done
