"""A folder as a store: ``ROOT/<key>``, each object created by one link(2) of a complete, synced file.

An object is written to a file without a name (see `unnamed_file`), synced, linked to its name, and its folder
synced; so nothing incomplete ever has a name. Never O_EXCL on the final name: that would show an object before its
bytes.

Whoever finds an object syncs file and folder before it counts: the one that linked it may have died before
its own sync. Once, that is: see `durable_files`.
"""

import asyncio
import contextlib
import os
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from workers.dataset.payload import FilePayload
from workers.errors import BAD_PLACE, BadPlace, Unavailable
from workers.storage.durable_files import DurableFiles
from workers.storage.folder_reader import FolderReader
from workers.storage.folders import FOLDER, RETRY_AFTER, Folders, try_lock
from workers.storage.layout import Area, Key, shards
from workers.storage.object_store import Listed, Look, Pieces, Start
from workers.storage.unnamed_file import UnnamedFiles
from workers.threads import to_end

P = ParamSpec("P")
R = TypeVar("R")

_LOCK_EVERY: Final = 0.01  # seconds between tries


class DirectoryStore:
    """See `ObjectStore`. All work is done off the event loop, one hop a call."""

    def __init__(self, root: Path, name: str) -> None:
        """``root``: an existing folder, which is held open.

        Raises:
            OSError: it is not there.
        """
        self.name: str = name
        self.root: Path = root
        self._folders = Folders(root)
        self._reader = FolderReader(self._folders.root)
        self._files = UnnamedFiles(self._folders)
        self._durable = DurableFiles()

    def close(self) -> None:
        """Give the folder back; may be called again."""
        self._folders.close()

    def refuse_at_rest(self) -> None:
        """See `ObjectStore.refuse_at_rest`: a folder answers."""

    async def put_new(self, key: Key, pieces: Pieces) -> bool:
        """See `ObjectStore.put_new`."""
        return await _off_loop(self._put_new, key, pieces)

    async def start(self, key: Key, length: int) -> Start | None:
        """See `ObjectStore.start`."""
        return await _off_loop(self._start, key, length)

    async def start_if_checked(self, key: Key, length: int) -> Start | None:
        """See `ObjectStore.start_if_checked`: a folder checks nothing."""
        del key, length
        return None

    async def read_back(self, keys: deque[Key], look: Look) -> None:
        """See `ObjectStore.read_back`."""
        await _off_loop(self._reader.run, keys, look)

    async def sync(self) -> None:
        """See `ObjectStore.sync`."""
        await _off_loop(self._reader.sync)

    async def open(self, key: Key) -> FilePayload | None:
        """See `ObjectStore.open`."""
        return await _off_loop(self._open, key)

    async def find(self, area: Area, shard: str, below: str = "") -> list[Listed]:
        """See `ObjectStore.find`."""
        return await _off_loop(self._find, area, shard, below)

    async def which(self, keys: Sequence[Key]) -> list[Key]:
        """See `ObjectStore.which`."""
        return await _off_loop(self._which, keys)

    async def filled(self, area: Area) -> list[str]:
        """See `ObjectStore.filled`."""
        return await _off_loop(self._filled, area)

    async def move(self, source: Key, target: Key) -> bool:
        """See `ObjectStore.move`."""
        return await _off_loop(self._move, source, target)

    async def has_begun_to_move(self, source: Key, target: Key) -> bool:
        """See `ObjectStore.has_begun_to_move`: rename(2) leaves nothing."""
        del source, target
        return False

    async def replace(self, key: Key, pieces: Pieces) -> None:
        """See `ObjectStore.replace`."""
        await _off_loop(self._replace, key, pieces)

    async def remove(self, key: Key) -> None:
        """See `ObjectStore.remove`."""
        await _off_loop(self._remove, key)

    @asynccontextmanager
    async def lock(self, shard: str) -> AsyncIterator[None]:
        """See `ObjectStore.lock`: flock(2) on the shard's folder, which the kernel frees if we die."""
        with contextlib.ExitStack() as held:
            descriptor = await _off_loop(self._open_shard, shard, held)
            # Waiting in a thread would hold one that the holder of the lock may need.
            while not try_lock(descriptor):  # noqa: ASYNC110 - another process holds it, and sets no Event
                await asyncio.sleep(_LOCK_EVERY)
            yield

    def locate(self, key: Key) -> str:
        """See `ObjectStore.locate`: a path."""
        return str(self.root / str(key))

    def sweep(self) -> int:
        """Remove what killed writers left in ``ROOT/tmp``; the number of files.

        Raises:
            OSError: the file system's.
        """
        return self._files.sweep()

    # What follows blocks.

    def _open_shard(self, shard: str, held: contextlib.ExitStack) -> int:
        """The shard's folder, closed with ``held``, also where nobody waits for it any more."""
        descriptor, _ = self._open_folder(Key(Area.OBJECTS, shard, ""))
        held.callback(os.close, descriptor)
        return descriptor

    def _put_new(self, key: Key, pieces: Pieces) -> bool:
        if self._sync_found(key):  # spares the write; the link decides all the same
            return False
        folder, name = self._open_folder(key)
        try:
            with self._files.written(folder, pieces) as source:
                try:
                    os.link(source, name, dst_dir_fd=folder)
                except FileExistsError:
                    created = False
                else:
                    created = True
            if created:
                status = os.stat(name, dir_fd=folder)
                os.fsync(folder)
                self._durable.add(status)
                return True
        finally:
            os.close(folder)
        if not self._sync_found(key):
            raise Unavailable("an object was removed while it was written anew", RETRY_AFTER)
        return False

    def _replace(self, key: Key, pieces: Pieces) -> None:
        folder, name = self._open_folder(key)
        try:
            temporary = self._files.open_temporary()
            try:
                beside = secrets.token_hex(16)
                with self._files.written(folder, pieces) as source:
                    os.link(source, beside, dst_dir_fd=temporary)
                try:
                    os.rename(beside, name, src_dir_fd=temporary, dst_dir_fd=folder)
                except OSError:
                    os.unlink(beside, dir_fd=temporary)
                    raise
            finally:
                os.close(temporary)
            os.fsync(folder)
        finally:
            os.close(folder)

    def _start(self, key: Key, length: int) -> Start | None:
        descriptor = self._open_found(key)
        if descriptor is None:
            return None
        try:
            size = os.fstat(descriptor).st_size
            # No more than there is: a buffer for the whole length, mostly unused, takes longer than the read.
            return Start(os.pread(descriptor, min(length, size), 0), size)
        except OSError as error:
            if error.errno in BAD_PLACE:
                raise BadPlace(f"cannot be read: {error.strerror}", RETRY_AFTER) from None
            raise
        finally:
            os.close(descriptor)

    def _open(self, key: Key) -> FilePayload | None:
        try:
            return FilePayload(os.open(str(key), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folders.root))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _sync_found(self, key: Key) -> bool:
        descriptor = self._open_found(key)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def _open_found(self, key: Key) -> int | None:
        """Open what is under a key, durable with the folders above; None where there is nothing."""
        try:
            descriptor = os.open(str(key), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folders.root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            self._make_durable(descriptor, key)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make_durable(self, descriptor: int, key: Key) -> None:
        status = os.fstat(descriptor)
        if status in self._durable:
            return
        os.fsync(descriptor)
        folder, _ = self._open_folder(key)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._durable.add(status)

    def _which(self, keys: Sequence[Key]) -> list[Key]:
        return [key for key in keys if self._is_taken(key)]

    def _is_taken(self, key: Key) -> bool:
        try:
            os.stat(str(key), dir_fd=self._folders.root)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _find(self, area: Area, shard: str, below: str) -> list[Listed]:
        folder, slash, _ = below.rpartition("/")
        return sorted(
            Listed(Key(area, shard, name), size)
            for name, size in self._walk(f"{Key(area, shard, folder)}".rstrip("/"), folder + slash)
            if name.startswith(below)
        )

    def _walk(self, path: str, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            folder = os.open(path, FOLDER, dir_fd=self._folders.root)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._walk(f"{path}/{entry.name}", f"{prefix}{entry.name}/")
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        yield prefix + entry.name, entry.stat(follow_symlinks=False).st_size
        finally:
            os.close(folder)

    def _filled(self, area: Area) -> list[str]:
        folder = self._folders.open_existing(str(area) or ".")
        if folder is None:
            return []
        try:
            present = set(os.listdir(folder))  # noqa: PTH208 - of a descriptor
        finally:
            os.close(folder)
        return [shard for shard in shards() if shard in present]

    def _move(self, source: Key, target: Key) -> bool:
        origin, origin_name = self._open_folder(source)
        try:
            folder, name = self._open_folder(target)
            try:
                if self._sync_found(target):
                    raise Unavailable("an object is where another is to be set aside", RETRY_AFTER)
                os.rename(origin_name, name, src_dir_fd=origin, dst_dir_fd=folder)
                os.fsync(folder)
            except FileNotFoundError:
                return False
            finally:
                os.close(folder)
            os.fsync(origin)
        finally:
            os.close(origin)
        return True

    def _remove(self, key: Key) -> None:
        try:
            os.unlink(str(key), dir_fd=self._folders.root)
        except (FileNotFoundError, NotADirectoryError):
            return
        path = os.path.dirname(str(key))  # noqa: PTH120 - relative to a descriptor, which Path has no word for
        self._folders.sync(path)
        if "/" in key.name:  # a UID's folder in a lane; the shard's stays
            with contextlib.suppress(OSError):
                os.rmdir(path, dir_fd=self._folders.root)

    def _open_folder(self, key: Key) -> tuple[int, str]:
        """The folder of a key, made and durable where it was missing, and the name in it."""
        path, _, name = str(key).rpartition("/")
        return self._folders.open(path), name


async def _off_loop(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in a thread, to its end; what the file system refuses is `Unavailable`.

    Whoever is cancelled may hold a lock: given back while the thread still moves, it would let another in beside it.
    """
    try:
        return await to_end(work, *args, **kwargs)
    except OSError as error:
        # strerror alone: the path holds a UID.
        raise Unavailable(f"store: {error.strerror or type(error).__name__}", RETRY_AFTER) from error
