"""A file's name is durable once its folder is synced (fsync(2)), and not with the file."""

import contextlib
import os
from pathlib import Path


def replace_synced(path: Path, data: bytes) -> None:
    """Replace a file atomically, its bytes durable; that it is replaced is so once `sync_folder` returns.

    One process at a time: what a crash leaves is at most one file, ``path`` with ``.new``.

    Raises:
        OSError: the file system's; the file is as before then.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


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
