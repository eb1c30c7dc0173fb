"""The trail on disk: ``DIR/audit/trail-<n>.log``, appended to by every process and command of a data folder.

A line is one syslog message (RFC 5424) as it will be sent. Files are numbered; the highest is written to, under the lock
``DIR/audit/lock``. ``delivered.json`` says how far the repository has them; what it has in whole files is deleted.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ingest.contract.settings_base import MiB

_FILES: Final = 16  # that `maximum_size` is cut into, so that little goes at a time
_LARGEST: Final = 16 * MiB  # one file
_NAME: Final = re.compile(r"trail-([0-9]{8})\.log\Z")
_COPY: Final = 64 * 1024  # bytes


class Mark(NamedTuple):
    """A place in the trail."""

    file: int = 0
    offset: int = 0  # bytes


class Batch(NamedTuple):
    """Whole lines without their ends, and the place behind them."""

    lines: Sequence[bytes]
    end: Mark


class TrailFiles:
    """The files of one data folder; any number of processes may have one of these, one thread each."""

    def __init__(self, data: Path, maximum_size: int) -> None:
        self.folder = data / "audit"
        self._maximum = maximum_size
        self._file_size = min(maximum_size // _FILES, _LARGEST)

    def append(self, lines: Sequence[bytes]) -> int:
        """Write lines durably; how many old ones had to go for them before the repository had them.

        Raises:
            OSError: the file system's; then none of the lines counts as written, though some may be.
        """
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        with self._locked():
            # Where all were removed, not the one again that was delivered up to some place.
            number = max(self._numbers(), default=self.delivered().file + 1)
            if self._size(number) >= self._file_size:
                number += 1
            _append(self._path(number), b"".join(line + b"\n" for line in lines))
            return self._make_room()

    def read(self, mark: Mark, limit: int) -> Batch:
        """Lines behind ``mark``, up to about ``limit`` bytes; none where there are none yet.

        Raises:
            OSError: the file system's.
        """
        for number in sorted(self._numbers()):
            if number < mark.file:
                continue
            offset = mark.offset if number == mark.file else 0
            with contextlib.suppress(FileNotFoundError), self._path(number).open("rb") as file:
                file.seek(offset)
                data = file.read(limit)
                whole = data[: data.rfind(b"\n") + 1]
                if not whole and len(data) == limit:  # longer than any message: damage
                    whole = data
                if whole:
                    return Batch(whole.splitlines(), Mark(number, offset + len(whole)))
        return Batch((), mark)

    def delivered(self) -> Mark:
        """Up to where the repository has the trail."""
        try:
            mark = msgspec.json.decode((self.folder / "delivered.json").read_bytes(), type=tuple[int, int])
        except (OSError, msgspec.MsgspecError):
            return Mark()
        return Mark(*mark)

    def set_delivered(self, mark: Mark) -> None:
        """The repository has it up to there; files that it has whole go.

        Raises:
            OSError: the file system's.
        """
        path = self.folder / "delivered.json"
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(msgspec.json.encode(tuple(mark)))
        temporary.replace(path)
        for number in self._numbers():
            if number < mark.file:
                self._path(number).unlink(missing_ok=True)

    def waiting(self) -> int:
        """Bytes that the repository does not have."""
        mark = self.delivered()
        numbers = [number for number in self._numbers() if number >= mark.file]
        behind = mark.offset if mark.file in numbers else 0
        return max(0, sum(map(self._size, numbers)) - behind)

    @contextlib.contextmanager
    def delivering(self) -> Iterator[bool]:
        """Whether this process is the one that delivers; for as long as it stays within."""
        with self._lock("delivering", fcntl.LOCK_EX | fcntl.LOCK_NB) as ours:
            yield ours

    def _make_room(self) -> int:
        """Remove the oldest files beyond the limit; how many lines of them nobody has."""
        lost, delivered = 0, self.delivered()
        numbers = sorted(self._numbers())
        total = sum(map(self._size, numbers))
        for number in numbers[:-1]:
            if total <= self._maximum:
                break
            total -= self._size(number)
            lost += _count_lines(self._path(number), delivered.offset if number == delivered.file else 0)
            self._path(number).unlink(missing_ok=True)
        return lost

    def _numbers(self) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            names = (_NAME.match(name) for name in os.listdir(self.folder))  # noqa: PTH208 - names are all it needs
            return [int(name[1]) for name in names if name]
        return []

    def _path(self, number: int) -> Path:
        return self.folder / f"trail-{number:08}.log"

    def _size(self, number: int) -> int:
        try:
            return self._path(number).stat().st_size
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock("lock", fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _lock(self, name: str, how: int) -> Iterator[bool]:
        fd = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            try:
                fcntl.flock(fd, how)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)


def _append(path: Path, text: bytes) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            text = b"\n" + text  # a kill has cut the last line
        try:
            left = memoryview(text)
            while left:
                left = left[os.write(fd, left) :]
            os.fdatasync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)  # a full disk: half a line would be sent
            raise
    finally:
        os.close(fd)


def _count_lines(path: Path, offset: int) -> int:
    found = 0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(offset)
        while data := file.read(_COPY):
            found += data.count(b"\n")
    return found
