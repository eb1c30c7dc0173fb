"""A removal that was given up and arrives late takes nothing that has the name by then."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from tests.support.buckets import content, names, opened_bucket, store_settings
from tests.support.fault_proxy import Action, FaultProxy, Request
from tests.support.s3_servers import BUCKET, S3Server
from tests.support.waiting import until
from workers.errors import Unavailable
from workers.storage import removals
from workers.storage.bucket_store import BucketStore
from workers.storage.layout import object_key, quarantine_key

pytestmark = pytest.mark.real

KEY, ASIDE = object_key("1.2.3"), quarantine_key("1.2.3", "a" * 64)
SETTINGS = store_settings(request_timeout=0.7, retry_timeout=4.0, lease=3.0)


@pytest.fixture
def proxy(minio: S3Server, s3_credentials: None) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


@pytest.fixture
def url(proxy: FaultProxy) -> str:
    return f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={proxy.endpoint}"


def removes(request: Request) -> bool:
    return request.method == "DELETE" and request.path.endswith(str(KEY))


async def moved(store: BucketStore) -> bool:
    async with store.lock(KEY.shard):
        return await store.move(KEY, ASIDE)


def serve(store: BucketStore) -> None:
    """As if the time were over for which a silent store is left alone."""
    store._rest._until = 0.0


def test_a_removal_that_arrives_late_takes_no_new_object(proxy: FaultProxy, url: str) -> None:
    """Its packets were lost for a while: until it is known what became of it, there is no other, and the name is not free."""
    proxy.fault(removes, Action.HELD, 1)
    with opened_bucket(url, SETTINGS) as store:
        assert asyncio.run(store.put_new(KEY, [b"damaged"]))
        with pytest.raises(Unavailable):
            asyncio.run(moved(store))
        serve(store)
        assert asyncio.run(store.put_new(KEY, [b"a good copy"])) is False
        proxy.heal()
        until(lambda: str(KEY) not in names(url))
        serve(store)
        assert asyncio.run(moved(store)) is False, "it has been"
        assert asyncio.run(store.put_new(KEY, [b"a good copy"])) is True
    assert content(url, str(KEY)) == b"a good copy"
    assert content(url, str(ASIDE)) == b"damaged"
    assert [action for request, action in proxy.requests if removes(request)] == [Action.HELD]


def test_a_removal_that_never_arrives_is_made_again(
    proxy: FaultProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it can be on its way no more."""
    monkeypatch.setattr(removals, "STRAY", 1.0)
    proxy.fault(removes, Action.HANG, 1)
    with opened_bucket(url, SETTINGS) as store:
        assert asyncio.run(store.put_new(KEY, [b"damaged"]))
        assert asyncio.run(moved(store)) is True
    assert str(KEY) not in names(url)
