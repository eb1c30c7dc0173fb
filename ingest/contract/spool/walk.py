"""From group to group and record to record, below a given end; damage is handed out like everything else."""

from collections.abc import Iterator
from typing import NamedTuple

from ingest.contract.spool.files import SegmentFiles, SegmentGone
from ingest.contract.spool.format import (
    FRAME_ALIGNMENT,
    FRAME_AND_HEAD,
    FRAME_MAGIC,
    GROUP,
    PAGE,
    Frame,
    GroupHeader,
    decode_frame,
)


class Damage(NamedTuple):
    """A stretch of the stream that should hold groups or records and does not, wholly or in part."""

    position: int
    end: int


class GroupWalk:
    """Steps over the groups below a limit that only grows. ``position`` is where the next one is sought."""

    def __init__(self, files: SegmentFiles, position: int, limit: int) -> None:
        """Start at a group's position, or anywhere in a segment, and then from that segment's first group."""
        self._files = files
        self._ends: tuple[int, int | None] = (-1, None)  # the segment last looked at, and where it ends
        self.position = self._first(position, limit)

    def next(self, limit: int) -> GroupHeader | Damage | None:
        """The next group, or what is damaged before it; None at ``limit``, which must be a durable end.

        Raises:
            OSError: the disk's; the same step can be tried again.
        """
        while self.position < limit:
            number = self._files.number(self.position)
            end = self._end(number, limit)
            crossing = end is not None and self.position >= end
            found = self._cross(number, limit) if crossing else self._group(number, end)
            if found is not None:
                return found
        return None

    def _first(self, position: int, limit: int) -> int:
        number = self._files.number(position)
        if number not in self._files.numbers:
            after = self._files.after(number)
            if after is None or self._files.start(after) >= limit:
                return position
            return self._files.start(after)
        return self._files.start(number)

    def _end(self, number: int, limit: int) -> int | None:
        """Where the groups of a segment end; None when the group that would tell is damaged."""
        if self._files.number(limit - 1) == number:
            return limit
        if self._ends[0] == number:
            return self._ends[1]
        self._files.refresh()
        stop = self._files.start(number + 1)
        end: int | None = stop
        if number in self._files.retired:
            end = self._files.retired[number]
        elif number in self._files.numbers:
            after = self._files.after(number)
            header = None if after is None else self._files.header(self._files.start(after))
            end = None if header is None or header.previous > stop else header.previous
        self._ends = (number, end)
        return end

    def _group(self, number: int, end: int | None) -> GroupHeader | Damage | None:
        """The group at the position; else the damage up to the next group of this segment."""
        position = self.position
        stop = self._files.start(number + 1) if end is None else end
        header = self._files.header(position)
        if header is not None and header.end <= stop:
            self.position = header.end
            return header
        found = self._files.find_header(position + PAGE, stop)
        if found is not None and found.end <= stop:
            self.position = found.position
            return Damage(position, found.position)
        self.position = stop
        self._ends = (number, stop)
        return Damage(position, stop)

    def _cross(self, number: int, limit: int) -> Damage | None:
        """Go to the next segment; whatever lies between is lost if the log did not leave it out itself."""
        missing = self._files.start(number + 1)
        after = self._files.after(number)
        if after is None or self._files.start(after) >= limit:
            self.position = limit
            return Damage(min(missing, limit), limit) if missing < limit else None
        start = self._files.start(after)
        header = self._files.header(start)
        previous = start if header is None else header.previous
        self.position = start
        return Damage(missing, previous) if previous > missing else None


class FrameWalk(Iterator[Frame | Damage]):
    """The records of a group, or those that can still be made out in a damaged stretch.

    After an OSError the same step can be tried again.
    """

    def __init__(self, files: SegmentFiles, found: GroupHeader | Damage) -> None:
        self._files = files
        self._position = found.position + GROUP.size
        self._end = found.position + found.length if isinstance(found, GroupHeader) else found.end

    def __next__(self) -> Frame | Damage:
        """The next record's frame, or what is damaged before it.

        Raises:
            OSError: the disk's.
        """
        position = self._position
        if position >= self._end:
            raise StopIteration
        frame = self._frame(position)
        if frame is not None and frame.record_position + frame.size <= self._end:
            self._position = frame.end
            return frame
        self._position = self._find(position + FRAME_ALIGNMENT)
        return Damage(position, self._position)

    def _frame(self, position: int) -> Frame | None:
        try:
            data = self._files.read(position, FRAME_AND_HEAD)
        except SegmentGone:
            return None
        return decode_frame(data, self._files.meta.log_id, position)

    def _find(self, position: int) -> int:
        """Where the next frame is; the end when there is none."""
        try:
            block = self._files.read(position, self._end - position)
        except SegmentGone:
            return self._end
        at = block.find(FRAME_MAGIC)
        while at >= 0:
            if at % FRAME_ALIGNMENT == 0:
                frame = decode_frame(block[at : at + FRAME_AND_HEAD], self._files.meta.log_id, position + at)
                if frame is not None:
                    return position + at
            at = block.find(FRAME_MAGIC, at + 1)
        return self._end
