"""Shard map, presence and rebalance with stores that are buckets, alone and beside folders."""

import asyncio
import contextlib
import datetime as dt
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.contract.settings import StoreSettings
from ingest.contract.store_urls import StoreUrl
from tests.support.buckets import content, names, root_of_bucket, store_settings, url_of
from tests.support.fault_proxy import Action, FaultProxy, everything, gets_of, puts_of
from tests.support.s3_servers import S3Server
from workers.errors import Unavailable
from workers.storage import bucket_store
from workers.storage.absent import AbsentStore
from workers.storage.bucket_root import BucketRoot
from workers.storage.layout import Area, object_key
from workers.storage.lease import LeaseLost
from workers.storage.object_store import ObjectStore
from workers.storage.rebalance import add_store, rebalance, shard_counts
from workers.storage.roots import roots_of
from workers.storage.shard_map import MAP_FILE, STORE_FILE, WrongStores, read_map, write_map
from workers.storage.stores import Stores, changing, open_stores

pytestmark = pytest.mark.real

SETTINGS = store_settings(lease=3.0, request_timeout=1.0)  # where somebody is killed
DEAD = store_settings(lease=60.0, request_timeout=3.0, retry_timeout=4.0)  # where a store does not answer
LASTING = store_settings(lease=60.0)  # else: work may be slow

HOLDER = """
import sys, time
from ingest.contract.settings import StoreSettings
from ingest.contract.store_urls import parse_store_url
from workers.storage.stores import changing, open_stores
from workers.storage.roots import roots_of
settings = StoreSettings(lease=float(sys.argv[2]), request_timeout=1.0, retry_timeout=20.0)
places = [parse_store_url(text) for text in sys.argv[3:]]
entered = open_stores(places, settings) if sys.argv[1] == "open" else changing(roots_of(places, settings))
with entered:
    print("in", flush=True)
    time.sleep(600)
"""

WRITER = """
import asyncio, sys, time
from tests.support.buckets import MiB, opened_bucket, store_settings
from workers.storage.layout import object_key

def pieces():
    for _ in range(14):
        yield bytes(MiB)
    time.sleep(0.5)
    print("two parts", flush=True)
    time.sleep(600)

with opened_bucket(sys.argv[1], store_settings(single_put_limit=MiB, part_size=5 * MiB)) as store:
    asyncio.run(store.put_new(object_key("1.2.3"), pieces()))
"""


@pytest.fixture
def urls(minio: S3Server, s3_credentials: None) -> list[str]:
    """Three places in buckets."""
    return [minio.url(f"{secrets.token_hex(8)}/{name}") for name in "abc"]


def places(urls: list[str]) -> list[StoreUrl]:
    return [url_of(url) for url in urls]


def roots(urls: list[str], settings: StoreSettings = LASTING) -> list[BucketRoot]:
    return [root_of_bucket(url, settings) for url in urls]


def opened(urls: list[str], settings: StoreSettings = LASTING) -> Stores:
    return open_stores(places(urls), settings)


def fill(stores: Stores, count: int = 40) -> dict[str, bytes]:
    """Objects under many UIDs, by UID."""
    made = {f"1.2.{number}": b"object %d" % number for number in range(count)}

    async def scenario() -> None:
        for uid, data in made.items():
            key = object_key(uid)
            assert await stores.of(key).put_new(key, [data])

    asyncio.run(scenario())
    return made


def look_now(store: ObjectStore) -> None:
    """As if the time until the next look at an absent store were over."""
    assert isinstance(store, AbsentStore)
    store._next = 0.0


def contents(stores: Stores) -> dict[str, bytes]:
    """All objects, as the shard map finds them."""

    async def scenario() -> dict[str, bytes]:
        found = {}
        async for listed in stores.find(Area.OBJECTS):
            payload = await stores.of(listed.key).open(listed.key)
            assert payload is not None
            with payload:
                found[listed.key.name.removesuffix(".dcm")] = b"".join(payload.blocks())
        return found

    return asyncio.run(scenario())


def holder(what: str, urls: list[str]) -> "subprocess.Popen[str]":
    """Another process that has the stores open, or alone."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, what, "3", *urls], stdout=subprocess.PIPE, text=True
    )
    said(process, "in\n")
    return process


def said(process: "subprocess.Popen[str]", line: str) -> None:
    """Return when it has; a process that says something else is ended."""
    assert process.stdout is not None
    try:
        with process.stdout:
            assert process.stdout.readline() == line
    except BaseException:
        process.kill()
        process.wait()
        raise


def test_the_first_start_makes_them_and_the_next_finds_them(urls: list[str]) -> None:
    """All have the same map, each another name; nothing else is left behind."""
    with opened(urls) as stores:
        assert sorted(stores.map.stores) == ["store-0", "store-1", "store-2"]
        made = fill(stores)
        first = stores.map
    assert [read_map(root) for root in roots(urls)] == [first] * 3
    with open_stores(places(urls[::-1]), LASTING) as stores:
        assert stores.map == first
        assert contents(stores) == made
    left = {name for url in urls for name in names(url) if not name.endswith(".dcm")}
    assert left == {MAP_FILE, STORE_FILE, "locks/forming"}


def test_folders_and_buckets_together(urls: list[str], tmp_path: Path) -> None:
    """One set of stores of both kinds."""
    mixed: list[Path | StoreUrl] = [tmp_path / "folder", *places(urls[:1])]
    with open_stores(mixed, LASTING) as stores:
        assert set(shard_counts(stores.map).values()) == {2048}
        made = fill(stores)
    assert names(urls[0])
    assert list((tmp_path / "folder").glob("*/*.dcm"))
    with open_stores(mixed, LASTING) as stores:
        assert contents(stores) == made


def test_many_processes_start_at_once(urls: list[str]) -> None:
    """The first start of several workers, on any hosts, makes one set of stores."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER.replace("time.sleep(600)", "pass"), "open", "60", *urls],
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert [process.communicate()[0] for process in processes] == ["in\n"] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert len({json.dumps(root.read(MAP_FILE).hex()) for root in roots(urls)}) == 1  # type: ignore[union-attr]


def test_another_version_refuses_to_start(urls: list[str]) -> None:
    """Stores that do not agree stop the start, with what to do."""
    with opened(urls) as stores:
        newer = stores.map.moved({"abc": 0}, {})
    write_map(roots(urls)[1], newer)
    with pytest.raises(WrongStores, match=r"different versions.*rebalance"):
        opened(urls)


def test_a_new_bucket_must_be_added_first(urls: list[str]) -> None:
    """The message names the command; the same place twice is refused."""
    opened(urls[:2]).close()
    with pytest.raises(WrongStores, match=r"not in the shard map.*shards add s3://"):
        opened(urls)
    with pytest.raises(WrongStores, match="none of the configured stores is store-1"):
        opened(urls[:1])
    with pytest.raises(WrongStores, match="twice"):
        opened([*urls[:1], *urls[:1]])


def test_work_and_change_keep_each_other_out(urls: list[str]) -> None:
    """While one works nobody changes the map, and while one changes it nobody works."""
    with (
        opened(urls[:1]),
        opened(urls[:1]),
        pytest.raises(WrongStores, match="in use"),
        changing(roots(urls[:1])),
    ):
        pass
    with changing(roots(urls[:1])):
        with pytest.raises(WrongStores, match=r"being changed.*process \d+ on"):
            opened(urls[:1])
        with pytest.raises(WrongStores, match="being changed"), changing(roots(urls[:1])):
            pass
    opened(urls[:1]).close()


@pytest.mark.parametrize("what", ["open", "change"])
def test_a_killed_holder_runs_out(urls: list[str], what: str) -> None:
    """Its lease holds others back for its time, and no longer."""
    opened(urls[:1]).close()
    process = holder(what, urls[:1])
    process.kill()
    process.wait()
    with changing(roots(urls[:1], SETTINGS)):
        pass
    opened(urls[:1]).close()
    assert [name for name in names(urls[0]) if name.startswith("presence/")] == []


def test_a_killed_change_does_not_stop_the_next_start(urls: list[str]) -> None:
    """A start waits out the lease of a change that died."""
    opened(urls[:1]).close()
    process = holder("change", urls[:1])
    process.kill()
    process.wait()
    opened(urls[:1], SETTINGS).close()


def test_whoever_was_stopped_too_long_does_nothing_more(urls: list[str]) -> None:
    """Its presence was taken away and the map may be another: it must end and start anew."""
    with opened(urls[:1], SETTINGS) as stores:
        (presence,) = (name for name in names(urls[0]) if name.startswith("presence/"))
        roots(urls[:1])[0]._bucket.remove(presence)  # as `shards` does after its lease
        key = object_key("1.2.3")

        def work() -> None:
            while True:
                with contextlib.suppress(Unavailable):  # not renewed in time, and not yet lost
                    asyncio.run(stores.of(key).put_new(key, [b"x"]))
                time.sleep(0.1)

        with pytest.raises(LeaseLost, match="stopped for too long"):
            work()


def test_adding_and_rebalancing_over_folders_and_buckets(urls: list[str], tmp_path: Path) -> None:
    """Shards move from a folder to buckets and among them; every object stays findable, whole, once."""
    folder = tmp_path / "folder"
    with open_stores([folder], LASTING) as stores:
        made = fill(stores)
    everywhere: list[Path | StoreUrl] = [folder, *places(urls[:2])]
    for count in (1, 2):
        name = add_store(everywhere[:count], everywhere[count], LASTING)
        assert name == f"store-{count}"
        assert asyncio.run(rebalance(everywhere[: count + 1], LASTING)) > 1000
    with open_stores(everywhere, LASTING) as stores:
        counts = shard_counts(stores.map).values()
        assert max(counts) - min(counts) <= 1
        assert contents(stores) == made
    stored = [name for url in urls for name in names(url) if name.endswith(".dcm")]
    stored += [path.name for path in folder.glob("*/*.dcm")]
    assert len(stored) == len(made)
    with pytest.raises(WrongStores, match="already"):
        add_store(everywhere, everywhere[1], LASTING)


def test_an_interrupted_rebalance_is_ended_by_the_next(
    urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map that was published to some: nobody starts, and the same command ends it."""
    with opened(urls[:1]) as stores:
        made = fill(stores)
    add_store(places(urls[:1]), places(urls)[1], LASTING)
    replace = BucketRoot.replace
    calls = 0

    def failing(self: BucketRoot, name: str, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Unavailable("store: gone", 1.0)
        replace(self, name, data)

    monkeypatch.setattr(BucketRoot, "replace", failing)
    with pytest.raises(Unavailable):
        asyncio.run(rebalance(places(urls[:2]), LASTING))
    monkeypatch.setattr(BucketRoot, "replace", replace)
    with pytest.raises(WrongStores, match="different versions"):
        opened(urls[:2])
    asyncio.run(rebalance(places(urls[:2]), LASTING))
    with opened(urls[:2]) as stores:
        assert contents(stores) == made


def test_what_killed_writers_staged_is_swept_a_day_later(
    urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the store's own clock; what may still be on its way stays."""
    with opened(urls[:1]) as stores:
        roots(urls[:1])[0]._bucket.create("staging/abc-left", [b"x"])
        store = stores.named("store-0")
        assert store.sweep() == 0  # type: ignore[attr-defined]
        assert content(urls[0], "staging/abc-left") == b"x"
    monkeypatch.setattr(bucket_store, "_LEFT_AFTER", dt.timedelta(seconds=-1))  # as if a day had gone
    opened(urls[:1]).close()
    assert not [name for name in names(urls[0]) if name.startswith("staging/")]


def test_a_writer_killed_between_parts_leaves_nothing_visible(urls: list[str]) -> None:
    """No object, nothing staged; and the next try succeeds."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, urls[0]], stdout=subprocess.PIPE, text=True)
    said(process, "two parts\n")
    process.kill()
    process.wait()
    assert names(urls[0]) == []
    with opened(urls[:1]) as stores:
        key = object_key("1.2.3")
        assert asyncio.run(stores.of(key).put_new(key, [bytes(1024 * 1024)] * 20))
    assert [name for name in names(urls[0]) if name.endswith(".dcm")] == [str(object_key("1.2.3"))]


def test_mixed_roots_from_settings(urls: list[str], tmp_path: Path) -> None:
    """Folders, file URLs and buckets stand beside each other in the settings."""
    found = roots_of([tmp_path, url_of(urls[0])], LASTING)
    assert [root.there() for root in found] == [True, True]


@pytest.fixture
def proxy(minio: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


def through(proxy: FaultProxy, url: str, minio: S3Server) -> StoreUrl:
    return url_of(url.replace(minio.endpoint, proxy.endpoint))


def test_a_dead_bucket_is_done_without_and_taken_in_later(
    urls: list[str], minio: S3Server, proxy: FaultProxy
) -> None:
    """A worker's start: the shards of the others are served, the dead one's wait."""
    with opened(urls[:2]) as stores:
        made = fill(stores)
    mixed = [url_of(urls[0]), through(proxy, urls[1], minio)]
    proxy.fault(everything, Action.ERROR_503)
    with pytest.raises(Unavailable):  # commands need all of them
        open_stores(mixed, DEAD)
    with open_stores(mixed, DEAD, working=True) as stores:
        assert len(stores.silent) == 1
        theirs = [uid for uid in made if stores.of(object_key(uid)).name == "store-1"]
        ours = next(uid for uid in made if uid not in theirs)
        assert asyncio.run(stores.of(object_key(ours)).start(object_key(ours), 99)) is not None
        dead = stores.of(object_key(theirs[0]))
        with pytest.raises(Unavailable, match="store-1 has not answered since the start"):
            asyncio.run(dead.start(object_key(theirs[0]), 99))
        proxy.heal()
        look_now(dead)
        assert contents(stores) == made
        assert asyncio.run(dead.put_new(object_key(theirs[0]), [b"other"])) is False
    assert not [name for name in names(urls[1]) if name.startswith("presence/")]


@contextlib.contextmanager
def one_dead(urls: list[str], minio: S3Server, proxy: FaultProxy) -> Iterator[Stores]:
    """Two stores, of which the second has answered once, and does not since this start."""
    with opened(urls[:2]):
        pass
    proxy.fault(everything, Action.ERROR_503)
    with open_stores([url_of(urls[0]), through(proxy, urls[1], minio)], DEAD, working=True) as stores:
        yield stores


def renewed_leases() -> int:
    return sum(thread.name == "lease" for thread in threading.enumerate())


def test_a_bucket_that_comes_back_halfway_is_left_again(
    urls: list[str], minio: S3Server, proxy: FaultProxy
) -> None:
    """It answers, and cannot be probed yet: each try leaves neither presence nor thread behind."""
    with one_dead(urls, minio, proxy) as stores:
        proxy.heal()
        proxy.fault(puts_of("/probe/"), Action.ERROR_503)
        dead = stores.named("store-1")
        leases = renewed_leases()
        for _ in range(3):
            look_now(dead)
            with pytest.raises(Unavailable, match="store-1 has not answered since the start"):
                asyncio.run(dead.filled(Area.OBJECTS))
        assert renewed_leases() == leases
        assert not [name for name in names(urls[1]) if name.startswith("presence/")]


def test_a_bucket_is_taken_in_once_though_nobody_waits_for_it_any_more(
    urls: list[str], minio: S3Server, proxy: FaultProxy
) -> None:
    """The one that asked is cancelled, as when its partition goes: what was opened for it serves the next."""
    with one_dead(urls, minio, proxy) as stores:
        proxy.heal()
        dead = stores.named("store-1")

        async def ask_twice() -> None:
            first = asyncio.create_task(dead.filled(Area.OBJECTS))
            await asyncio.sleep(0.05)
            first.cancel()
            await asyncio.wait({first})
            look_now(dead)
            await dead.filled(Area.OBJECTS)

        asyncio.run(ask_twice())
        assert len([name for name in names(urls[1]) if name.startswith("presence/")]) == 1


def test_a_dead_bucket_is_not_done_without_after_an_interrupted_change(
    urls: list[str], minio: S3Server, proxy: FaultProxy
) -> None:
    """It may have the newer map: what the others agree on may be no longer true."""
    with opened(urls[:2]) as stores:
        newer = stores.map.moved({"000": 1}, {})

    def change() -> None:
        with changing(roots(urls[:2])):
            write_map(roots(urls[1:2])[0], newer)
            raise Unavailable("killed", 1.0)

    with pytest.raises(Unavailable, match="killed"):
        change()
    proxy.fault(everything, Action.ERROR_503)
    with pytest.raises(Unavailable, match="a change of the shard map was interrupted"):
        open_stores([url_of(urls[0]), through(proxy, urls[1], minio)], DEAD, working=True)
    asyncio.run(rebalance(places(urls[:2]), LASTING))
    assert [name for url in urls[:2] for name in names(url) if name == "changing"] == []


def test_a_bucket_that_comes_back_with_another_map_ends_the_process(
    urls: list[str], minio: S3Server, proxy: FaultProxy
) -> None:
    """Only a new start can tell what follows."""
    with opened(urls[:2]) as stores:
        newer = stores.map.moved({"000": 1}, {})
    proxy.fault(everything, Action.ERROR_503)
    mixed = [url_of(urls[0]), through(proxy, urls[1], minio)]
    with open_stores(mixed, DEAD, working=True) as stores:
        write_map(roots(urls[1:2])[0], newer)
        proxy.heal()
        with pytest.raises(WrongStores, match="another version of the shard map"):
            asyncio.run(stores.named("store-1").filled(Area.OBJECTS))


def test_one_wrong_answer_while_a_shard_is_copied_alters_nothing(minio: S3Server, urls: list[str]) -> None:
    """What was copied is read back before what it is a copy of is removed; the same command goes on."""
    with opened(urls[:1]) as stores:
        made = fill(stores, 12)
    add_store(places(urls[:1]), url_of(urls[1]), LASTING)
    with FaultProxy(minio.endpoint) as proxy:
        through = places([urls[0].replace(minio.endpoint, proxy.endpoint), urls[1]])
        proxy.fault(gets_of(".dcm"), Action.WRONG, 1)
        with pytest.raises(Unavailable, match="nothing was removed"):
            asyncio.run(rebalance(through, LASTING))
        asyncio.run(rebalance(through, LASTING))
    with opened(urls[:2]) as stores:
        assert contents(stores) == made
