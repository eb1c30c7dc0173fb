"""What others put into a bucket: empty objects for folders, as consoles make them, and names that are none."""

import asyncio
from pathlib import Path

import boto3
import pytest

from tests.support.buckets import names, root_of_bucket, store_settings, url_of
from workers.errors import Unavailable
from workers.storage.bucket import Silent
from workers.storage.layout import Area, object_key, shards
from workers.storage.rebalance import add_store, rebalance
from workers.storage.roots import roots_of
from workers.storage.stores import changing, open_stores

pytestmark = pytest.mark.real

SETTINGS = store_settings(lease=60.0)
SHARD = shards()[0]  # which the second store gets
KEYS = sorted([key for number in range(20_000) if (key := object_key(f"1.2.{number}")).shard == SHARD][:2])


def mark(url: str, *folders: str) -> None:
    """Make folders as a console does."""
    place = url_of(url)
    client = boto3.client("s3", endpoint_url=place.endpoint, region_name="us-east-1")
    for folder in folders:
        client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/{folder}/", Body=b"")


def test_a_bucket_with_folders_only_is_new(bucket_url: str) -> None:
    """Nothing is in it that a shard map could be missing for."""
    mark(bucket_url, SHARD, "conflicts", f"quarantine/{SHARD}", "presence", "locks", "staging")
    with open_stores([url_of(bucket_url)], SETTINGS) as stores:
        assert list(stores.map.stores) == ["store-0"]


def test_an_empty_object_is_one(bucket_url: str) -> None:
    """It may be what is left of an image: it is listed, found and held for something."""
    with open_stores([url_of(bucket_url)], SETTINGS) as stores:
        store = stores.of(SHARD)
        asyncio.run(store.put_new(KEYS[0], [b""]))
        mark(bucket_url, SHARD)
        assert [listed.key for listed in asyncio.run(store.find(Area.OBJECTS, SHARD))] == [KEYS[0]]
    assert root_of_bucket(bucket_url, SETTINGS).holds_objects()


def test_a_name_that_cannot_be_listed_is_told_and_costs_nobody_else(bucket_url: str) -> None:
    """A store that serves all else is not taken for one that is down."""
    place = url_of(bucket_url)
    client = boto3.client("s3", endpoint_url=place.endpoint, region_name="us-east-1")
    with open_stores([place], SETTINGS) as stores:
        client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/{SHARD}/two\nlines", Body=b"?")
        store = stores.of(SHARD)
        with pytest.raises(Unavailable, match="a name that cannot be read: remove that object") as told:
            asyncio.run(store.find(Area.OBJECTS, SHARD))
        assert not isinstance(told.value, Silent)
        assert asyncio.run(store.put_new(KEYS[0], [b"served"]))


def test_folders_keep_nobody_from_the_stores(bucket_url: str) -> None:
    """A folder of presences is nobody's presence, and a shard is moved with its objects alone."""
    urls = [bucket_url.replace("?", f"/{name}?") for name in "ab"]
    places = [url_of(url) for url in urls]
    with open_stores(places[:1], SETTINGS) as stores:
        for key in KEYS:
            assert asyncio.run(stores.of(key).put_new(key, [str(key).encode()]))
    for url in urls:
        mark(url, "presence", SHARD, f"{SHARD}/folder", "moves", f"moves/{SHARD}", "staging")
    with changing(roots_of(places[:1], SETTINGS)):
        pass
    assert [size.size for size in root_of_bucket(urls[0]).sizes()] == [len(str(key)) for key in KEYS]
    add_store(places[:1], places[1], SETTINGS)
    assert asyncio.run(rebalance(places, SETTINGS)) == 2048
    assert [name for name in names(urls[1]) if name.endswith(".dcm")] == sorted(map(str, KEYS))


def test_a_name_that_no_bucket_can_have_is_told(minio_url: str, tmp_path: Path) -> None:
    """A file of Latin-1 in a folder whose shards move to a bucket: it stays, and is named."""
    places = tmp_path, url_of(minio_url)
    with open_stores(places[:1], SETTINGS) as stores:
        assert asyncio.run(stores.of(KEYS[0]).put_new(KEYS[0], [b"ours"]))
    (tmp_path / SHARD / "Caf\udce9.dcm").write_bytes(b"somebody's")
    add_store(places[:1], places[1], SETTINGS)
    with pytest.raises(Unavailable, match=r"Caf\\udce9.dcm' cannot be copied to store-1"):
        asyncio.run(rebalance(places, SETTINGS))
    (tmp_path / SHARD / "Caf\udce9.dcm").unlink()
    assert asyncio.run(rebalance(places, SETTINGS)) == 1
    assert str(KEYS[0]) in names(minio_url)
