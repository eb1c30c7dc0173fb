"""From whatever a crash left to a log that can be read and written; every step can be interrupted and repeated."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ingest.contract.records import is_whole
from ingest.contract.spool.disk import Disk, write_all
from ingest.contract.spool.files import SegmentFiles
from ingest.contract.spool.format import PAGE, Frame, GroupHeader
from ingest.contract.spool.layout import Layout, Meta
from ingest.contract.spool.pool import PoolLimits, SegmentPool
from ingest.contract.spool.segment_log import SegmentLog
from ingest.contract.spool.slots import read_slot, write_slot
from ingest.contract.spool.walk import Damage, FrameWalk

_TORN_KEPT: Final = 16  # torn groups in the folder, the newest
_BLANK: Final = bytes(PAGE)


@dataclass
class Recovered:
    """What recovery found and did; worth a line in the telemetry where it is not empty."""

    end: int = 0  # the log's end
    torn: list[GroupHeader] = field(default_factory=list)  # cut: written, never acknowledged, not whole
    damaged: list[Damage] = field(default_factory=list)  # acknowledged, and not readable as groups any more
    retired: int | None = None  # the segment whose sync had failed
    skipped_to: int | None = None  # a committed position lay beyond the end: the log has lost its tail


@dataclass
class _Survey:
    """The headers of a log: how far it was surely synced, and the groups beyond."""

    synced: int
    acknowledged_end: int = 0
    tail: list[GroupHeader] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)

    def add(self, header: GroupHeader) -> None:
        self.synced = max(self.synced, header.synced)
        self.tail.append(header)
        done = [header for header in self.tail if header.end <= self.synced]
        self.acknowledged_end = max([self.acknowledged_end, *(header.end for header in done)])
        self.tail = [header for header in self.tail if header.end > self.synced]


class Recovery:
    """Recovers one log, whose lock the caller holds."""

    def __init__(self, disk: Disk, layout: Layout, meta: Meta, low_water_mark: int) -> None:
        self._settled = low_water_mark
        self._disk = disk
        self._layout = layout
        self._meta = meta
        self._files = SegmentFiles(disk, layout, meta)
        self._result = Recovered()

    def run(self) -> Recovered:
        """Do it.

        Steps: 1. find the end that was surely synced, 2. retire the segment of a failed sync, 3. keep the
        whole groups beyond, written again and synced, 4. keep aside and blank what is torn.

        Raises:
            OSError: the disk's; the log is not usable then, and running again is safe.
        """
        cut = read_slot(self._disk, self._layout.cut) or None
        survey = self._survey(max([self._hint(), cut[1] if cut else 0, *self._files.retired.values()]))
        end = max(survey.synced, survey.acknowledged_end)
        if survey.acknowledged_end < end:
            self._result.damaged.append(Damage(survey.acknowledged_end, end))
        if cut is not None:
            self._retire(cut[0], end)
            survey.tail = [header for header in survey.tail if self._files.number(header.position) != cut[0]]
        end, kept, torn = self._judge(end, survey.tail)
        self._write_again(kept)
        self._take_out(torn)
        if cut is not None:
            write_slot(self._disk, self._layout.cut)
        self._files.close()
        self._result.end = end
        damaged = self._result.damaged + survey.damaged
        self._result.damaged = [damage for damage in damaged if damage.end > self._settled]
        return self._result

    def _hint(self) -> int:
        """The durable end as last published: at most the true one, since it was stored after the sync."""
        counter = self._disk.counter(self._layout.durable_end, write=True)
        try:
            return counter.load()
        finally:
            counter.close()

    def _survey(self, hint: int) -> _Survey:
        survey = _Survey(hint)
        empty = 0
        for number in self._files.numbers:
            before = survey.synced
            found = 0
            for item in self._headers(number):
                if isinstance(item, Damage):
                    survey.damaged.append(item)
                else:
                    survey.add(item)
                    found += 1
            empty = 0 if found or before > self._files.start(number) else empty + 1
            if empty > 1:
                break  # segments that hold nothing yet; one more was searched, in case its head is damaged
        survey.damaged = [damage for damage in survey.damaged if damage.end <= survey.synced]
        return survey

    def _headers(self, number: int) -> Iterator[GroupHeader | Damage]:
        """All groups of a segment, also those behind damage."""
        position = self._files.start(number)
        stop = self._files.retired.get(number, self._files.start(number + 1))
        while position < stop:
            header = self._files.header(position)
            if header is None and not self._is_left_out(position, number):
                header = self._files.find_header(position + PAGE, stop)
                if header is not None:
                    yield Damage(position, header.position)
            if header is None or header.end > stop:
                return
            yield header
            position = header.end

    def _is_left_out(self, position: int, number: int) -> bool:
        """Whether the log itself went on in the next segment from here."""
        after = self._files.after(number)
        header = None if after is None else self._files.header(self._files.start(after))
        return header is not None and header.previous == position

    def _judge(self, end: int, tail: list[GroupHeader]) -> tuple[int, list[GroupHeader], list[GroupHeader]]:
        """Of the groups that may never have been synced, those that are whole and in their place are kept."""
        kept: list[GroupHeader] = []
        tail = sorted(tail, key=lambda header: header.position)
        while tail:
            header = tail[0]
            at_start = header.position % self._meta.segment_size == 0 and header.previous == end
            if not (header.position == end or at_start) or not self._is_whole(header):
                break
            kept.append(tail.pop(0))
            end = header.end
        return end, kept, tail

    def _is_whole(self, header: GroupHeader) -> bool:
        count = 0
        for frame in FrameWalk(self._files, header):
            if not isinstance(frame, Frame):
                return False
            if not is_whole(self._files.read(frame.record_position, frame.size)):
                return False
            count += 1
        return count == header.records

    def _write_again(self, kept: list[GroupHeader]) -> None:
        """Sync what is kept before it is shown.

        Written again and not only synced: after a failed sync, and a crash before that could be noted, the
        page cache holds bytes that it calls clean and the disk does not have.
        """
        for header in kept:
            data = self._files.read(header.position, header.end - header.position)
            self._overwrite(header.position, data)

    def _take_out(self, torn: list[GroupHeader]) -> None:
        """Keep what is torn for inspection, and see that it is never taken for a group again."""
        for header in torn:
            self._result.torn.append(header)
            with contextlib.suppress(OSError):  # no space to keep a copy is no reason not to start
                self._keep_copy(header)
            self._overwrite(header.position, _BLANK)

    def _keep_copy(self, header: GroupHeader) -> None:
        self._disk.make_folder(self._layout.torn)
        names = sorted(self._disk.names(self._layout.torn))
        for name in names[: max(0, len(names) - _TORN_KEPT + 1)]:
            self._disk.unlink(self._layout.torn / name)
        path = self._layout.torn / f"{header.position:016x}"
        fd = self._disk.open(path, write=True, create=True)
        try:
            write_all(self._disk, fd, [self._files.read(header.position, header.length)], 0)
        except OSError:
            self._disk.unlink(path)
            raise
        finally:
            self._disk.close(fd)

    def _overwrite(self, position: int, data: bytes) -> None:
        number, offset = divmod(position, self._meta.segment_size)
        fd = self._disk.open(self._layout.segment(number), write=True)
        try:
            write_all(self._disk, fd, [data], offset)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)

    def _retire(self, number: int, end: int) -> None:
        """A segment whose sync failed is read to its durable end, and never written again."""
        self._result.retired = number
        if number in self._files.retired or number not in self._files.numbers:
            return  # an interrupted recovery did this, and it may be settled and removed since
        self._disk.make_folder(self._layout.retired)
        self._disk.sync_folder(self._layout.folder)
        self._disk.rename(self._layout.segment(number), self._layout.retired_segment(number, end))
        self._disk.sync_folder(self._layout.retired)
        self._disk.sync_folder(self._layout.segments)
        self._files.forget(number)
        self._files.refresh()


def open_log(
    disk: Disk,
    layout: Layout,
    meta: Meta,
    limits: PoolLimits,
    *,
    low_water_mark: Callable[[], int],
    committed: int,
) -> tuple[SegmentLog, SegmentPool, Recovered]:
    """Recover a log and open it for writing, its next segments straight from the pool; the caller holds its lock.

    ``committed`` is the highest position that any reader has settled.

    Raises:
        OSError: the disk's.
    """
    recovered = Recovery(disk, layout, meta, low_water_mark()).run()
    end = recovered.end
    size = meta.segment_size
    number = max([(end - 1) // size, *layout.retired_ends(disk)])  # -1 while nothing was ever written
    if committed > end:
        # Offsets are never used again, whatever became of the bytes under them.
        recovered.skipped_to = -(-committed // size) * size
        number = recovered.skipped_to // size - 1
    limits = limits._replace(segment_size=size)
    pool = SegmentPool(disk, layout, limits, low_water_mark, (end - 1) // size + 1)
    pool.renumber(number + 1)
    goes_on = number == end // size and number in layout.segment_numbers(disk)
    fd = disk.open(layout.segment(number), write=True) if goes_on else None
    log = SegmentLog(disk, layout, meta, end=end, fd=fd, number=number, take_segment=pool.take)
    return log, pool, recovered
