"""Scratch files: where an upload too large for memory waits until it is placed.

They are worth nothing after a crash, since the log still has their bytes, so they are never synced, and a
worker empties the folders of its partitions when it starts.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import aiofiles
import aiofiles.os


class ScratchFolder:
    """``DIR/scratch/<partition>/`` of each of a worker's partitions; names are ``<partition>-<upload id>``."""

    def __init__(self, folder: Path, partitions: Iterable[int]) -> None:
        """Make or empty the folders.

        Raises:
            OSError: the file system's.
        """
        self._folder = folder
        for partition in partitions:
            mine = folder / str(partition)
            mine.mkdir(parents=True, exist_ok=True)
            for left in mine.iterdir():
                left.unlink()

    def of(self, partition: int) -> Path:
        """The folder of a partition, for whatever large and passing a stage makes."""
        return self._folder / str(partition)

    def path(self, name: str) -> Path:
        """Where the file ``name`` is."""
        return self._folder / name.partition("-")[0] / name

    async def write(self, name: str, offset: int, pieces: Iterable[bytes]) -> None:
        """Write ``pieces`` one behind the other at ``offset``; after an error the same call may come again.

        Raises:
            OSError: the file system's, as when it is full.
        """
        path = self.path(name)
        # Not kept open: hundreds of uploads may wait, and at a megabyte a write opening costs nothing.
        async with aiofiles.open(path, "r+b" if offset else "wb", buffering=0) as file:
            await file.seek(offset)
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[await file.write(view) :]

    async def remove(self, name: str) -> None:
        """Remove the file, which may not exist."""
        with contextlib.suppress(FileNotFoundError):
            await aiofiles.os.unlink(self.path(name))
