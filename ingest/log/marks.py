"""How far the workers have come, read from their checkpoints."""

from pathlib import Path

import structlog

from ingest.contract.checkpoint import Checkpoint, CorruptCheckpoint, checkpoint_path, read_checkpoint
from ingest.contract.folder_sync import sync_folder

logger = structlog.get_logger(__name__)


def read_marks(folder: Path, partitions: int) -> list[Checkpoint]:
    """The checkpoint of each partition, durable; one that is not there or unreadable has settled nothing.

    Raises:
        OSError: the file system's.
    """
    found = []
    for partition in range(partitions):
        try:
            checkpoint = read_checkpoint(checkpoint_path(folder, partition))
        except CorruptCheckpoint as error:
            logger.warning("a checkpoint cannot be read; the log keeps everything", error=str(error))
            checkpoint = None
        found.append(checkpoint or Checkpoint(partition=partition))
    if folder.is_dir():
        # A checkpoint's name may not be durable yet when it is first seen, and a segment given up for it
        # would be missed when a power cut brings the one before back.
        sync_folder(folder)
    return found


def committed_end(checkpoints: list[Checkpoint]) -> int:
    """The highest position that any of them has settled."""
    ends = [checkpoint.low_water_mark for checkpoint in checkpoints]
    ends += [end for checkpoint in checkpoints for end in checkpoint.done.values()]
    return max(ends, default=0)
