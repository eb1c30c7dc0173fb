"""Files that this process has seen become durable, bytes and name, so that what is found again is not synced again.

A file is told by its device, as folders of shards may be mounts of their own, its inode and the time of its last status
change (inode(7)), which every link, rename and write moves: what another has made or moved since is not taken for it. Linux
before 6.13 tells no two changes within one tick of its clock apart, 10 ms at most. To be misled one would have to be made here,
removed or moved, and made anew or moved back within that time by others, the last of whom dies before its sync: each of these
is several syncs under a lock.
"""

import os
import threading
from typing import Final

REMEMBERED: Final = 16_384  # some 200 bytes each; a study that is sent again has fewer instances


class DurableFiles:
    """Of one store; any thread may ask."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        """``limit``: how many are remembered; what is forgotten costs a sync."""
        self._limit = limit
        self._changed_at: dict[tuple[int, int], int] = {}  # ns, by device and inode; the longest known first
        self._lock = threading.Lock()

    def __contains__(self, status: os.stat_result) -> bool:
        """Whether the file is as it was when it became durable."""
        return self._changed_at.get(_file(status)) == status.st_ctime_ns

    def add(self, status: os.stat_result) -> None:
        """File and name have been synced since the file was found to have this status."""
        with self._lock:
            self._changed_at.pop(_file(status), None)
            self._changed_at[_file(status)] = status.st_ctime_ns
            if len(self._changed_at) > self._limit:
                del self._changed_at[next(iter(self._changed_at))]


def _file(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
