"""The commitment log of one machine, for reading: by the receiver that writes it, or beside it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from ingest.contract.records import CorruptRecord, Record, decode
from ingest.contract.spool import (
    Damage,
    Disk,
    Frame,
    FrameWalk,
    GroupWalk,
    Layout,
    Meta,
    SegmentFiles,
    SegmentGone,
    SpoolMissing,
    read_meta,
)
from ingest.contract.spool.format import FRAME_AND_HEAD, decode_frame
from ingest.contract.spool.slots import read_slot
from ingest.log.commitment_log import Entry, Location, entry_of

logger = structlog.get_logger(__name__)

_READ: Final = 8 << 20  # bytes of records in one go


def commitment_layout(data: Path) -> Layout:
    """Where it is in a data folder."""
    return Layout(data / "commitments")


def mark_path(layout: Layout) -> Path:
    """Slot: the position below which nothing is needed any more."""
    return layout.folder / "low-water-mark"


def read_mark(disk: Disk, layout: Layout) -> int:
    """The low-water mark; 0 where none was ever set."""
    return (read_slot(disk, mark_path(layout)) or (0,))[0]


class SegmentReader:
    """Entries from the low-water mark on, up to a durable end, and records again by their location. One thread at a time."""

    def __init__(self, disk: Disk, layout: Layout, meta: Meta, durable_end: int) -> None:
        self._files = SegmentFiles(disk, layout, meta)
        self._start = read_mark(disk, layout)
        self._walk = GroupWalk(self._files, self._start, durable_end)

    @property
    def position(self) -> int:
        """All below was read."""
        return self._walk.position

    def read(self, durable_end: int) -> list[Entry]:
        """What comes next; fewer than there are where they are many.

        Raises:
            OSError: the disk's.
        """
        entries: list[Entry] = []
        size = 0
        while size < _READ and (group := self._walk.next(durable_end)) is not None:
            for frame in FrameWalk(self._files, group):
                if isinstance(frame, Damage):
                    logger.error("the commitment log is damaged", position=frame.position, end=frame.end)
                elif frame.position >= self._start:
                    entries += self._entries(frame)
                    size += frame.size
        return entries

    def read_all(self, durable_end: int) -> Iterator[Entry]:
        """All that comes next, up to there.

        Raises:
            OSError: the disk's.
        """
        while self.position < durable_end:
            yield from self.read(durable_end)

    def fetch(self, location: Location) -> Record:
        """A record once more.

        Raises:
            CorruptRecord: it is damaged, or has left the log.
            OSError: the disk's.
        """
        try:
            head = self._files.read(location.position, FRAME_AND_HEAD)
            frame = decode_frame(head, self._files.meta.log_id, location.position)
            if frame is None:
                raise CorruptRecord("no record is there")
            return decode(self._files.read(frame.record_position, frame.size))
        except SegmentGone as error:
            raise CorruptRecord(f"{error} has left the log") from None

    def close(self) -> None:
        """Close all files."""
        self._files.close()

    def _entries(self, frame: Frame) -> Iterator[Entry]:
        try:
            record = decode(self._files.read(frame.record_position, frame.size))
            yield entry_of(Location(frame.partition, frame.position), frame.size, record)
        except CorruptRecord as error:
            logger.warning(
                "a record of the commitment log is damaged", position=frame.position, error=str(error)
            )


class Beside(NamedTuple):
    """A reader beside whoever writes, or where nobody does, and the durable end as it was when it was opened."""

    reader: SegmentReader
    durable_end: int


def opened_beside(disk: Disk, data: Path) -> Beside | None:
    """For the log of a data folder; None where nothing was ever asked for.

    Raises:
        SpoolMismatch: another release made it.
        OSError: the disk's.
    """
    layout = commitment_layout(data)
    try:
        meta = read_meta(disk, layout)
    except SpoolMissing:
        return None
    counter = disk.counter(layout.durable_end)
    end = counter.load()
    counter.close()
    return Beside(SegmentReader(disk, layout, meta, end), end)
