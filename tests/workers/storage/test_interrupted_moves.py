"""A damaged object of a bucket is set aside by a copy and a removal: what comes between them makes neither two of one."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from ingest.contract.records import Place
from tests.support.buckets import names, opened_bucket, store_settings, url_of
from tests.support.fault_proxy import Action, FaultProxy
from tests.support.s3_servers import BUCKET, S3Server
from workers.errors import Unavailable
from workers.storage.bucket import Bucket
from workers.storage.damage import set_aside_if_damaged
from workers.storage.layout import Key, object_key
from workers.storage.object_store import ObjectStore

pytestmark = pytest.mark.real

KEY = object_key("1.2.3")
ROT = b"nobody can tell what this was"
SETTINGS = store_settings(request_timeout=1.0, retry_timeout=4.0, lease=3.0)


@pytest.fixture
def proxy(minio: S3Server, s3_credentials: None) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


def set_aside(store: ObjectStore) -> Key | None:
    return asyncio.run(set_aside_if_damaged(store, KEY, Place.STORED, "it is rotten"))


def let_a_second_pass(url: str) -> None:
    """Until the store's clock, which HTTP tells in seconds, says another one than that of the object."""
    bucket = Bucket(url_of(url), SETTINGS)
    found = bucket.head(str(KEY))
    assert found is not None
    for number in range(100_000):
        bucket.create(f"clock/{number}", [b"tick"])
        now = bucket.head(f"clock/{number}")
        bucket.remove(f"clock/{number}")
        assert now is not None
        if now.modified > found.modified:
            return


def areas(url: str, area: str) -> list[str]:
    return [name for name in names(url) if name.startswith(f"{area}/")]


def test_what_was_copied_and_not_removed_is_moved_once(proxy: FaultProxy) -> None:
    """No manifest names its upload, so that only its bytes tell: one record, one object in quarantine."""
    url = f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={proxy.endpoint}"
    with opened_bucket(url, SETTINGS) as store:
        assert asyncio.run(store.put_new(KEY, [ROT]))
        let_a_second_pass(url)
        proxy.fault(lambda request: request.method == "DELETE" and str(KEY) in request.path, Action.ERROR_503)
        with pytest.raises(Unavailable):
            set_aside(store)
    assert len(areas(url, "quarantine")) == 1
    proxy.heal()
    with opened_bucket(url, SETTINGS) as store:  # another process: the first was killed
        target = set_aside(store)
    assert areas(url, "quarantine") == [str(target)]
    assert len(areas(url, "moves")) == 1
    assert str(KEY) not in names(url)


def test_what_becomes_damaged_alike_again_is_another(proxy: FaultProxy) -> None:
    """It came after what was set aside before, and has a record and a place of its own."""
    url = f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={proxy.endpoint}"
    with opened_bucket(url, SETTINGS) as store:
        for number in (1, 2):
            assert asyncio.run(store.put_new(KEY, [ROT]))
            assert set_aside(store) is not None
            assert len(areas(url, "quarantine")) == len(areas(url, "moves")) == number
