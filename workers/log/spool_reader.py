"""Reads a worker's partitions of the spool, up to the durable end and no further.

reader = SpoolReader(data / "spool", {partition: checkpoint.low_water_mark, ...})
entries = reader.read()            # LogRecord and DamagedRecord, in the order of the log
reader.position                    # everything below it was read, in all these partitions
await reader.wait(1.0)             # until there may be more, at most so long
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ingest.contract.records import MAX_RECORD, CorruptRecord, NewerRecord, decode
from ingest.contract.spool import (
    PAGE,
    Damage,
    Disk,
    Frame,
    FrameWalk,
    GroupHeader,
    GroupWalk,
    Layout,
    OsDisk,
    SegmentFiles,
    SegmentGone,
    Sleeper,
    SpoolLocked,
    SpoolMismatch,
    read_meta,
)
from workers.log.entries import DamagedRecord, Entry, LogRecord

MAXIMUM_READ: Final = 4 << 20  # bytes of records in one read
MAXIMUM_PASSED: Final = 2048  # records of others that one read passes over: some milliseconds
FAILED_READS: Final = 8  # errors in a row, after which an unreadable page is taken for lost


class SpoolReader:
    """Hands out the records of some partitions, each from a position of its own; holds their locks."""

    def __init__(self, folder: Path, starts: Mapping[int, int], disk: Disk | None = None) -> None:
        """Open the spool in ``folder``.

        Raises:
            SpoolMissing: no receiver has made it yet.
            SpoolLocked: another worker has one of these partitions.
            SpoolMismatch: a partition that the log does not have, or a log of another release.
            OSError: the disk's.
        """
        self._disk = disk or OsDisk()
        self._layout = Layout(folder)
        self._starts = dict(starts)
        self._meta = read_meta(self._disk, self._layout)
        with ExitStack() as resources:
            self._lock_partitions(resources)
            self._end = self._disk.counter(self._layout.durable_end)
            resources.callback(self._end.close)
            self._files = SegmentFiles(self._disk, self._layout, self._meta)
            resources.callback(self._files.close)
            self._sleeper = Sleeper(self._layout, starts)
            resources.callback(self._sleeper.close)
            self._resources = resources.pop_all()
        start = min(self._starts.values())
        self._walk = GroupWalk(self._files, start, self._end.load())
        self._group: GroupHeader | Damage | None = None
        self._frames: Iterator[Frame | Damage] = iter(())
        self._at: Frame | Damage | None = None  # found, and not yet handed out
        self._failures = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self.position = start

    def read(self, maximum: int = MAXIMUM_READ) -> list[Entry]:
        """What comes next, up to about ``maximum`` bytes of records.

        Empty at the durable end, or after passing over many records of other partitions; `wait` knows which.

        Damage is handed out too: a damaged record to its partition. Where not even the partition can be
        told, the bytes go to one partition, the same for whoever reads, and the others get an entry without
        bytes, since each may have lost something.

        Raises:
            NewerRecord: the next record is of a newer release; it comes after all entries before it, and again each time.
            OSError: the disk's; nothing is lost, and the next read tries the same again. Only after
                `FAILED_READS` of these in a row are the unreadable pages taken for damage, and not while the disk
                can read nothing of the log: then it is away, and what it holds may come back.
        """
        entries: list[Entry] = []
        limit = self._end.load()
        size = passed = 0
        self._files.salvage = self._failures >= FAILED_READS
        try:
            while size < maximum and passed < MAXIMUM_PASSED and self._advance(limit):
                assert self._at is not None
                found = self._entries(self._at)
                size += self._at.end - self._at.position if found else 0
                passed += not found
                entries += found
                self._at = None
        except NewerRecord:
            if not entries:
                raise
        except OSError:
            self._failures += 1
            if not entries:
                raise
        else:
            self._failures = 0
        return entries

    def read_to(self, partition: int) -> int:
        """The same for all partitions; see `Reader.read_to`."""
        assert partition in self._starts
        return self.position

    async def end_of(self, partition: int) -> int:
        """The durable end; see `Reader.end_of`."""
        assert partition in self._starts
        return self._end.load()

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on idleness, not on an operation
        """Wait until something may have been published to these partitions, at most ``timeout`` seconds.

        What comes to other partitions wakes nobody: read on after the time-out too, so that `position`, and
        with it the low-water mark, follows the log's end.
        """
        self._listen()
        self._woken.clear()
        if self._end.load() > self.position:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._woken.wait()

    def close(self) -> None:
        """Let go of files and locks."""
        if self._loop is not None:
            for fd in self._sleeper.descriptors:
                self._loop.remove_reader(fd)
            self._loop = None
        self._resources.close()

    def _lock_partitions(self, resources: ExitStack) -> None:
        self._disk.make_folder(self._layout.locks)
        for partition in sorted(self._starts):
            if partition >= self._meta.partitions:
                raise SpoolMismatch(f"partition {partition}: the log has {self._meta.partitions}")
            lock = self._disk.lock(self._layout.locks / str(partition))
            if lock is None:
                raise SpoolLocked(f"another worker reads partition {partition}")
            resources.callback(self._disk.close, lock)

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            for fd in self._sleeper.descriptors:
                loop.add_reader(fd, self._wake)

    def _wake(self) -> None:
        self._sleeper.drain()
        self._woken.set()

    def _advance(self, limit: int) -> bool:
        """Find the next record or damage; False at the limit."""
        while self._at is None:
            if self._group is not None:
                self._at = next(self._frames, None)
                if self._at is not None:
                    break
            self._group = None
            self.position = max(self.position, self._walk.position)
            group = self._walk.next(limit)
            if group is None:
                self.position = max(self.position, self._walk.position)
                return False
            if group.end > min(self._starts.values()):
                self._group = group
                self._frames = FrameWalk(self._files, group)
        return True

    def _entries(self, found: Frame | Damage) -> list[Entry]:
        if isinstance(found, Damage):
            return [entry for partition in self._starts for entry in self._lost(found, partition)]
        if found.position < self._starts.get(found.partition, found.end):
            return []
        if found.partition not in self._starts:
            return []
        data = self._files.read(found.record_position, found.size)
        try:
            return [LogRecord(found.position, found.end, found.partition, decode(data), self._written_at())]
        except NewerRecord:
            raise
        except CorruptRecord:
            return [
                DamagedRecord(
                    found.position, found.end, found.partition, memoryview(data), self._written_at()
                )
            ]

    def _written_at(self) -> int:
        """When the record at hand was written, in milliseconds; 0 where its group's header is lost."""
        return self._group.written_at // 1_000_000 if isinstance(self._group, GroupHeader) else 0

    def _lost(self, damage: Damage, partition: int) -> Iterator[Entry]:
        """A stretch whose partition is not known, as ``partition`` gets it."""
        start = max(damage.position, self._starts[partition])
        if start >= damage.end:
            return
        if damage.position // PAGE % self._meta.partitions != partition:
            yield DamagedRecord(start, damage.end, partition, memoryview(b""))
            return
        while start < damage.end:
            end = min(damage.end, start + MAX_RECORD)
            yield DamagedRecord(start, end, partition, memoryview(self._bytes(start, end)))
            start = end

    def _bytes(self, start: int, end: int) -> bytes:
        try:
            return self._files.read(start, end - start).rstrip(b"\0")
        except SegmentGone:
            return b""
