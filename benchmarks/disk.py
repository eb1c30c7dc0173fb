"""What the disk allows: the same bytes, overwritten in segments that were written before, and synced by groups.

One thread, one `pwritev` and one `fdatasync` a group: the spool without network, protocol and threads.
"""

import os
import time
from pathlib import Path
from typing import Final

SEGMENT_SIZE: Final = 32 * 1024 * 1024  # the spool's
MOST_SEGMENTS: Final = 16  # so that no write finds its pages in the last sync's hands
_PAGE: Final = 4096  # a commit starts on a page of its own, so that none is written twice
_GROUP_LIMIT: Final = 16 * 1024 * 1024  # bytes of one commit


class Disk:
    """Recycled segments below ``folder``."""

    def __init__(self, folder: Path, segments: int = MOST_SEGMENTS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [
            os.open(folder / f"segment-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            for number in range(segments)
        ]
        block = os.urandom(1024 * 1024)
        for file in self._files:
            for start in range(0, SEGMENT_SIZE, len(block)):
                os.pwrite(file, block, start)
            os.fsync(file)
        self._at = 0

    def close(self) -> None:
        """Close the segments; the folder is the caller's to delete."""
        for file in self._files:
            os.close(file)

    def overwrite(self, instance: bytes, instances: int, group: int) -> float:
        """Write ``instances`` times ``instance``, ``group`` a commit; the seconds it took.

        An instance larger than a commit's limit is cut; commits cross to the next segment as the spool's do.
        """
        group = max(1, min(group, _GROUP_LIMIT // len(instance) or 1))
        commits, rest = divmod(instances, group)
        pieces = [
            memoryview(instance)[start : start + _GROUP_LIMIT]
            for start in range(0, len(instance), _GROUP_LIMIT)
        ]
        begun = time.monotonic()
        for count in [group] * commits + ([rest] if rest else []):
            if len(pieces) > 1:
                for piece in pieces:
                    self._at = self._commit([piece], self._at)
            else:
                self._at = self._commit(pieces * count, self._at)
        return time.monotonic() - begun

    def _commit(self, views: list[memoryview], at: int) -> int:
        size = sum(len(view) for view in views)
        segment, offset = divmod(-(-at // _PAGE) * _PAGE, SEGMENT_SIZE)
        if offset + size > SEGMENT_SIZE:
            segment, offset = segment + 1, 0
        file = self._files[segment % len(self._files)]
        written = os.pwritev(file, views, offset)
        assert written == size
        os.fdatasync(file)
        return segment * SEGMENT_SIZE + offset + size
