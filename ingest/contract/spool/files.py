"""The segments of a log as one stream of bytes, for reading."""

import contextlib
import errno
from collections.abc import Iterator
from typing import Final

from ingest.contract.spool.disk import Disk
from ingest.contract.spool.format import GROUP, GROUP_MAGIC, PAGE, GroupHeader, decode_group_header
from ingest.contract.spool.layout import Layout, Meta

_OPEN_FILES: Final = 4
_SCAN: Final = 256 * PAGE
_WITNESSES: Final = 4  # segments that are asked whether the disk answers


class SegmentGone(Exception):  # noqa: N818 - named for the fact
    """A segment is not there: recycled, or lost."""


class SegmentFiles:
    """Reads the stream by position. Keeps a few files open; not for two threads at once."""

    def __init__(self, disk: Disk, layout: Layout, meta: Meta) -> None:
        self._disk = disk
        self._layout = layout
        self.meta = meta
        self.segment_size = meta.segment_size
        self._open: dict[int, int] = {}  # segment number -> descriptor, oldest first
        self.retired: dict[int, int] = {}
        # Take what the disk cannot read for zeros, as long as it can read anything else of the log.
        self.salvage = False
        self._numbers: list[int] = []
        self.refresh()

    def refresh(self) -> None:
        """Look again which segments are there."""
        # A segment moves from one folder to the other only while no reader can be past it; in this order it
        # is seen at least once.
        numbers = self._layout.segment_numbers(self._disk)
        self.retired = self._layout.retired_ends(self._disk)
        # One whose first sync failed holds nothing; the log went on behind it.
        holding = {number for number, end in self.retired.items() if end > self.start(number)}
        self._numbers = sorted((numbers - self.retired.keys()) | holding)

    @property
    def numbers(self) -> list[int]:
        """The segments that were there at the last `refresh`, in order; the last ones may be unused."""
        return self._numbers

    def after(self, number: int) -> int | None:
        """The first segment behind ``number`` that is there."""
        return next((other for other in self._numbers if other > number), None)

    def start(self, number: int) -> int:
        """The position at which a segment starts."""
        return number * self.segment_size

    def number(self, position: int) -> int:
        """The segment that holds ``position``."""
        return position // self.segment_size

    def read(self, position: int, length: int) -> bytes:
        """Bytes of the stream, all of one segment; fewer only where its file ends early.

        Raises:
            SegmentGone: the segment is not there.
            OSError: the disk's.
        """
        number, offset = divmod(position, self.segment_size)
        fd = self._descriptor(number)
        length = min(length, self.segment_size - offset)
        try:
            return self._disk.pread(fd, length, offset)
        except OSError as error:
            if error.errno != errno.EIO or not self.salvage or not self._answers(number):
                raise
            fd = self._descriptor(number)  # others were opened meanwhile
            salvaged = b"".join(
                self._page(fd, at, min(PAGE - at % PAGE, offset + length - at))
                for at in _pieces(offset, offset + length)
            )
            # It may have gone, or come, in between.
            if not self._answers(number):
                raise
        return salvaged

    def header(self, position: int) -> GroupHeader | None:
        """The header of the group at ``position``, None when none is there.

        Raises:
            OSError: the disk's.
        """
        try:
            return self._checked(self.read(position, GROUP.size), position)
        except SegmentGone:
            return None

    def find_header(self, start: int, end: int) -> GroupHeader | None:
        """The first group that starts on a page of ``start`` to ``end``, all of one segment.

        Raises:
            OSError: the disk's.
        """
        while start < end:
            try:
                block = self.read(start, min(_SCAN, end - start))
            except SegmentGone:
                return None
            if not block:
                return None
            for offset in range(0, len(block), PAGE):
                if block.startswith(GROUP_MAGIC, offset):
                    header = self._checked(block[offset : offset + GROUP.size], start + offset)
                    if header is not None:
                        return header
            start += _SCAN
        return None

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._disk.close(self._open.popitem()[1])

    def forget(self, number: int) -> None:
        """Close a segment's file: what its number stands for has changed."""
        if number in self._open:
            self._disk.close(self._open.pop(number))

    def _answers(self, near: int) -> bool:
        """Whether the disk reads any page of the log, ``near`` being the segment in question.

        What was never written says nothing: a file system answers zeros for it without asking the disk.
        """
        nearest = sorted(self._numbers, key=lambda number: abs(number - near))
        return any(map(self._is_read, nearest[:_WITNESSES]))

    def _is_read(self, number: int) -> bool:
        last = self.segment_size // PAGE - 1
        pages = {0, last, *(1 << power for power in range(last.bit_length()))}
        for page in sorted(pages):
            with contextlib.suppress(OSError, SegmentGone):
                if any(self._disk.pread_anew(self._descriptor(number), PAGE, page * PAGE)):
                    return True
        return False

    def _page(self, fd: int, offset: int, length: int) -> bytes:
        try:
            return self._disk.pread(fd, length, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return bytes(length)

    def _checked(self, data: bytes, position: int) -> GroupHeader | None:
        header = decode_group_header(data, self.meta.log_id, position)
        if header is None or header.length < GROUP.size:
            return None
        return header if self.number(position) == self.number(header.end - 1) else None

    def _descriptor(self, number: int) -> int:
        fd = self._open.get(number)
        if fd is not None:
            return fd
        fd = self._open_segment(number)
        if len(self._open) >= _OPEN_FILES:
            self._disk.close(self._open.pop(next(iter(self._open))))
        self._open[number] = fd
        return fd

    def _open_segment(self, number: int) -> int:
        for _ in range(2):  # the writer's start may have moved it since the last look
            try:
                if number in self.retired:
                    return self._disk.open(self._layout.retired_segment(number, self.retired[number]))
                return self._disk.open(self._layout.segment(number))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
            self.refresh()
        raise SegmentGone(f"segment {number}")


def _pieces(start: int, end: int) -> Iterator[int]:
    """``start`` and every page boundary behind it, below ``end``."""
    yield start
    yield from range((start // PAGE + 1) * PAGE, end, PAGE)
