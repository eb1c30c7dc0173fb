"""The writing end of a log: groups appended, synced, and taken back when the disk refuses them."""

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Final, ParamSpec, TypeVar

from ingest.contract.spool.disk import Disk, write_all
from ingest.contract.spool.errors import SyncFailed, WriteFailed
from ingest.contract.spool.format import GROUP, PAGE, Appended, GroupHeader, framed_size
from ingest.contract.spool.group_writer import GroupWriter
from ingest.contract.spool.layout import Layout, Meta
from ingest.contract.spool.slots import write_slot

# Twice what sixteen senders of 512 KiB wait with; more would gain nothing and let the first record wait longer.
MAX_GROUP: Final = 16 << 20  # bytes
# From so much on the disk is given work before the group is complete: it writes while the records behind are hashed and
# copied. A part of a large instance (960 KiB) is a piece, so that few of them gain as well; what one sender of 512 KiB
# waits with is none: one write and one sync, with no call more.
PIECE: Final = 768 << 10  # bytes

P = ParamSpec("P")
T = TypeVar("T")


class SegmentLog:
    """Appends to one log. One thread at a time; made by `recovery.open_log`.

    ``take_segment`` gives a descriptor of the segment with a number, or raises SpoolFull.
    """

    def __init__(
        self, disk: Disk, layout: Layout, meta: Meta, *, end: int, fd: int | None, number: int,
        take_segment: Callable[[int], int],
    ) -> None:  # fmt: skip
        """Go on at ``end``, in the segment ``number`` open at ``fd``; None when a new segment must follow it."""
        self._disk = disk
        self._layout = layout
        self.meta = meta
        self.take_segment = take_segment
        self.piece = PIECE  # of a group that is being written
        self._number = number
        self._fd = fd
        self._end = end
        self._next = end  # where the next group goes: at the end, or at the start of a segment just taken
        self._durable_end = end
        self._counter = disk.counter(layout.durable_end, write=True)
        self._counter.store(end)
        self._dirty = False  # something was written since the last sync, were it only a group taken back
        self._broken = False

    @property
    def end(self) -> int:
        """The position behind the last group written."""
        return self._end

    @property
    def durable_end(self) -> int:
        """The position behind the last group that is durable."""
        return self._durable_end

    @property
    def segment(self) -> int:
        """The number of the segment being written."""
        return self._number

    def fits(self, record: Appended) -> bool:
        """Whether the segment at hand has room, so that appending never waits for another."""
        return self._fd is not None and GROUP.size + framed_size(record.size) <= self._room()

    def append(self, waiting: Iterable[Appended]) -> int:
        """Write one group of the first records of ``waiting``; returns how many it took, at least one.

        They are written as they come; the one that is taken out of ``waiting`` last may not fit any more.

        Raises:
            SpoolFull: the segment is full and there is no other.
            WriteFailed: the disk refused; the log is as before.
            SyncFailed: the log is broken, see `sync`.
        """
        self._check()
        group: GroupWriter | None = None
        count = 0
        for record in waiting:
            if group is None:
                group = self._group_for(record)
            elif not group.fits(record):
                break
            self._write(group.add, record)
            count += 1
        assert group is not None, "no record waits"
        header = GroupHeader(0, 0, 0, self._end, self._durable_end, time.time_ns())
        self._next += self._write(group.finish, header)
        self._end = self._next
        return count

    def sync(self) -> int:
        """Make everything written durable, publish it to readers, and return the durable end.

        Raises:
            SyncFailed: nothing since the durable end may be acknowledged, and the process must end: after a
                failed sync the kernel calls pages clean that are not on the disk.
        """
        self._check()
        if self._dirty:
            self._sync_segment()
            self._dirty = False
            self._durable_end = self._end
            self._counter.store(self._end)
        return self._durable_end

    def close(self) -> None:
        """Let go of the files; what was not synced may be lost."""
        if self._fd is not None:
            self._disk.close(self._fd)
            self._fd = None
        self._counter.close()
        self._broken = True

    def _check(self) -> None:
        if self._broken:
            raise SyncFailed("an earlier sync failed, or the log is closed")

    def _room(self) -> int:
        """Bytes that a group may take: no more than the rest of the segment."""
        return min((self._number + 1) * self.meta.segment_size - self._next, MAX_GROUP)

    def _group_for(self, record: Appended) -> GroupWriter:
        """A group that has room for the record, in the next segment where this one has none."""
        if not self.fits(record):
            self._roll()
            assert self.fits(record), "a record is smaller than a segment"
        assert self._fd is not None
        return GroupWriter(self._disk, self._fd, self.meta, self._next, room=self._room(), piece=self.piece)

    def _roll(self) -> None:
        """Go to the start of the next segment.

        fdatasync is per file: what an upload has in this segment must be durable before its next record is.
        """
        self.sync()
        fd = self.take_segment(self._number + 1)
        if self._fd is not None:
            self._disk.close(self._fd)
        self._fd = fd
        self._number += 1
        self._next = self._number * self.meta.segment_size

    def _write(self, write: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Have a group write, and take it back when the disk refuses."""
        self._dirty = True
        try:
            return write(*arguments, **named)
        except OSError as error:
            # The next group may start elsewhere, and then this one's header must not stand.
            fd = self._fd
            assert fd is not None
            try:
                write_all(self._disk, fd, [bytes(PAGE)], self._next % self.meta.segment_size)
            except OSError:
                self._fail()
                raise SyncFailed(f"cannot take a group back: {error}") from error
            raise WriteFailed(f"write: {error}") from error

    def _sync_segment(self) -> None:
        assert self._fd is not None
        try:
            self._disk.fdatasync(self._fd)
        except OSError as error:
            self._fail()
            raise SyncFailed(f"fdatasync: {error}") from error

    def _fail(self) -> None:
        """Note, on another file, where recovery must cut; if not even that works, recovery writes again."""
        self._broken = True
        with contextlib.suppress(OSError):
            write_slot(self._disk, self._layout.cut, self._number, self._durable_end)
