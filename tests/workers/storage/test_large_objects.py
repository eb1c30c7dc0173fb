"""Objects that a bucket copies to their place: copying takes its time, and S3 copies 5 GiB at once."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from tests.support.buckets import MiB, content, names, opened_bucket, store_settings
from tests.support.fault_proxy import Action, FaultProxy, Request
from tests.support.s3_servers import BUCKET, S3Server
from workers.errors import Unavailable
from workers.storage import bucket_store
from workers.storage.bucket import Silent
from workers.storage.layout import object_key

pytestmark = pytest.mark.real

KEY = object_key("1.2.3")
WHOLE = [bytes([number]) * MiB for number in range(64)]
# The proxy's LATE is longer than a request may take, and shorter than a copy of this size may.
SETTINGS = store_settings(request_timeout=0.7, lease=3.0, single_put_limit=2 * MiB, part_size=5 * MiB)


def copies(request: Request) -> bool:
    return "x-amz-copy-source" in request.headers


@pytest.fixture
def proxy(minio: S3Server, s3_credentials: None) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


def test_a_copy_may_take_longer_than_a_request(proxy: FaultProxy) -> None:
    """A store copies gigabytes in minutes: given up after the time of one request, they would wait for ever."""
    url = f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={proxy.endpoint}"
    proxy.fault(copies, Action.LATE)
    with opened_bucket(url, SETTINGS) as store:
        assert asyncio.run(store.put_new(KEY, WHOLE)) is True
        assert content(url, str(KEY)) == b"".join(WHOLE)
        asyncio.run(store.replace(KEY, reversed(WHOLE)))
    assert content(url, str(KEY)) == b"".join(reversed(WHOLE))
    assert names(url) == [str(KEY)]


def test_what_s3_cannot_put_in_its_place_is_told(minio_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits, with a reason that says so, for long between two tries; and the store goes on for all others."""
    monkeypatch.setattr(bucket_store, "MOST_COPIED_ON_S3", 20 * MiB)
    with opened_bucket(minio_url, SETTINGS) as store:
        for put in (store.put_new, store.replace):
            with pytest.raises(Unavailable, match="larger than S3 can put in its place") as told:
                asyncio.run(put(KEY, WHOLE))
            assert told.value.retry_after > 600
            assert not isinstance(told.value, Silent)
        assert names(minio_url) == []
        store.refuse_at_rest()
        assert asyncio.run(store.put_new(KEY, WHOLE[:19])) is True
