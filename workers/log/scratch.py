"""Scratch files: where an upload too large for memory waits until it is placed.

They are worth nothing after a crash, since the log still has their bytes, so they are never synced, and a
worker empties the folders of its partitions when it starts.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import aiofiles
import aiofiles.os

from ingest.contract.spool import OsDisk, effective_reserve
from workers.dataset.payload import BLOCK, FilePayload


class ScratchPayload:
    """A scratch file as a payload: opened when it is read, so that many may wait without a descriptor each."""

    def __init__(self, name: str, path: Path, size: int) -> None:
        """``size``: of the file, which exists when it is first read."""
        self.name = name
        self.size: int = size
        self._path = path
        self._file: FilePayload | None = None

    def read(self, offset: int, length: int) -> memoryview:
        """See `Payload.read`."""
        return self._opened().read(offset, length)

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """See `Payload.blocks`."""
        return self._opened().blocks(size)

    def close(self) -> None:
        """Give the descriptor back until the next read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> FilePayload:
        if self._file is None:
            self._file = FilePayload(self._path, 0, self.size)
        return self._file


class ScratchFolder:
    """``DIR/scratch/<partition>/`` of each of a worker's partitions; names begin with ``<partition>-``."""

    def __init__(self, folder: Path, partitions: Iterable[int], reserve: int = 0) -> None:
        """Make or empty the folders; ``reserve``: bytes of the file system that `spares` leaves to others.

        Raises:
            OSError: the file system's.
        """
        self._folder = folder
        self._reserve = reserve
        self._disk = OsDisk()
        for partition in partitions:
            self.empty(partition)

    def empty(self, partition: int) -> None:
        """Make the folder of a partition, or remove all that is in it.

        Raises:
            OSError: the file system's.
        """
        mine = self.of(partition)
        mine.mkdir(parents=True, exist_ok=True)
        for left in mine.iterdir():
            left.unlink(missing_ok=True)

    def of(self, partition: int) -> Path:
        """The folder of a partition, for whatever large and passing a stage makes."""
        return self._folder / str(partition)

    def payload(self, name: str, size: int) -> ScratchPayload:
        """The file ``name``, of ``size`` bytes, as a payload."""
        return ScratchPayload(name, self._path(name), size)

    def spares(self, size: int) -> bool:
        """Whether ``size`` bytes can be had that nothing more important will need.

        Raises:
            OSError: the file system's.
        """
        space = self._disk.space(self._folder)
        return space.available - size >= effective_reserve(self._reserve, space.total)

    async def write(self, name: str, offset: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Write ``pieces`` one behind the other at ``offset``; after an error the same call may come again.

        Raises:
            OSError: the file system's, as when it is full.
        """
        path = self._path(name)
        if not offset:
            # A partition may have come while the disk was full.
            await aiofiles.os.makedirs(path.parent, exist_ok=True)
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
            await aiofiles.os.unlink(self._path(name))

    def _path(self, name: str) -> Path:
        return self._folder / name.partition("-")[0] / name
