"""One group on its way to the disk: pieces of it while its records still come, its header last."""

from ingest.contract.spool.disk import IOV_MAX, Buffer, Disk, cut, write_all
from ingest.contract.spool.format import (
    FRAME,
    GROUP,
    PAGE,
    Appended,
    GroupHeader,
    encode_group_header,
    encode_record,
    frame_ceiling,
    framed_size,
    page_ceiling,
)
from ingest.contract.spool.layout import Meta


class GroupWriter:
    """Writes one group at ``position`` of the stream, in the segment open at ``fd``.

    Each page is written once, and the first page, with the header, after all others: until then nothing of the group
    can be found, and a page that the disk has begun to write is not changed again.
    """

    def __init__(self, disk: Disk, fd: int, meta: Meta, position: int, *, room: int, piece: int) -> None:
        """It takes ``room`` bytes at most; each ``piece`` bytes, at least two pages, are written while records come."""
        self._disk = disk
        self._fd = fd
        self._log_id = meta.log_id
        self._position = position
        self._offset = position % meta.segment_size
        self._room = room
        self._piece = piece
        self._buffers: list[Buffer] = [bytes(GROUP.size)]  # of the group's end, not written
        self._written = 0  # bytes before them, whole pages
        self._first_page: list[Buffer] = []  # kept back of those
        self._length = GROUP.size
        self._records = 0
        self._iov_left = IOV_MAX - 2

    def fits(self, record: Appended) -> bool:
        """Whether the record has room; the first one may have more pieces than one write takes."""
        within = self._records == 0 or self._iov_left >= 1 + len(record.payload)
        return within and frame_ceiling(self._length) + framed_size(record.size) <= self._room

    def add(self, record: Appended) -> None:
        """Append a record that fits.

        Raises:
            OSError: the disk's; the group cannot be completed.
        """
        start = frame_ceiling(self._length)
        self._buffers += encode_record(self._log_id, self._position + start, start - self._length, record)
        self._length = start + FRAME.size + record.size
        self._records += 1
        self._iov_left -= 1 + len(record.payload)
        if self._length - self._written >= self._piece:
            self._write_piece()

    def finish(self, header: GroupHeader) -> int:
        """Write what is left of the group, and how many bytes it takes; ``header`` gives previous, synced, written_at.

        Raises:
            OSError: the disk's.
        """
        size = page_ceiling(self._length)
        self._buffers.append(bytes(size - self._length))
        header = header._replace(records=self._records, position=self._position, length=self._length)
        first = self._first_page or self._buffers
        first[0] = encode_group_header(self._log_id, header)
        write_all(self._disk, self._fd, self._buffers, self._offset + self._written)
        if self._first_page:
            write_all(self._disk, self._fd, self._first_page, self._offset)
        return size

    def _write_piece(self) -> None:
        """Write all whole pages but the first, and have the disk begin with them."""
        if not self._written:
            self._first_page = cut(self._buffers, PAGE)
            self._written = PAGE
        start = self._written
        size = (self._length - start) // PAGE * PAGE
        write_all(self._disk, self._fd, cut(self._buffers, size), self._offset + start)
        self._written += size
        self._disk.start_writeback(self._fd, size, self._offset + start)
