"""A bucket as a store: each object created by one conditional PUT, or staged and given its name by one copy.

    SSS/..., conflicts/..., quarantine/..., moves/..., resolutions/...   as `layout` has them
    shard-map, store.json        the shard map, and which store this is
    staging/<shard>-<token>      an object above the limit of one PUT, on its way
    locks/<shard>, locks/...     leases, see `lease`
    presence/<token>             processes at work, see `bucket_root`
    probe/...                    see `probe`

An object is visible whole or not at all, because a PUT and a completed upload are. What is staged has a name
that nobody else uses; it gets the final one by a copy that the store refuses where the name is taken. What a
killed process leaves in ``staging/`` is swept by the next that opens the store, a day later by the store's own
clock; parts that were never completed are invisible, and go by the bucket's lifecycle rule.

What is known of stores, each tried by the project's tests or said by its documentation:

    store        conditional PUT     conditional copy              how it is known
    MinIO        create, replace     completing a copy in parts    one winner of 8 in each of 200 rounds of creates
                                                                   and of replacements, and of 100 of copies;
                                                                   conditions on CopyObject are ignored: it overwrites
    versitygw    create, replace     completing a copy in parts    the same, though its source checks before it acts
    AWS S3       create, replace     completing a copy in parts    its documentation; 409 while others write
    GCS, Azure   create, replace     copying                       their documentation and obstore's

Others must pass `probe` at each start of a worker, as these do. On S3 a staged object is at most 5 GiB, which is what
it copies at once; settings let receivers take none that is larger. A bucket that keeps old versions keeps one of each renewal of a lease, too: it needs a rule
that lets versions under ``locks/``, ``presence/`` and ``probe/`` go.
"""

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeVar

from ingest.contract.settings_base import GiB
from workers.dataset.payload import BLOCK, check_range
from workers.errors import Unavailable
from workers.storage.back_pressure import ByteBudget, Rest
from workers.storage.bucket import RETRY_AFTER, Bucket, Buffer, Head, Uploaded, always
from workers.storage.folder_reader import taken
from workers.storage.layout import Area, Key, shards
from workers.storage.lease import Lease
from workers.storage.object_store import Listed, Look, Pieces, Start
from workers.storage.pieces import gather, up_to
from workers.storage.removals import Removals

if TYPE_CHECKING:
    from ingest.contract.settings import StoreSettings
    from workers.storage.checksums import Checksums

P = ParamSpec("P")
R = TypeVar("R")

STAGING: Final = "staging"
LOCKS: Final = "locks"
_LEFT_AFTER: Final = timedelta(days=1)  # far beyond any upload
_IN_A_ROW: Final = 8  # objects read back before whoever asked may ask for something else
_WINDOW: Final = 4 * 1024 * 1024  # bytes that a reader in order asks for at a time
_LOCK_WITHIN: Final = 10.0  # seconds; then whoever wants it comes back, and others go on meanwhile
_LOCK_FIRST: Final = 0.02  # seconds between tries
_LOCK_EVERY: Final = 0.5
_SWAPS: Final = 8
MOST_COPIED_ON_S3: Final = 5 * GiB


class BucketStore:
    """See `ObjectStore`. All work is done in threads of its own, so one that hangs holds nobody else up."""

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        settings: "StoreSettings",
        permit: Callable[[], None] = always,
        checksums: "Checksums | None" = None,
    ) -> None:
        """``permit``: raises where we may no longer work with the store; ``checksums``: if asked for."""
        self.name: str = name
        self._bucket = bucket
        self._permit = permit
        self._checksums = checksums
        self._removals = Removals(bucket)
        self._limit = settings.single_put_limit
        self._largest = MOST_COPIED_ON_S3 if bucket.url.scheme == "s3" else None
        self._part = settings.part_size
        self._request = settings.request_timeout
        self._lease = max(settings.lease, 3 * settings.request_timeout)
        self._threads = ThreadPoolExecutor(settings.requests, thread_name_prefix=name)
        self._budget = ByteBudget(
            max(settings.bytes_in_flight, self._limit, 6 * self._part), settings.retry_timeout
        )
        self._rest = Rest()
        self._local: dict[str, asyncio.Lock] = {}  # in this process, one at a time asks for a shard's lease
        self._wanted: dict[str, Lease] = {}  # what we have seen of leases that others hold
        self._held: dict[str, Lease] = {}

    def close(self) -> None:
        """Start nothing more; what is on its way ends by itself."""
        self._bucket.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def refuse_at_rest(self) -> None:
        """See `ObjectStore.refuse_at_rest`."""
        self._rest.refuse()

    async def put_new(self, key: Key, pieces: Pieces) -> bool:
        """See `ObjectStore.put_new`. True also says that the bytes there are these, where the store was unsure."""
        return await self._off_loop(self._put_new, key, pieces)

    async def start(self, key: Key, length: int) -> Start | None:
        """See `ObjectStore.start`."""
        found = await self._off_loop(self._bucket.read, str(key), length)
        return None if found is None else Start(found[0], found[1].size)

    async def start_if_checked(self, key: Key, length: int) -> Start | None:
        """See `ObjectStore.start_if_checked`: what was put in parts is not, nor what others have put there."""
        return await self._off_loop(self._start_if_checked, key, length)

    async def read_back(self, keys: deque[Key], look: Look) -> None:
        """See `ObjectStore.read_back`: a few, so that a connection waits for no change of thread in between."""
        await self._off_loop(self._read_back, keys, look)

    async def sync(self) -> None:
        """See `ObjectStore.sync`: what a bucket shows is durable."""

    async def open(self, key: Key) -> "StoredObject | None":
        """See `ObjectStore.open`."""
        head = await self._off_loop(self._bucket.head, str(key))
        return None if head is None else StoredObject(self._bucket, head)

    async def find(self, area: Area, shard: str, below: str = "") -> list[Listed]:
        """See `ObjectStore.find`."""
        return await self._off_loop(self._find, area, shard, below)

    async def which(self, keys: Sequence[Key]) -> list[Key]:
        """See `ObjectStore.which`."""
        return await self._off_loop(self._which, keys)

    async def filled(self, area: Area) -> list[str]:
        """See `ObjectStore.filled`."""
        present = set(await self._off_loop(self._bucket.folders, str(area)))
        return [shard for shard in shards() if shard in present]

    async def move(self, source: Key, target: Key) -> bool:
        """See `ObjectStore.move`: a copy and a removal, which a kill may come between; again ends it."""
        return await self._off_loop(self._move, source, target, self._held.get(source.shard))

    async def has_begun_to_move(self, source: Key, target: Key) -> bool:
        """See `ObjectStore.has_begun_to_move`: a copy that is younger than what it is of."""
        return await self._off_loop(self._has_begun_to_move, source, target)

    async def replace(self, key: Key, pieces: Pieces) -> None:
        """See `ObjectStore.replace`: of exactly the content that was there, but for objects that are staged."""
        await self._off_loop(self._replace, key, pieces, self._held.get(key.shard))

    async def remove(self, key: Key) -> None:
        """See `ObjectStore.remove`."""
        await self._off_loop(self._remove, str(key), self._held.get(key.shard))

    @asynccontextmanager
    async def lock(self, shard: str) -> AsyncIterator[None]:
        """See `ObjectStore.lock`: a lease, renewed while it is held.

        Raises:
            Unavailable: another holds it, or held it when it was killed; come back.
        """
        local = self._local.setdefault(shard, asyncio.Lock())
        async with local:
            lease = await self._taken(shard)
            renewal = asyncio.create_task(self._renew(lease))
            self._held[shard] = lease
            try:
                yield
            finally:
                del self._held[shard]
                renewal.cancel()
                # `release` does not wait for long, and what is not given back runs out.
                with contextlib.suppress(Unavailable):
                    await self._off_loop(lease.release)

    def locate(self, key: Key) -> str:
        """See `ObjectStore.locate`: a URL."""
        return f"{self._bucket.url}/{key}"

    async def _taken(self, shard: str) -> Lease:
        lease = self._wanted.get(shard) or Lease(self._bucket, f"{LOCKS}/{shard}", self._lease, self._request)
        end = time.monotonic() + _LOCK_WITHIN
        pause = _LOCK_FIRST
        while not await self._off_loop(lease.try_take):
            self._wanted[shard] = lease  # so that a holder's silence is counted over all our tries
            if time.monotonic() > end:
                raise Unavailable("store: another works in the lane", RETRY_AFTER)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOCK_EVERY)
        self._wanted.pop(shard, None)
        return lease

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self._lease / 4)
            with contextlib.suppress(Exception):  # `check` tells, before what rests on it
                await self._off_loop(lease.renew)

    async def _off_loop(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run blocking work in a thread of this store's, unless the store is left alone for now."""
        self._permit()
        with self._rest.trial():
            loop = asyncio.get_running_loop()
            try:
                done = await loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))
            except OSError as error:  # of the bytes to be stored; the bucket's own are Unavailable already
                raise Unavailable(f"store: {error.strerror or type(error).__name__}", RETRY_AFTER) from error
        self._permit()  # a shard may have left the store while the request was on its way
        return done

    # What follows blocks.

    def sweep(self) -> int:
        """Remove what killed writers left in ``staging/``; the number of objects."""
        found = list(self._bucket.below(STAGING))
        if not found:
            return 0
        stamp = f"{STAGING}/now-{secrets.token_hex(8)}"
        self._bucket.create(stamp, [b""])
        now = self._bucket.head(stamp)
        self._bucket.remove(stamp)
        left = [head for head in found if now is not None and now.modified - head.modified > _LEFT_AFTER]
        for head in left:
            self._bucket.remove(head.name)
        return len(left)

    def _start_if_checked(self, key: Key, length: int) -> Start | None:
        if self._checksums is None or (found := self._bucket.read(str(key), length)) is None:
            return None
        data, head = found
        return Start(data, head.size) if self._checksums.has(head) else None

    def _read_back(self, keys: deque[Key], look: Look) -> None:
        for _ in range(_IN_A_ROW):
            if (key := taken(keys)) is None:
                return
            if (found := self._bucket.read(str(key), _WINDOW)) is not None:
                look(key, found[1].size, self._blocks(*found))

    def _blocks(self, first: bytes, head: Head) -> Iterator[memoryview]:
        """All bytes in order; most objects are smaller than a window, and their one request is done."""
        yield memoryview(first)
        with StoredObject(self._bucket, head) as rest:
            for offset in range(len(first), head.size, _WINDOW):
                yield rest.read(offset, min(_WINDOW, head.size - offset))

    def _put_new(self, key: Key, pieces: Pieces) -> bool:
        rest = iter(pieces)
        with self._budget.taken(self._limit) as budget:
            first = gather(rest, self._limit)
            if first.whole:
                budget.shrink(first.size)
                return self._bucket.create(str(key), first.buffers) is not None
        with self._staged(key, chain(first.buffers, rest)) as (staged, content):
            return self._bucket.copy_new(staged, str(key), content)

    def _replace(self, key: Key, pieces: Pieces, lease: Lease | None) -> None:
        rest = iter(pieces)
        with self._budget.taken(self._limit) as budget:
            first = gather(rest, self._limit)
            if first.whole:
                budget.shrink(first.size)
                with _relying_on(lease) as allow:
                    self._replace_small(str(key), first.buffers, allow)
                return
        with self._staged(key, chain(first.buffers, rest)) as (staged, content), _relying_on(lease) as allow:
            self._bucket.copy_over(staged, str(key), content.size, allow)

    def _replace_small(self, name: str, buffers: list[Buffer], allow: Callable[[], None]) -> None:
        for _ in range(_SWAPS):
            found = self._bucket.head(name)
            allow()  # between what was there and what is put in its place
            if found is None:
                done = self._bucket.create(name, buffers)
            else:
                done = self._bucket.swap(name, buffers, found.version)
            if done is not None:
                return
        raise Unavailable("store: an object changes while it is replaced", RETRY_AFTER)

    @contextlib.contextmanager
    def _staged(self, key: Key, pieces: Pieces) -> Iterator[tuple[str, Uploaded]]:
        """The bytes under a name of their own, whole, while in the context."""
        name = f"{STAGING}/{key.shard}-{secrets.token_hex(16)}"
        with self._budget.taken(6 * self._part):  # those on their way, one that fills, and the piece at hand
            content = self._bucket.upload(
                name, pieces if self._largest is None else up_to(self._largest, pieces)
            )
        try:
            yield name, content
        finally:
            with contextlib.suppress(Unavailable):  # the sweep's, then
                self._bucket.remove(name)

    def _move(self, source: Key, target: Key, lease: Lease | None) -> bool:
        head = self._bucket.head(str(source))
        if head is None:
            return False
        digest = self._bucket.digest(head)
        if digest is None or not self._bucket.copy_new(str(source), str(target), Uploaded(head.size, digest)):
            raise Unavailable("store: the key of an object that is set aside is taken", RETRY_AFTER)
        self._remove(str(source), lease)
        return True

    def _has_begun_to_move(self, source: Key, target: Key) -> bool:
        found, copy = self._bucket.head(str(source)), self._bucket.head(str(target))
        if found is None or copy is None or copy.size != found.size or copy.modified <= found.modified:
            return False
        digest = self._bucket.digest(found)
        return digest is not None and digest == self._bucket.digest(copy)

    def _remove(self, name: str, lease: Lease | None) -> None:
        with _relying_on(lease) as allow:
            self._removals.remove(name, allow)

    def _which(self, keys: Sequence[Key]) -> list[Key]:
        return [key for key in keys if self._bucket.head(str(key)) is not None]

    def _find(self, area: Area, shard: str, below: str) -> list[Listed]:
        folder = below.rpartition("/")[0]
        root = str(Key(area, shard, ""))
        return sorted(
            Listed(Key(area, shard, name), head.size)
            for head in self._bucket.below(f"{root}{folder}".rstrip("/"))
            if (name := head.name.removeprefix(root)).startswith(below)
        )


def _relying_on(lease: Lease | None) -> contextlib.AbstractContextManager[Callable[[], None]]:
    """What cannot be made conditional is done while the lease holds; nobody's is for what is alone anyway."""
    return contextlib.nullcontext(always) if lease is None else lease.relied_on()


class StoredObject:
    """An object opened for ranged reads, which block; always of the content that was opened."""

    def __init__(self, bucket: Bucket, head: Head) -> None:
        self.size: int = head.size
        self._bucket = bucket
        self._head = head
        self._window: tuple[int, memoryview] = (0, memoryview(b""))

    def read(self, offset: int, length: int) -> memoryview:
        """See `Payload.read`.

        Raises:
            Unavailable: the store, or the object has been replaced meanwhile.
        """
        check_range(offset, length, self.size)
        start, window = self._window
        if not start <= offset <= offset + length <= start + len(window):
            start, window = offset, self._fetched(offset, max(length, min(_WINDOW, self.size - offset)))
            self._window = start, window
        return window[offset - start : offset - start + length]

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        """See `Payload.blocks`."""
        for offset in range(0, self.size, size):
            yield self.read(offset, min(size, self.size - offset))

    def close(self) -> None:
        """Let go of what was read; may be called again."""
        self._window = (0, memoryview(b""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fetched(self, offset: int, length: int) -> memoryview:
        if not length:
            return memoryview(b"")
        data = self._bucket.read_range(self._head.name, offset, length, self._head.version)
        if data is None:
            raise Unavailable("store: an object was replaced or removed while it was read", RETRY_AFTER)
        return memoryview(data)
