"""Objects of a folder read through one after the other, each once, many in one change of thread.

Nothing is synced on the way: two syncs an object wait for the disk twice as often as there are objects, be they long
durable or not. `FolderReader.sync` once, after the last of them, covers all that was read.
"""

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Iterator
from typing import Final, TypeVar

from workers.storage.layout import Key
from workers.storage.object_store import Look

T = TypeVar("T")

_BLOCK: Final = 1024 * 1024  # bytes; large enough that hashing dominates
_RUN: Final = 32 * 1024 * 1024  # bytes, after which a thread is given back


class FolderReader:
    """Reads for one store. Its methods block."""

    def __init__(self, folder: int) -> None:
        """``folder``: the store's, open, which stays the caller's."""
        self._folder = folder
        self._device = os.fstat(folder).st_dev
        self._syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        self._buffers: list[bytearray] = []  # one for each thread that ever read at the same time

    def run(self, keys: deque[Key], look: Look) -> None:
        """See `ObjectStore.read_back`."""
        buffer = taken(self._buffers) or bytearray(_BLOCK)
        read = 0
        try:
            while read < _RUN and (key := taken(keys)) is not None:
                read += self._read(key, look, memoryview(buffer))
        finally:
            self._buffers.append(buffer)

    def sync(self) -> None:
        """Make durable all that is there now: syncfs(2).

        Raises:
            OSError: the file system's.
        """
        if self._syncfs(self._folder):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _read(self, key: Key, look: Look, buffer: memoryview) -> int:
        """Show one object, if there is one that can be read; its size."""
        with contextlib.suppress(OSError):
            descriptor = os.open(str(key), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
            try:
                status = os.fstat(descriptor)
                if status.st_dev == self._device:  # else `sync` would not be its
                    look(key, status.st_size, _blocks(descriptor, buffer))
                return status.st_size
            finally:
                os.close(descriptor)
        return 0


def taken(left: list[T] | deque[T]) -> T | None:
    """One of what several threads take from; None where nothing is left."""
    try:
        return left.pop()
    except IndexError:
        return None


def _blocks(descriptor: int, buffer: memoryview) -> Iterator[memoryview]:
    """All bytes in order, in one buffer."""
    position = 0
    while count := os.preadv(descriptor, [buffer], position):
        yield buffer[:count]
        position += count
