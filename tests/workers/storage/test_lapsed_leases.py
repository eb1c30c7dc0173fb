"""What is still on its way to a bucket when its lease has run out: it changes nothing, and counts for nothing."""

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.buckets import MiB, content, names, opened_bucket, root_of_bucket, store_settings, url_of
from tests.support.fault_proxy import Action, FaultProxy, Request, everything, puts_of
from tests.support.s3_servers import BUCKET, S3Server
from workers.errors import Unavailable
from workers.storage.bucket import Bucket
from workers.storage.layout import Key, object_key
from workers.storage.lease import Lease
from workers.storage.object_store import ObjectStore
from workers.storage.rebalance import add_store, rebalance
from workers.storage.shard_map import WrongStores, even_plan, read_map
from workers.storage.stores import open_stores

pytestmark = pytest.mark.real

KEY = object_key("1.2.3")
SETTINGS = store_settings(lease=3.0, request_timeout=1.0, single_put_limit=2 * MiB, part_size=5 * MiB)


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def sound(minio: S3Server, s3_credentials: None, prefix: str) -> str:
    return minio.url(prefix)


@pytest.fixture
def proxy(minio: S3Server, s3_credentials: None) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


@pytest.fixture
def faulty(proxy: FaultProxy, prefix: str) -> str:
    return f"s3://{BUCKET}/{prefix}?endpoint={proxy.endpoint}"


class Seen:
    """Matches all requests but those of what is staged, and tells of the first to an object."""

    def __init__(self, key: Key) -> None:
        self.key = str(key)
        self.event = threading.Event()

    def __call__(self, request: Request) -> bool:
        if self.key in request.path:
            self.event.set()
        return "/staging/" not in request.path


CHANGES: dict[str, Callable[[ObjectStore], Awaitable[None]]] = {
    "remove": lambda store: store.remove(KEY),
    "replace": lambda store: store.replace(KEY, [b"what was decided before"]),
    "replace-large": lambda store: store.replace(KEY, [bytes(MiB)] * 7),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_not_repeated_under_a_lease_that_is_anothers(
    proxy: FaultProxy, faulty: str, sound: str, change: str
) -> None:
    """One is cut off from the store, and another takes the lane over: what that one stores stays."""
    seen = Seen(KEY)

    async def cut_off() -> None:
        with opened_bucket(faulty, SETTINGS) as store:
            await store.put_new(KEY, [b"damaged"])
            async with store.lock(KEY.shard):
                proxy.fault(seen, Action.ERROR_503)
                with pytest.raises(Unavailable):
                    await CHANGES[change](store)

    async def take_over() -> None:
        with opened_bucket(sound, SETTINGS) as store:
            async with store.lock(KEY.shard):
                await store.remove(KEY)
                assert await store.put_new(KEY, [b"the good copy"])

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(asyncio.run, cut_off())
        assert seen.event.wait(60)
        asyncio.run(take_over())
        proxy.heal()
        other.result(60)
    assert content(sound, str(KEY)) == b"the good copy"


def test_what_comes_to_a_store_that_its_shard_has_left_is_not_stored(
    proxy: FaultProxy, faulty: str, sound: str, minio: S3Server
) -> None:
    """A worker that is cut off while `shards rebalance` runs: its upload waits, and is not counted where nobody looks."""
    with open_stores([url_of(sound)], SETTINGS):
        pass
    second = minio.url(secrets.token_hex(8))
    key = _key_that_moves(sound)
    seen = Seen(key)

    async def cut_off() -> None:
        with open_stores([url_of(faulty)], SETTINGS) as stores:
            proxy.fault(seen, Action.ERROR_503)
            with pytest.raises((Unavailable, WrongStores)):
                await stores.of(key).put_new(key, [b"an image"])

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(asyncio.run, cut_off())
        assert seen.event.wait(60)
        add_store([url_of(sound)], url_of(second), SETTINGS)
        asyncio.run(rebalance([url_of(sound), url_of(second)], SETTINGS))
        proxy.heal()
        other.result(60)


def _key_that_moves(url: str) -> Key:
    """One of a shard that a second store gets."""
    shard_map = read_map(root_of_bucket(url))
    assert shard_map is not None
    plan = even_plan(shard_map.with_store("store-1", 2))
    keys = (object_key(f"1.2.{number}") for number in range(100))
    return next(key for key in keys if key.shard in plan)


def test_a_replacement_whose_bytes_have_gone_is_not_done(proxy: FaultProxy, faulty: str, sound: str) -> None:
    """As when a rule of the bucket removes what is staged: nobody may remove another copy after that."""
    with opened_bucket(faulty, SETTINGS) as store:
        asyncio.run(store.put_new(KEY, [b"before"]))
        proxy.fault(lambda request: "x-amz-copy-source" in request.headers, Action.MISSING_404)
        with pytest.raises(Unavailable):
            asyncio.run(store.replace(KEY, [bytes(MiB)] * 7))
    assert content(sound, str(KEY)) == b"before"


def test_a_lease_whose_renewal_was_not_answered_is_still_ours(
    proxy: FaultProxy, faulty: str, sound: str
) -> None:
    """The store had it before it fell silent."""
    settings = store_settings(request_timeout=0.7, retry_timeout=2.0)
    lease = Lease(Bucket(url_of(faulty), settings), "presence/x", 60.0, 1.0)
    assert lease.try_take()
    proxy.fault(puts_of("presence/x"), Action.STORE_SILENCE, 1)
    proxy.fault(everything, Action.ERROR_503)
    with pytest.raises(Unavailable):
        lease.renew()
    proxy.heal()
    lease.renew()
    lease.check()
    assert names(sound) == ["presence/x"]
