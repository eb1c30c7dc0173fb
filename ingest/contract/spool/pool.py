"""The segments of a log: made, filled, and used again once every partition is past them."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ingest.contract.spool.disk import Disk
from ingest.contract.spool.errors import SpoolFull
from ingest.contract.spool.layout import Layout

# No space: of the file system, of a quota, or beyond the largest file.
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MiB: Final = 1 << 20
_RESERVE_SHARE: Final = 10  # at most a tenth of the file system is held back
_SMALLEST: Final = 2 * _MiB  # bytes of a segment: two records of the largest size
# At least, where segments can be made so small: the one being filled is then little of all.
_WANTED_SEGMENTS: Final = 16


class PoolLimits(NamedTuple):
    """What the segments of one log may take."""

    segment_size: int  # bytes; a log that is there keeps its own
    maximum_size: int  # bytes, all segments together
    reserve: int  # bytes of the file system that segments leave free


def effective_reserve(reserve: int, total: int) -> int:
    """How many bytes of a file system of ``total`` are left free where ``reserve`` are asked for."""
    return min(reserve, total // _RESERVE_SHARE)


class SegmentPool:
    """Gives the writer its next segment; not for two threads at once.

    ``low_water_mark`` tells below which position everything is settled, durably.
    """

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        limits: PoolLimits,
        low_water_mark: Callable[[], int],
        first_unused: int,
    ) -> None:
        """Segments from the number ``first_unused`` on hold nothing."""
        self._disk = disk
        self._layout = layout
        self.limits = limits
        self._low_water_mark = low_water_mark
        there = layout.segment_numbers(disk)
        self._used = {number for number in there if number < first_unused}
        self._spare = sorted(there - self._used)
        self._retired = layout.retired_ends(disk)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return (len(self._used) + len(self._spare) + len(self._retired)) * self.limits.segment_size

    def take(self, number: int) -> int:
        """A descriptor of the segment ``number``, whose file is durable under that name and full of old bytes.

        Raises:
            SpoolFull: there is none, and none may be made.
            OSError: the disk's.
        """
        if number not in self._used:  # else it was taken, and could not be opened
            self._have(number)
            self._used.add(number)
        return self._disk.open(self._layout.segment(number), write=True)

    def prepare(self, size: int) -> None:
        """Have segments of so many bytes together, so that they can be written whatever becomes of the disk.

        Raises:
            SpoolFull: they may not be made; then none is.
            OSError: the disk's.
        """
        if size > self.limits.maximum_size:
            raise SpoolFull(
                f"{size // _MiB} MiB of segments are more than {self.limits.maximum_size // _MiB}"
            )
        space = self._disk.space(self._layout.folder)
        if size - self.size > space.available - effective_reserve(self.limits.reserve, space.total):
            raise SpoolFull("further segments would take the free space kept for the store")
        while self.size < size:
            number = max([*self._spare, *self._used], default=-1) + 1
            self._make(self._layout.segment(number))
            self._spare.append(number)

    def may_grow(self) -> int:
        """Bytes of segments that could be made beside those there are."""
        space = self._disk.space(self._layout.folder)
        free = space.available - effective_reserve(self.limits.reserve, space.total)
        return max(0, min(free, self.limits.maximum_size - self.size))

    def renumber(self, first: int) -> None:
        """See that no spare segment has a number below ``first``: readers take each that they meet for the log's."""
        for number in [number for number in self._spare if number < first]:
            self._spare.remove(number)
            free = max([first - 1, *self._spare, *self._used]) + 1
            self._rename(self._layout.segment(number), self._layout.segment(free))
            self._spare.append(free)
        self._spare.sort()

    def release(self, number: int, fd: int) -> None:
        """A segment that was taken is not needed after all."""
        self._disk.close(fd)
        self._used.discard(number)
        self._spare.append(number)

    def lacks_space(self) -> str | None:
        """Why the file system must not be filled further, None while there is space."""
        space = self._disk.space(self._layout.folder)
        reserve = effective_reserve(self.limits.reserve, space.total)
        if space.available >= reserve:
            return None
        return f"free space {space.available // _MiB} MiB is below the reserve of {reserve // _MiB} MiB"

    def shrink(self) -> None:
        """Give space back: remove segments that hold nothing any more."""
        while len(self._spare) > 1:
            self._disk.unlink(self._layout.segment(self._spare[-1]))
            self._spare.pop()
        while len(self._used) > 2 and (settled := self._recyclable()) is not None:  # noqa: PLR2004 - current and next
            self._disk.unlink(self._layout.segment(settled))
            self._used.discard(settled)
        self.drop_retired()

    def drop_retired(self) -> None:
        """Remove retired segments that nobody needs any more; they are never written again."""
        if not self._retired:
            return
        mark = self._low_water_mark()
        for number, end in list(self._retired.items()):
            if end <= mark:
                self._disk.unlink(self._layout.retired_segment(number, end))
                del self._retired[number]

    def _have(self, number: int) -> None:
        """See that a segment has this number, durably."""
        path = self._layout.segment(number)
        if number in self._spare:
            self._spare.remove(number)
        elif self._spare:
            self._rename(self._layout.segment(self._spare.pop()), path)
        elif (recycled := self._recyclable()) is not None:
            self._disk.rename(self._layout.segment(recycled), path)
            # Before the sync: should that fail, no file has the old number any more.
            self._used.discard(recycled)
            self._disk.sync_folder(self._layout.segments)
        else:
            self._make(path)

    def _recyclable(self) -> int | None:
        """The oldest segment, if everything in it is settled."""
        oldest = min(self._used, default=None)
        if oldest is None or oldest == max(self._used):
            return None
        return oldest if (oldest + 1) * self.limits.segment_size <= self._low_water_mark() else None

    def _make(self, path: Path) -> None:
        size = self.limits.segment_size
        self.drop_retired()
        if self.size + size > self.limits.maximum_size:
            raise SpoolFull(f"all {self.size // _MiB} MiB of segments are in use")
        space = self._disk.space(self._layout.folder)
        if space.available - size < effective_reserve(self.limits.reserve, space.total):
            raise SpoolFull("a further segment would take the free space kept for the store")
        temporary = self._layout.segments / "new"
        fd = self._disk.open(temporary, write=True, create=True)
        try:
            # Blocks, but no bytes: writing a segment that is not used yet to the full first would halve what a
            # burst finds of the disk (300 against 570 MB/s). Once it has been filled, overwriting is faster still.
            self._disk.allocate(fd, size)
            self._disk.fdatasync(fd)
        except OSError as error:
            self._disk.unlink(temporary)
            if error.errno in NO_SPACE:
                raise SpoolFull(f"no space for a further segment: {error.strerror}") from error
            raise
        finally:
            self._disk.close(fd)
        self._rename(temporary, path)

    def _rename(self, source: Path, target: Path) -> None:
        """The name must be durable before the first group is: a group without its name is lost."""
        self._disk.rename(source, target)
        self._disk.sync_folder(self._layout.segments)


def chosen_segment_size(disk: Disk, folder: Path, wanted: int, maximum_size: int, reserve: int) -> int:
    """The segment size of a log that is being made: smaller than wanted where few would fit.

    A segment comes free only as a whole, so with too few of them the log is full while mostly settled.
    """
    space = disk.space(folder)
    usable = min(maximum_size, space.total - effective_reserve(reserve, space.total))
    size = wanted
    while size > _SMALLEST and size * _WANTED_SEGMENTS > usable:
        size //= 2
    return min(wanted, max(_SMALLEST, size // _SMALLEST * _SMALLEST))
