"""Buckets opened for tests: with short times, and looked into behind the store's back."""

from collections.abc import Iterator
from contextlib import contextmanager

import obstore

from ingest.contract.settings import StoreSettings
from ingest.contract.store_urls import StoreUrl, parse_store_url
from workers.storage.bucket import Bucket
from workers.storage.bucket_root import BucketRoot
from workers.storage.bucket_store import BucketStore
from workers.storage.checksums import Checksums

KiB = 1024
MiB = 1024 * KiB


def store_settings(**changes: object) -> StoreSettings:
    """Settings with times for tests on a loaded machine: short where something is to run out."""
    times = {"request_timeout": 10.0, "retry_timeout": 20.0}
    return StoreSettings.model_validate(times | changes)


def url_of(text: str) -> StoreUrl:
    """A bucket's URL."""
    url = parse_store_url(text)
    assert isinstance(url, StoreUrl)
    return url


@contextmanager
def opened_bucket(
    text: str, settings: StoreSettings | None = None, *, checksums: bool = False
) -> Iterator[BucketStore]:
    """The bucket as a store of its own, without shard map and presence."""
    settings = settings or store_settings()
    bucket = Bucket(url_of(text), settings)
    store = BucketStore(
        bucket, "store-0", settings, checksums=Checksums(bucket, settings) if checksums else None
    )
    try:
        yield store
    finally:
        store.close()


def root_of_bucket(
    text: str, settings: StoreSettings | None = None, *, checksums: bool = False
) -> BucketRoot:
    """The bucket as a root."""
    return BucketRoot(url_of(text), settings or store_settings(), checksums=checksums)


def names(text: str, folder: str = "") -> list[str]:
    """All objects in a bucket, by name."""
    client = Bucket(url_of(text), store_settings())._client
    return sorted(meta["path"] for chunk in obstore.list(client, folder or None) for meta in chunk)


def content(text: str, name: str) -> bytes:
    """The bytes of an object."""
    return bytes(obstore.get(Bucket(url_of(text), store_settings())._client, name).bytes())
