"""A disk that does what a real one may do at its worst, chosen by a seeded random generator.

What was not synced may be lost or kept page by page, in any order, at any of its later values; names may be
lost in reverse order of their making; a failed sync leaves pages that read back well, count as clean, and are
not on the disk; writes may be short or refused. `power_cut` and `kill` end the machine or only the process;
every descriptor is dead afterwards. `countdown` cuts the power in the middle of an operation.
"""

import errno
import random
from collections.abc import Sequence
from pathlib import Path

from ingest.contract.spool import Space

PAGE = 4096
ZERO = bytes(PAGE)


class PowerCut(BaseException):
    """Nothing more is executed; no handler for errors may catch it."""


class File:
    """An inode: what reads see, what the disk has, and what each dirty page may still become."""

    def __init__(self) -> None:
        self.size = 0
        self.cache: dict[int, bytes] = {}
        self.durable_size = 0
        self.durable: dict[int, bytes] = {}
        self.dirty: dict[int, list[bytes]] = {}
        self.failed = False  # a write in the background did, and nobody has been told

    def write(self, data: bytes, position: int) -> None:
        end = position + len(data)
        at = position
        while at < end:
            number, offset = divmod(at, PAGE)
            count = min(PAGE - offset, end - at)
            page = bytearray(self.cache.get(number, ZERO))
            page[offset : offset + count] = data[at - position : at - position + count]
            self.cache[number] = bytes(page)
            self.dirty.setdefault(number, []).append(bytes(page))
            at += count
        self.size = max(self.size, end)

    def read(self, length: int, position: int) -> bytes:
        end = min(position + length, self.size)
        if position >= end:
            return b""
        pages = [self.cache.get(number, ZERO) for number in range(position // PAGE, -(-end // PAGE))]
        offset = position % PAGE
        return b"".join(pages)[offset : offset + end - position]

    def sync(self) -> None:
        for number in self.dirty:
            self.durable[number] = self.cache[number]
        self.dirty.clear()
        self.durable_size = self.size

    def write_back(self, rng: random.Random, pages: range | None = None, *, clean: bool = False) -> None:
        """Some of the dirty pages reach the disk, each at some value that it has had, or its last if it is clean then."""
        for number in [number for number in self.dirty if pages is None or number in pages]:
            if rng.random() < 0.5:
                self.durable[number] = self.cache[number] if clean else rng.choice(self.dirty[number])
                if clean:
                    del self.dirty[number]
        if self.size > self.durable_size and rng.random() < 0.5:
            self.durable_size = rng.randint(self.durable_size, self.size)

    def forget(self) -> None:
        """Only what the disk has is left."""
        self.dirty.clear()
        self.failed = False
        self.cache = dict(self.durable)
        self.size = self.durable_size


class SimulatedCounter:
    def __init__(self, disk: "SimulatedDisk", file: File) -> None:
        self._disk = disk
        self._file = file

    def load(self) -> int:
        return int.from_bytes(self._file.read(8, 0), "little")

    def store(self, value: int) -> None:
        self._disk.tick()
        self._file.write(value.to_bytes(8, "little"), 0)

    def close(self) -> None:
        pass


class SimulatedDisk:
    """See `ingest.contract.spool.Disk`."""

    def __init__(self, seed: int, total: int = 1 << 40) -> None:
        self.rng = random.Random(seed)
        self.total = total
        self.names_now: dict[Path, File] = {}
        self.names_durable: dict[Path, File] = {}
        self.name_changes: list[
            tuple[set[Path], dict[Path, File]]
        ] = []  # folders touched, and names after it
        self.folders: set[Path] = set()
        self.descriptors: dict[int, File] = {}
        self.locked: dict[int, Path] = {}
        self.next_fd = 3
        self.countdown: int | None = None
        self.fail_next_sync = False
        self.short_writes = 0.0
        self.fail_writeback = 0.0
        self.refuse_writes = 0.0
        self.refuse_after: int | None = None  # pages that are written before the disk is full
        self.unreadable: set[tuple[File, int]] = set()  # pages that give EIO
        self.operations = 0

    # -- the interface

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        if path not in self.names_now:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self.tick()
            self._rename({path.parent}, {**self.names_now, path: File()})
        return self._descriptor(self.names_now[path])

    def close(self, fd: int) -> None:
        del self.descriptors[fd]
        self.locked.pop(fd, None)

    def pread(self, fd: int, length: int, position: int) -> bytes:
        file = self.descriptors[fd]
        pages = range(position // PAGE, -(-(position + length) // PAGE))
        if any((file, number) in self.unreadable for number in pages):
            raise OSError(errno.EIO, "unreadable")
        return file.read(length, position)

    pread_anew = pread

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], position: int) -> int:
        assert len(buffers) <= 1024
        file = self.descriptors[fd]
        data = b"".join(buffers)
        if self.tick(final=False):
            file.write(data[: self.rng.randint(0, len(data))], position)
            raise PowerCut
        if data and self.rng.random() < self.refuse_writes:
            raise OSError(errno.ENOSPC, "no space")
        if self.refuse_after == 0 and len(data) > PAGE:  # blanks, of one page, find room
            raise OSError(errno.ENOSPC, "no space")
        if self.refuse_after and len(data) > PAGE:
            data = data[: self.refuse_after * PAGE]
            self.refuse_after = 0
        growth = position + len(data) - file.size
        if growth > 0 and self._used() + growth > self.total:
            raise OSError(errno.ENOSPC, "no space")
        if len(data) > 1 and self.rng.random() < self.short_writes:
            data = data[: self.rng.randint(1, len(data) - 1)]
        file.write(data, position)
        return len(data)

    def allocate(self, fd: int, size: int) -> None:
        """Blocks that read as zeros; like all metadata, the size may be lost or cut until the sync."""
        file = self.descriptors[fd]
        if self.tick(final=False):
            file.size = max(file.size, self.rng.randint(0, size))
            raise PowerCut
        if self.rng.random() < self.refuse_writes or self._used() + max(0, size - file.size) > self.total:
            raise OSError(errno.ENOSPC, "no space")
        file.size = max(file.size, size)

    def start_writeback(self, fd: int, length: int, position: int) -> None:
        """Nothing, or some of it; what fails on the way counts as clean and is told by the next sync."""
        file = self.descriptors[fd]
        pages = range(position // PAGE, (position + length) // PAGE)
        if self.tick(final=False):
            file.write_back(self.rng, pages)
            raise PowerCut
        file.write_back(self.rng, pages, clean=True)
        if self.rng.random() < self.fail_writeback and any(number in file.dirty for number in pages):
            file.failed = True
            for number in pages:
                file.dirty.pop(number, None)

    def fdatasync(self, fd: int) -> None:
        file = self.descriptors[fd]
        if self.tick(final=False):
            file.write_back(self.rng)
            raise PowerCut
        if file.failed or (self.fail_next_sync and file.dirty):
            self.fail_next_sync = file.failed = False
            file.write_back(self.rng)
            file.dirty.clear()  # "clean" from now on, whatever the disk has
            raise OSError(errno.EIO, "sync failed")
        file.sync()

    def sync_folder(self, path: Path) -> None:
        self.tick()
        touching = [at for at, (folders, _) in enumerate(self.name_changes) if path in folders]
        if touching:
            self.names_durable = self.name_changes[touching[-1]][1]
            del self.name_changes[: touching[-1] + 1]

    def make_folder(self, path: Path) -> None:
        self.folders.add(path)

    def names(self, path: Path) -> list[str]:
        return [name.name for name in self.names_now if name.parent == path]

    def rename(self, source: Path, target: Path) -> None:
        self.tick()
        names = dict(self.names_now)
        if source not in names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(source))
        names[target] = names.pop(source)
        self._rename({source.parent, target.parent}, names)

    def unlink(self, path: Path) -> None:
        self.tick()
        names = dict(self.names_now)
        del names[path]
        self._rename({path.parent}, names)

    def space(self, path: Path) -> Space:
        return Space(self.total, self.total - self._used())

    def lock(self, path: Path) -> int | None:
        if path in self.locked.values():
            return None
        fd = self.open(path, write=True, create=True)
        self.locked[fd] = path
        return fd

    def counter(self, path: Path, *, write: bool = False) -> SimulatedCounter:
        if write and path not in self.names_now:
            self.tick()
            file = File()
            file.size = file.durable_size = PAGE
            self._rename({path.parent}, {**self.names_now, path: file})
        if path not in self.names_now:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return SimulatedCounter(self, self.names_now[path])

    # -- what befalls it

    def tick(self, *, final: bool = True) -> bool:
        """One operation that changes something; True (or PowerCut) when it is the one that is interrupted."""
        self.operations += 1
        if self.countdown is None:
            return False
        self.countdown -= 1
        if self.countdown >= 0:
            return False
        if final:
            raise PowerCut
        return True

    def power_cut(self) -> None:
        """Lose what was not synced, as chance will have it."""
        keep = self.rng.randint(0, len(self.name_changes))
        if keep:
            self.names_durable = self.name_changes[keep - 1][1]
        self.name_changes.clear()
        self.names_now = dict(self.names_durable)
        for file in self.names_now.values():
            file.write_back(self.rng)
            file.forget()
        self.kill()

    def kill(self) -> None:
        """The process ends; the machine and its page cache go on."""
        self.countdown = None
        self.descriptors.clear()
        self.locked.clear()

    def damage(self, path: Path, position: int) -> None:
        """One bit of a file turns."""
        file = self.names_now[path]
        number, offset = divmod(position, PAGE)
        page = bytearray(file.cache.get(number, ZERO))
        page[offset] ^= 1 << self.rng.randrange(8)
        file.cache[number] = file.durable[number] = bytes(page)

    def _used(self) -> int:
        return sum(-(-file.size // PAGE) * PAGE for file in self.names_now.values())

    def _descriptor(self, file: File) -> int:
        self.next_fd += 1
        self.descriptors[self.next_fd] = file
        return self.next_fd

    def _rename(self, folders: set[Path], names: dict[Path, File]) -> None:
        self.names_now = names
        self.name_changes.append((folders, names))
