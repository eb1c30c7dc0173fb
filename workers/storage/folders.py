"""The folders of a store in a file system: each durable before anything is put in it."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from workers.errors import Unavailable
from workers.storage.layout import SHARDS

RETRY_AFTER: Final = 2.0  # seconds; space comes back by an administrator's hand, other trouble often sooner
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # how open(2) opens one
_MODE: Final = 0o750  # images are for the service and its group
_TRIES: Final = 3  # a folder that is removed while it is used is made again


class Folders:
    """Below one root, by paths relative to it. Its methods block, and raise `OSError`."""

    def __init__(self, root: Path) -> None:
        """``root``: an existing folder.

        It is held open: should a file system be mounted over it or vanish, nothing goes to the wrong place.

        Raises:
            OSError: it is not there.
        """
        # A descriptor; once closed none, so that no other file is meant.
        self.root: int = os.open(root, FOLDER)
        self._made: set[str] = set()  # known to be there, durably

    def close(self) -> None:
        """Give the root back; may be called again."""
        if self.root >= 0:
            os.close(self.root)
            self.root = -1

    def open(self, path: str) -> int:
        """A descriptor of a folder, which is made where it is missing.

        Raises:
            Unavailable: it is removed again and again.
        """
        for _ in range(_TRIES):
            self._make(path)
            try:
                return os.open(path, FOLDER, dir_fd=self.root)
            except FileNotFoundError:
                self._made.clear()
        raise Unavailable("a folder of the store is removed while it is used", RETRY_AFTER)

    def open_existing(self, path: str) -> int | None:
        """A descriptor of a folder; None where there is none."""
        try:
            return os.open(path, FOLDER, dir_fd=self.root)
        except FileNotFoundError:
            return None

    def sync(self, path: str) -> None:
        """Make durable which names a folder has."""
        folder = os.open(path, FOLDER, dir_fd=self.root)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _make(self, path: str) -> None:
        """Make a folder and those above it, each synced into its parent.

        One that is there may have been made by a process that died before its sync, so each is synced once.
        """
        if path in self._made:
            return
        parent, _, _ = path.rpartition("/")
        if parent:
            self._make(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _MODE, dir_fd=self.root)
        self.sync(parent or ".")
        if path.count("/") < 2 and len(self._made) <= 8 * SHARDS:  # noqa: PLR2004 - lanes' UID folders come and go
            self._made.add(path)


def try_lock(descriptor: int) -> bool:
    """Take flock(2), which the kernel gives back if we die; False where another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
