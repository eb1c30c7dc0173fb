"""The logs of one machine: ``DIR/outcomes/<partition>/`` and ``DIR/commitments/``, read beside those that write them."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from ingest.contract.records import CorruptRecord, NewerRecord, Record, decode
from ingest.contract.spool import (
    Damage,
    Frame,
    FrameWalk,
    GroupWalk,
    Layout,
    Meta,
    OsDisk,
    SegmentFiles,
    SegmentGone,
    SpoolMissing,
    read_meta,
)
from workers.ledger.logs import Batch

_RECORDS: Final = 2000  # of one batch and so of one transaction, or the records of one group


class SpoolLogs:
    """See `Logs`."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._open: dict[Path, _SpoolLog] = {}

    def read(self, positions: Mapping[str, int]) -> Sequence[Batch]:
        """See `Logs.read`."""
        return [
            batch
            for folder in (*self._outcome_folders(), self._data / "commitments")
            if (batch := self._read(folder, positions)) is not None
        ]

    def close(self) -> None:
        """See `Logs.close`."""
        while self._open:
            self._open.popitem()[1].close()

    def _outcome_folders(self) -> list[Path]:
        """Not by glob, to which a folder that may not be read is an empty one."""
        try:
            return sorted(path for path in (self._data / "outcomes").iterdir() if path.name[:1].isdecimal())
        except FileNotFoundError:
            return []  # nothing was ever written

    def _read(self, folder: Path, positions: Mapping[str, int]) -> Batch | None:
        log = self._open.get(folder)
        if log is None:
            try:
                log = self._open[folder] = _SpoolLog(folder, folder.relative_to(self._data))
            except (SpoolMissing, FileNotFoundError):
                return None  # nothing was ever written
        return log.read(positions.get(log.name, 0))


class _SpoolLog:
    """One log; keeps its place, so that reading on costs no search."""

    def __init__(self, folder: Path, name: Path) -> None:
        self._disk, self._layout = OsDisk(), Layout(folder)
        self._meta: Meta = read_meta(self._disk, self._layout)
        # A log that was made anew is another: its positions begin anew, too.
        self.name = f"{name}@{self._meta.log_id:016x}"
        self._files: SegmentFiles | None = None
        self._walk: GroupWalk | None = None

    def read(self, position: int) -> Batch | None:
        """What comes after ``position``, up to the durable end; None when there is nothing."""
        with closing(self._disk.counter(self._layout.durable_end)) as counter:
            end = counter.load()
        if position > end:
            # Put back from a backup, beside a database that was not. What is entered is not entered again, so none is missed.
            return Batch(self.name, position, 0, [])
        if position == end:
            return None
        lost = 0
        if self._walk is None or self._walk.position != position:
            lost = self._seek(position, end)
        assert self._walk is not None
        records: list[Record] = []
        try:
            while len(records) < _RECORDS and (group := self._walk.next(end)) is not None:
                # A walk begins with its segment: what lies before the position is entered, and its damage told.
                if group.end > position:
                    walk = FrameWalk(self._opened(), group)
                    found = [self._record(frame) for frame in walk if frame.position >= position]
                    records += filter(None, found)
                    lost += isinstance(group, Damage) or None in found
            after = max(self._walk.position, position)
        except SegmentGone:  # recycled under our eyes: the next read finds out what is gone
            self.close()
            return None
        return Batch(self.name, position, after, records, lost)

    def close(self) -> None:
        """Let go of its files."""
        if self._files is not None:
            self._files.close()
        self._files = self._walk = None

    def _seek(self, position: int, end: int) -> int:
        """Be at ``position``, or at what comes next; 1 where something between the two is gone."""
        self.close()
        files = self._opened()
        self._walk = GroupWalk(files, position, end)
        if not position or self._walk.position <= position:
            return 0  # what was before a new ledger, `rebuild` brings in
        header = files.header(self._walk.position)
        return int(header is None or header.previous > position)

    def _opened(self) -> SegmentFiles:
        if self._files is None:
            self._files = SegmentFiles(self._disk, self._layout, self._meta)
        return self._files

    def _record(self, found: Frame | Damage) -> Record | None:
        if isinstance(found, Damage):
            return None
        try:
            return decode(self._opened().read(found.record_position, found.size))
        except NewerRecord:
            raise
        except CorruptRecord:
            return None
