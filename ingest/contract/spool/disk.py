"""The few file system calls that the log stands on, behind an interface that a simulated disk can take."""

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, cast

from ingest.contract.folder_sync import sync_folder

IOV_MAX: Final = os.sysconf("SC_IOV_MAX")  # buffers of one pwritev; 1024 on Linux
_COUNTER_SIZE: Final = 4096

Buffer = bytes | memoryview

# With this flag alone it only begins to write: it neither waits nor takes an error from the fdatasync that follows,
# as the flags that wait do (sync_file_range(2)).
_SYNC_FILE_RANGE_WRITE: Final = 2


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """The C library's, called without the interpreter's lock; None where it has none, as outside Linux."""
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    return cast("Callable[[int, int, int, int], int]", function)


_sync_file_range: Final = _find_sync_file_range()


class Space(NamedTuple):
    """Bytes of a file system."""

    total: int
    available: int  # to this user


class Counter(Protocol):
    """A 64-bit number in a file that other processes see at once, and that survives when it can."""

    def load(self) -> int:
        """Its value."""
        ...

    def store(self, value: int) -> None:
        """Set it, in one memory access."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Disk(Protocol):
    """A file system. All calls raise OSError as their namesakes in `os` do; descriptors are close-on-exec."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """A descriptor; a file that is made is private to this user."""
        ...

    def close(self, fd: int) -> None:
        """Close it."""
        ...

    def pread(self, fd: int, length: int, position: int) -> bytes:
        """At most ``length`` bytes; less only at the end of the file."""
        ...

    def pread_anew(self, fd: int, length: int, position: int) -> bytes:
        """As `pread`, from the disk itself as far as that can be had, not from what memory has of the file."""
        ...

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        """Write, at most `IOV_MAX` buffers; the number of bytes written may be less than given."""
        ...

    def allocate(self, fd: int, size: int) -> None:
        """Give the file its blocks, so that writing its first ``size`` bytes never lacks space."""
        ...

    def start_writeback(self, fd: int, length: int, position: int) -> None:
        """Have the disk begin with what was written there; a hint, which raises nothing and promises nothing."""
        ...

    def fdatasync(self, fd: int) -> None:
        """Make the file's data durable, or tell that any of it was not since the last time."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        ...

    def make_folder(self, path: Path) -> None:
        """Make a folder with its parents, private to this user, if there is none."""
        ...

    def names(self, path: Path) -> list[str]:
        """What a folder holds; nothing when it is not there."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing ``target``."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        ...

    def space(self, path: Path) -> Space:
        """The file system's size and what is free of it."""
        ...

    def lock(self, path: Path) -> int | None:
        """A descriptor that holds an exclusive lock until it is closed; None when another has the lock."""
        ...

    def counter(self, path: Path, *, write: bool = False) -> Counter:
        """Map a counter; to write, it is made with value 0 if it is not there whole."""
        ...


class MappedCounter:
    """A counter in a mapped file, aligned, so that no reader sees half of it."""

    def __init__(self, fd: int, *, write: bool) -> None:
        self._map = mmap.mmap(fd, _COUNTER_SIZE, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        self._cells = memoryview(self._map).cast("Q")

    def load(self) -> int:
        """Its value."""
        return self._cells[0]

    def store(self, value: int) -> None:
        """Set it, in one memory access."""
        self._cells[0] = value

    def close(self) -> None:
        """Let go of the file."""
        self._cells.release()
        self._map.close()


class OsDisk:
    """The operating system's."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """See `Disk`."""
        flags = (os.O_RDWR if write else os.O_RDONLY) | (os.O_CREAT if create else 0)
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:
        """See `Disk`."""
        os.close(fd)

    def pread(self, fd: int, length: int, position: int) -> bytes:
        """See `Disk`."""
        return os.pread(fd, length, position)

    def pread_anew(self, fd: int, length: int, position: int) -> bytes:
        """See `Disk`."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, length, position)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        """See `Disk`."""
        return os.pwritev(fd, buffers, position)

    def allocate(self, fd: int, size: int) -> None:
        """See `Disk`."""
        os.posix_fallocate(fd, 0, size)

    def start_writeback(self, fd: int, length: int, position: int) -> None:
        """See `Disk`."""
        if _sync_file_range is not None:  # what it returns says nothing that `fdatasync` does not
            _sync_file_range(fd, position, length, _SYNC_FILE_RANGE_WRITE)

    def fdatasync(self, fd: int) -> None:
        """See `Disk`."""
        os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """See `Disk`."""
        sync_folder(path)

    def make_folder(self, path: Path) -> None:
        """See `Disk`."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, path: Path) -> list[str]:
        """See `Disk`."""
        try:
            return [entry.name for entry in path.iterdir()]
        except FileNotFoundError:
            return []

    def rename(self, source: Path, target: Path) -> None:
        """See `Disk`."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """See `Disk`."""
        path.unlink()

    def space(self, path: Path) -> Space:
        """See `Disk`."""
        found = os.statvfs(path)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def lock(self, path: Path) -> int | None:
        """See `Disk`."""
        fd = self.open(path, write=True, create=True)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        return fd

    def counter(self, path: Path, *, write: bool = False) -> Counter:
        """See `Disk`."""
        fd = self.open(path, write=write, create=write)
        try:
            if os.fstat(fd).st_size < _COUNTER_SIZE:
                if not write:
                    raise OSError(errno.EIO, "is cut short", str(path))
                os.pwrite(fd, bytes(_COUNTER_SIZE), 0)  # a hole could fail with SIGBUS when the disk is full
                os.fsync(fd)
            return MappedCounter(fd, write=write)
        finally:
            os.close(fd)


def write_all(disk: Disk, fd: int, buffers: Sequence[Buffer], position: int) -> int:
    """Write every byte, going on after short writes; returns the position behind them.

    Raises:
        OSError: the disk's; some of the bytes may be written then.
    """
    rest = list(buffers)
    while rest:
        written = disk.pwritev(fd, rest[:IOV_MAX], position)
        if written == 0 and any(map(len, rest)):
            raise OSError(errno.EIO, "nothing was written")
        position += written
        cut(rest, written)
    return position


def cut(buffers: list[Buffer], size: int) -> list[Buffer]:
    """Take the first ``size`` bytes, and empty buffers behind them, out of ``buffers``; nothing is copied."""
    count = 0
    while count < len(buffers) and size >= len(buffers[count]):
        size -= len(buffers[count])
        count += 1
    taken = buffers[:count]
    del buffers[:count]
    if size:
        last = memoryview(buffers[0])
        taken.append(last[:size])
        buffers[0] = last[size:]
    return taken


def read_file(disk: Disk, path: Path, limit: int = 1 << 20) -> bytes | None:
    """A small file's bytes; None when it is not there."""
    try:
        fd = disk.open(path)
    except FileNotFoundError:
        return None
    try:
        return disk.pread(fd, limit, 0)
    finally:
        disk.close(fd)


def replace_file(disk: Disk, path: Path, data: bytes) -> None:
    """Replace a small file atomically; durable when this returns."""
    temporary = path.with_name(path.name + ".new")
    if temporary.name in disk.names(path.parent):
        disk.unlink(temporary)  # a crash may have left a longer one
    fd = disk.open(temporary, write=True, create=True)
    try:
        write_all(disk, fd, [data], 0)
        disk.fdatasync(fd)
    finally:
        disk.close(fd)
    disk.rename(temporary, path)
    disk.sync_folder(path.parent)
