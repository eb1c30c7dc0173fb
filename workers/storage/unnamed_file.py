"""Files that are whole and synced before they have a name, so that nothing incomplete ever has one.

A kill leaves nothing of a file without a name (O_TMPFILE). Where the file system has no such files, one in ``ROOT/tmp``
stands in, locked by its writer; what a killed writer left there is swept.
"""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from typing import Final

from workers.storage.folders import Folders, try_lock
from workers.storage.object_store import Pieces

TEMPORARY: Final = "tmp"
_MODE: Final = 0o640  # images are for the service and its group
_WRITE: Final = os.O_WRONLY | os.O_CLOEXEC
# open(2): what a file system or kernel without O_TMPFILE answers.
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
# What is gone, and what is not ours to remove: by who only looks, or on a disk that is mounted read-only.
_LEFT_THERE: Final = frozenset({errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM})


class UnnamedFiles:
    """Of one store. Its methods block, and raise `OSError`."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._nameless = True  # O_TMPFILE works here

    @contextlib.contextmanager
    def written(self, folder: int, pieces: Pieces) -> Iterator[str]:
        """A file of ``folder``, an open one, with these bytes, synced; the path to link(2) it by, while in the context."""
        descriptor = self._open_nameless(folder)
        if descriptor is None:
            with self._written_named(pieces) as path:
                yield path
            return
        try:
            _write(descriptor, pieces)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def open_temporary(self) -> int:
        """A descriptor of ``ROOT/tmp``."""
        return self._folders.open(TEMPORARY)

    def sweep(self) -> int:
        """Remove what killed writers left in ``ROOT/tmp``; the number of files."""
        temporary = self._folders.open_existing(TEMPORARY)
        if temporary is None:
            return 0
        try:
            names = os.listdir(temporary)  # noqa: PTH208 - of a descriptor
            return sum(_remove_if_unlocked(name, temporary) for name in names)
        finally:
            os.close(temporary)

    def _open_nameless(self, folder: int) -> int | None:
        if self._nameless:
            try:
                return os.open(".", os.O_TMPFILE | _WRITE, _MODE, dir_fd=folder)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
                self._nameless = False
        return None

    @contextlib.contextmanager
    def _written_named(self, pieces: Pieces) -> Iterator[str]:
        temporary = self.open_temporary()
        name = secrets.token_hex(16)
        try:
            descriptor = os.open(name, os.O_CREAT | os.O_EXCL | _WRITE, _MODE, dir_fd=temporary)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # while it is held, no sweep takes the file
                _write(descriptor, pieces)
                yield f"/proc/self/fd/{temporary}/{name}"
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=temporary)
                os.close(descriptor)
        finally:
            os.close(temporary)


def _write(descriptor: int, pieces: Pieces) -> None:
    """Write all and sync."""
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _remove_if_unlocked(name: str, folder: int) -> bool:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
        try:
            if not try_lock(descriptor):
                return False
            os.unlink(name, dir_fd=folder)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _LEFT_THERE:
            raise
        return False
    return True
