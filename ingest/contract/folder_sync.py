"""A file's name is durable once its folder is synced (fsync(2)), and not with the file."""

import os
from pathlib import Path


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: the file system's.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
