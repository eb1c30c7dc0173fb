"""A bucket as a place of a store: records are objects, and leases say who is at work.

    presence/<token>   one for each process at work
    locks/stores       of the one that changes the map

A process first announces its presence and then looks at ``locks/stores``; whoever changes the map takes that
first and then looks for presences. A bucket shows every write to the next read, so of two that begin at the
same time at least one sees the other and steps back.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ingest.contract.settings import StoreSettings
from ingest.contract.store_urls import StoreUrl
from workers.errors import Unavailable
from workers.storage.bucket import Bucket
from workers.storage.bucket_store import BucketStore
from workers.storage.layout import Area, shards
from workers.storage.lease import Lease, expire
from workers.storage.probe import probe, probe_checksums
from workers.storage.root import IN_USE, SHARD, Size, changed_by
from workers.storage.shard_map import WrongStores

if TYPE_CHECKING:
    from workers.storage.checksums import Checksums

_MAXIMUM: Final = 1024 * 1024  # bytes of a record
_CHANGING: Final = "locks/stores"
_PRESENCES: Final = "presence"
_LOOK_EVERY: Final = 0.25  # seconds


class BucketRoot:
    """See `Root`: a bucket, or a prefix in one."""

    def __init__(self, url: StoreUrl, settings: StoreSettings, *, checksums: bool = False) -> None:
        """``settings``: times and sizes; ``checksums``: it is to return those that it checked, see `checksums`.

        Raises:
            WrongStores: obstore does not take the URL, or boto3 is missing.
        """
        self.url = url
        self._settings = settings
        self._lease: Lease | None = None  # by which we are in it
        try:
            self._bucket = Bucket(url, settings)
            self._checksums = _checksums(self._bucket, settings) if checksums else None
        except ValueError as error:
            raise WrongStores(f"{url} cannot be a store: {error}") from None

    def __str__(self) -> str:
        return str(self.url)

    @property
    def place(self) -> str:
        """See `Root.place`."""
        return f"{self.url.endpoint or self._settings.endpoint} {self.url}"

    def there(self) -> bool:
        """See `Root.there`: an administrator makes buckets, we do not.

        Raises:
            Unavailable: it cannot be reached, does not exist, or is not for us.
        """
        with self._named():
            self._bucket.folders(_PRESENCES)
        return True

    def make(self) -> None:
        """See `Root.make`."""

    def read(self, name: str) -> bytes | None:
        """See `Root.read`."""
        with self._named():
            found = self._bucket.read(name, _MAXIMUM)
        return None if found is None else found[0]

    def replace(self, name: str, data: bytes) -> None:
        """See `Root.replace`."""
        with self._named():
            if self._lease is not None:
                self._lease.check()
            found = self._bucket.head(name)
            if found is None:
                done = self._bucket.create(name, [data])
            else:
                done = self._bucket.swap(name, [data], found.version)
        if done is None:
            raise WrongStores(f"{self} was changed by another process at the same time")

    def remove(self, name: str) -> None:
        """See `Root.remove`."""
        with self._named():
            self._bucket.remove(name)

    def holds_objects(self) -> bool:
        """See `Root.holds_objects`."""
        with self._named():
            ours = {*(str(area) for area in Area if area), *shards()} & set(self._bucket.folders(""))
            return any(True for folder in ours for _ in self._bucket.below(folder))

    @contextlib.contextmanager
    def forming(self) -> Iterator[None]:
        """See `Root.forming`."""
        lease = self._new_lease("locks/forming")
        with self._named():
            while not lease.try_take():
                time.sleep(_LOOK_EVERY)
        with lease.renewed():
            try:
                yield
            finally:
                lease.release()

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """See `Root.shared`."""
        presence = self._new_lease(f"{_PRESENCES}/{secrets.token_hex(16)}")
        with self._named():
            presence.try_take()
            try:
                self._wait_for_changes()
            except BaseException:
                presence.remove()
                raise
        with self._renewing(presence):
            try:
                yield
            finally:
                presence.remove()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """See `Root.alone`; where a process was killed, that takes as long as its lease."""
        changing = self._new_lease(_CHANGING)
        with self._named():
            self._take(changing)
        with self._renewing(changing):
            try:
                with self._named():
                    self._expire_presences()
                yield
            finally:
                changing.release()

    def probe(self) -> None:
        """See `Root.probe`."""
        with self._named():
            probe(self._bucket)
            if self._checksums is not None:
                probe_checksums(self._bucket, self._checksums)

    def open(self, name: str) -> BucketStore:
        """See `Root.open`."""
        assert self._lease is not None
        return BucketStore(self._bucket, name, self._settings, self._lease.check, self._checksums)

    def records(self, area: Area) -> Iterator[tuple[str, bytes]]:
        """See `Root.records`."""
        with self._named():
            for head in self._bucket.below(str(area)):
                found = self._bucket.read(head.name, _MAXIMUM)
                if found is not None:
                    yield f"{self}/{head.name}", found[0]

    def sizes(self) -> Iterator[Size]:
        """See `Root.sizes`; a request for each thousand objects."""
        with self._named():
            for shard in self._bucket.folders(""):
                if SHARD.match(shard):
                    yield from (Size(shard, head.size) for head in self._bucket.below(shard))

    def close(self) -> None:
        """See `Root.close`."""
        self._bucket.close()

    def _new_lease(self, name: str) -> Lease:
        settings = self._settings
        lease = max(settings.lease, 3 * settings.request_timeout)
        return Lease(self._bucket, name, lease, settings.request_timeout)

    @contextlib.contextmanager
    def _renewing(self, lease: Lease) -> Iterator[None]:
        self._lease = lease
        try:
            with lease.renewed():
                yield
        finally:
            self._lease = None

    def _wait_for_changes(self) -> None:
        """Return when nobody changes the map; whoever was killed while it did is waited for, not one at work.

        Raises:
            WrongStores: somebody is at it.
        """
        changing = self._new_lease(_CHANGING)
        while not changing.try_clear():
            self._wait_for(changing)

    def _take(self, changing: Lease) -> None:
        while not changing.try_take():
            self._wait_for(changing)

    def _wait_for(self, changing: Lease) -> None:
        """Wait for one that may have died."""
        if changing.changes:
            raise WrongStores(f"{self} {changed_by(changing.holder_name)}")
        time.sleep(_LOOK_EVERY)

    def _expire_presences(self) -> None:
        """Return when nobody else is present.

        Raises:
            WrongStores: somebody is.
        """
        assert self._lease is not None
        first = {head.name: head.version for head in self._bucket.below(_PRESENCES)}
        end = time.monotonic() + self._lease.seconds
        left = dict(first)
        while left:
            now = {head.name: head.version for head in self._bucket.below(_PRESENCES)}
            if any(first.get(name) != version for name, version in now.items()):
                raise WrongStores(f"{self} {IN_USE}")
            left = {name: version for name, version in left.items() if name in now}
            if time.monotonic() > end:
                break
            time.sleep(_LOOK_EVERY)
        for name, version in left.items():
            if not expire(self._bucket, name, version):
                raise WrongStores(f"{self} {IN_USE}")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Say which of several stores it is that does not serve."""
        try:
            yield
        except Unavailable as error:
            raise Unavailable(f"{self}: {str(error).removeprefix('store: ')}", error.retry_after) from None


def _checksums(bucket: Bucket, settings: StoreSettings) -> "Checksums":
    """Those of the bucket.

    Raises:
        ValueError: boto3 is missing, or does not take the URL.
    """
    try:
        from workers.storage.checksums import Checksums  # noqa: PLC0415 - other policies need no boto3
    except ImportError:
        raise ValueError("checksums are read by boto3: pip install 'dicom-ingest[s3-checksum]'") from None
    return Checksums(bucket, settings)
