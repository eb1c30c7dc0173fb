"""Commits, keys and memory, looked at all the time: I3, I4 and I6 are about every moment."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

import obstore

from ingest.contract.settings import Settings
from ingest.contract.store_urls import StoreUrl, parse_store_url
from tests.support.buckets import store_settings
from tests.support.crash.topic import committed
from tests.support.distributed import Distributed
from workers.storage.bucket import Bucket
from workers.storage.part10 import HEAD

_LOOK: Final = 0.4  # s between two looks at the group's commits and the store
_SHARE: Final = 4  # a look that takes long is followed by a pause of so many times that


class Object(NamedTuple):
    """What is under a key."""

    etag: str
    size: int
    look: int  # the number of the look that found it


class Watch:
    """Looks at commits, keys and memory all the time: I3, I4 and I6 are about every moment, not about the end."""

    def __init__(self, settings: Settings, pipeline: Distributed) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._stores = [_looked_into(url) for url in pipeline.watched]
        self.seen: dict[str, Object] = {}
        self.wrong: list[str] = []  # what changed that must not
        self.marks: list[dict[int, int]] = []  # of each look
        self.peaks: dict[str, int] = {}
        self._looking = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the watch hangs"

    def objects(self) -> dict[str, Object]:
        """Every key in the stores, with what is under it."""
        return {key: found for store in self.by_store() for key, found in store.items()}

    def by_store(self) -> list[dict[str, Object]]:
        """The same, one store after the other."""
        return [store.objects(len(self.marks)) for store in self._stores]

    def head(self, key: str) -> bytes:
        """The first bytes of an object."""
        for store in self._stores:
            with contextlib.suppress(FileNotFoundError):
                return store.head(key)
        raise FileNotFoundError(key)

    def look(self) -> None:
        """One look; from any thread."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        for host in self._pipeline.hosts:
            self.peaks[host.name] = max(host.peak(), self.peaks.get(host.name, 0))
        marks = committed(self._settings)  # before the keys: what is committed must be there by then
        objects = self.objects()
        self._compare_marks(marks)
        self._compare_objects(objects)
        self.marks.append(marks)

    def _compare_marks(self, marks: dict[int, int]) -> None:
        before = self.marks[-1] if self.marks else {}
        self.wrong += [
            f"I4: partition {partition} went back from {mark} to {marks.get(partition, 0)}"
            for partition, mark in before.items()
            if marks.get(partition, 0) < mark
        ]

    def _compare_objects(self, objects: dict[str, Object]) -> None:
        for key, found in objects.items():
            before = self.seen.setdefault(key, found)
            if before[:2] != found[:2] and is_object(key):
                self.wrong.append(f"I3: {key} has changed")
        self.wrong += [f"I1: {key} has gone" for key in self.seen if is_object(key) and key not in objects]

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            with contextlib.suppress(Exception):  # a server may be dead: that is what is tested
                self.look()
            self._stopping.wait(max(_LOOK, _SHARE * (time.monotonic() - began)))


class _InBucket:
    """A store looked into behind its back."""

    def __init__(self, url: StoreUrl) -> None:
        short = store_settings(request_timeout=3, retry_timeout=3)
        self._client = Bucket(url, short)._client

    def objects(self, look: int) -> dict[str, Object]:
        return {
            meta["path"]: Object(str(meta["e_tag"]), meta["size"], look)
            for chunk in obstore.list(self._client)
            for meta in chunk
        }

    def head(self, key: str) -> bytes:
        return bytes(obstore.get_range(self._client, key, start=0, length=HEAD))


class _InFolder:
    """The same of a folder; a file that is another has another number or another time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def objects(self, look: int) -> dict[str, Object]:
        found = {}
        for path in self._folder.rglob("*"):
            if path.is_dir():
                continue
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                tag = f"{state.st_ino} {state.st_mtime_ns}"
                found[str(path.relative_to(self._folder))] = Object(tag, state.st_size, look)
        return found

    def head(self, key: str) -> bytes:
        with (self._folder / key).open("rb") as file:
            return file.read(HEAD)


def _looked_into(url: str) -> _InBucket | _InFolder:
    place = parse_store_url(url)
    return _InFolder(place) if isinstance(place, Path) else _InBucket(place)


def is_object(key: str) -> bool:
    """Whether this is the key of a stored instance, and not of a lane or of the store's own."""
    return key.endswith(".dcm") and key.count("/") == 1


def uid_of(key: str) -> str:
    """Whose object it is."""
    return key.rpartition("/")[2].removesuffix(".dcm")
