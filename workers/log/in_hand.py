"""Which uploads a worker is working on: a mark that outlives the process, so that a killer is known by name.

One file a partition, of `SLOTS` upload ids of 16 bytes, empty ones zero, mapped into memory: a mark costs no
system call and no sync. A killed process leaves its marks in the page cache. A power cut may take them,
which is right: it says nothing about the uploads in hand.
"""

import mmap
import os
from pathlib import Path
from typing import Final, Protocol

from ingest.contract.identifiers import UploadId

SLOTS: Final = 64
_EMPTY: Final = bytes(UploadId.SIZE)


class Marks(Protocol):
    """What is known of the uploads that a worker works on, should it not survive them."""

    @property
    def left(self) -> frozenset[UploadId]:
        """Those that the process before could not clear."""
        ...

    def clear_left(self) -> None:
        """What was left is known elsewhere now; to be called before the first mark."""
        ...

    def is_suspect(self, upload_id: UploadId) -> bool:
        """Whether work on this upload must have no company, so that its end would have one suspect."""
        ...

    def mark(self, upload_id: UploadId) -> bool:
        """Work on this upload begins; True when the mark is durable only with the next checkpoint."""
        ...

    def clear(self, upload_id: UploadId) -> None:
        """Work on it has ended, one way or the other."""
        ...


class InHand:
    """The marks of one partition; ``left`` are those that the process before could not clear."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            OSError: the file system's.
        """
        size = SLOTS * UploadId.SIZE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Allocated, not only sized: a mark on a full disk would end the process with SIGBUS.
            os.posix_fallocate(descriptor, 0, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        slots = [bytes(self._map[at : at + UploadId.SIZE]) for at in range(0, size, UploadId.SIZE)]
        self.left = frozenset(UploadId(slot) for slot in slots if slot != _EMPTY)
        self._free = list(range(0, size, UploadId.SIZE))
        self._taken: dict[UploadId, int] = {}

    def clear_left(self) -> None:
        """What was left is known elsewhere now; to be called before the first mark."""
        self._map[:] = bytes(len(self._map))

    def is_suspect(self, upload_id: UploadId) -> bool:
        """See `Marks`."""
        return upload_id in self.left

    def mark(self, upload_id: UploadId) -> bool:
        """See `Marks`; at most `SLOTS` at once."""
        at = self._taken[upload_id] = self._free.pop()
        self._map[at : at + UploadId.SIZE] = upload_id
        return False

    def clear(self, upload_id: UploadId) -> None:
        """Work on it has ended, one way or the other."""
        at = self._taken.pop(upload_id)
        self._map[at : at + UploadId.SIZE] = _EMPTY
        self._free.append(at)

    def close(self) -> None:
        """Close the file; the marks stay in it."""
        self._map.close()
