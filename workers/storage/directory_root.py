"""A folder as a place of a store: records are files, and flock(2) says who is at work, which dies with its process."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ingest.contract.folder_sync import sync_folder
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import Area, shards
from workers.storage.root import IN_USE, SHARD, Size, changed_by
from workers.storage.shard_map import WrongStores
from workers.storage.unnamed_file import TEMPORARY

_LOCK_FILE: Final = "lock"
_MAXIMUM: Final = 1024 * 1024  # bytes of a record; a map of three-digit store numbers has 20 KiB


class DirectoryRoot:
    """See `Root`: a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def place(self) -> str:
        """See `Root.place`."""
        return str(self.path.resolve())

    def there(self) -> bool:
        """See `Root.there`."""
        return self.path.is_dir()

    def make(self) -> None:
        """See `Root.make`."""
        _make_folder(self.path)

    def read(self, name: str) -> bytes | None:
        """See `Root.read`."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(_MAXIMUM)
        except FileNotFoundError:
            return None

    def replace(self, name: str, data: bytes) -> None:
        """See `Root.replace`."""
        temporary = self.path / f"{name}.new"  # one writer at a time: the caller holds the lock
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)
        sync_folder(self.path)

    def remove(self, name: str) -> None:
        """See `Root.remove`."""
        (self.path / name).unlink(missing_ok=True)

    def holds_objects(self) -> bool:
        """See `Root.holds_objects`."""
        areas = [str(area) for area in Area if area]
        return any((self.path / name).exists() for name in (*areas, *shards()))

    @contextlib.contextmanager
    def forming(self) -> Iterator[None]:
        """See `Root.forming`."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """See `Root.shared`."""
        with self._locked(fcntl.LOCK_SH, changed_by("")):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """See `Root.alone`."""
        with self._locked(fcntl.LOCK_EX, IN_USE):
            yield

    def probe(self) -> None:
        """See `Root.probe`: link(2) creates a name once, and rename(2) moves a file, both within one file system only."""
        device = self.path.stat().st_dev
        ours = {*filter(None, Area), *shards(), TEMPORARY}
        for entry in _entries(self.path):
            if entry.name in ours and entry.stat().st_dev != device:
                raise WrongStores(
                    f"{entry.path} is on another file system than {self}: what is damaged there could never be set "
                    "aside. Give the store one file system; `dicom-ingest shards add` spreads shards over several"
                )

    def open(self, name: str) -> DirectoryStore:
        """See `Root.open`."""
        return DirectoryStore(self.path, name)

    def records(self, area: Area) -> Iterator[tuple[str, bytes]]:
        """See `Root.records`."""
        # Not by glob, to which a folder that may not be read is an empty one.
        for shard in _entries(self.path / area):
            for entry in _entries(shard.path) if shard.is_dir() else ():
                if entry.name.endswith(".json"):
                    yield entry.path, Path(entry.path).read_bytes()

    def sizes(self) -> Iterator[Size]:
        """See `Root.sizes`; one look at each object's directory entry."""
        for shard in _entries(self.path):
            if SHARD.match(shard.name):
                for entry in _entries(shard.path):
                    if entry.name.endswith(".dcm"):
                        yield Size(shard.name, entry.stat().st_size)

    def close(self) -> None:
        """See `Root.close`."""

    @contextlib.contextmanager
    def _locked(self, kind: int, refusal: str) -> Iterator[None]:
        # Who only looks may have no right to write, or the disk be mounted read-only; over NFS, being alone needs it.
        access = os.O_RDONLY if kind == fcntl.LOCK_SH else os.O_RDWR
        descriptor = os.open(self.path / _LOCK_FILE, access | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WrongStores(f"{self} {refusal}") from None
            yield
        finally:
            os.close(descriptor)


def _entries(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each synced into its parent."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(mode=0o750, exist_ok=True)
    sync_folder(path.parent)
