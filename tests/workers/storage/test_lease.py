"""Leases in buckets: one holder, renewed while it lives, another's once it has been silent for its time."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.buckets import names, opened_bucket, store_settings, url_of
from workers.errors import Unavailable
from workers.storage import bucket_store
from workers.storage.bucket import Bucket
from workers.storage.layout import object_key, quarantine_key
from workers.storage.lease import Lease, LeaseLost, expire

pytestmark = pytest.mark.real

SECONDS, REQUEST = 2.0, 0.5  # of leases whose clock is a test's, and so patient with the bucket
QUICK = {"lease": 3.0, "request_timeout": 1.0}  # where a killed or stopped holder is waited for
KEY = object_key("1.2.3")

HOLDER = """
import asyncio, sys
from tests.support.buckets import opened_bucket, store_settings
from workers.errors import Unavailable
from workers.storage.layout import object_key
key = object_key("1.2.3")
async def main():
    with opened_bucket(sys.argv[1], store_settings(lease=3.0, request_timeout=1.0)) as store:
        async with store.lock(key.shard):
            print("in", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            try:
                await (store.remove(key) if sys.argv[2] == "remove" else store.replace(key, [b"what was before"]))
            except Unavailable as error:
                print(error, flush=True)
            else:
                print("done", flush=True)
asyncio.run(main())
"""


@pytest.fixture
def bucket(minio_url: str) -> Bucket:
    return Bucket(url_of(minio_url), store_settings())


@pytest.fixture(params=["remove"])
def holder(minio_url: str, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock of the shard, and then removes or replaces the object."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, minio_url, request.param],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        with process.stdout, process.stdin:
            assert process.stdout.readline() == "in\n"
            yield process
    finally:
        process.kill()
        process.wait()


class Clock:
    """What leases take for the time, as it is set."""

    def __init__(self) -> None:
        self.now = 1000.0  # s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("workers.storage.lease._now", lambda: clock.now)
    return clock


def lease(bucket: Bucket, name: str = "locks/abc") -> Lease:
    return Lease(bucket, name, SECONDS, REQUEST)


def test_one_holder_until_it_gives_back(bucket: Bucket, clock: Clock) -> None:
    """Taken by one, seen by the other with who it is, and free again at once."""
    one, other = lease(bucket), lease(bucket)
    assert one.try_take()
    one.check()
    assert not other.try_take()
    assert other.holder_name.startswith("process ")
    one.release()
    assert other.try_take()
    with pytest.raises(Unavailable), one.relied_on():
        pass


def test_many_that_try_at_once(bucket: Bucket, clock: Clock) -> None:
    """One of them has it, in each of several rounds."""
    for number in range(5):
        leases = [lease(bucket, f"locks/{number:03x}") for _ in range(8)]
        barrier = threading.Barrier(8)
        taken: list[bool] = []

        def run(one: Lease, barrier: threading.Barrier = barrier, taken: list[bool] = taken) -> None:
            barrier.wait()
            taken.append(one.try_take())

        threads = [threading.Thread(target=run, args=(one,)) for one in leases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert taken.count(True) == 1


def test_a_silent_holder_loses_it_and_is_told(bucket: Bucket, clock: Clock) -> None:
    """Not before its time; the holder stops relying on it before that."""
    one, other = lease(bucket), lease(bucket)
    assert one.try_take()
    assert not other.try_take()
    clock.now += SECONDS - REQUEST
    one.check()
    assert not other.try_take()
    clock.now += 0.01
    with pytest.raises(Unavailable):
        one.check()
    clock.now += REQUEST - 0.02
    assert not other.try_take()
    clock.now += 0.02
    assert other.try_take()
    with pytest.raises(LeaseLost):
        one.renew()
    with pytest.raises(LeaseLost):
        one.check()
    other.check()
    one.release()  # which takes nothing from the other
    other.renew()


def test_a_renewed_lease_is_kept(bucket: Bucket) -> None:
    """For longer than its time."""
    seconds = 2 * SECONDS  # a renewal may come late on a busy machine
    one, other = (Lease(bucket, "locks/abc", seconds, REQUEST) for _ in range(2))
    assert one.try_take()
    end = time.monotonic() + 1.25 * seconds
    with one.renewed():
        while time.monotonic() < end:
            assert not other.try_take()
            one.check()
            time.sleep(0.1)
    assert other.changes > 0


def test_a_renewal_saves_a_presence_from_expiry(bucket: Bucket, clock: Clock) -> None:
    """Only the version that was seen to be silent is expired."""
    one = lease(bucket, "presence/x")
    assert one.try_take()
    seen = bucket.head("presence/x")
    assert seen is not None
    one.renew()
    assert not expire(bucket, "presence/x", seen.version)
    now = bucket.head("presence/x")
    assert now is not None
    assert expire(bucket, "presence/x", now.version)
    with pytest.raises(LeaseLost):
        one.renew()


def test_a_killed_holder_of_a_lane_runs_out(minio_url: str, holder: "subprocess.Popen[str]") -> None:
    """Others wait as long as the lease, and then go on."""
    holder.kill()
    start = time.monotonic()

    async def scenario() -> None:
        with opened_bucket(minio_url, store_settings(**QUICK)) as store:
            async with store.lock(KEY.shard):
                assert time.monotonic() - start > QUICK["lease"] / 2

    asyncio.run(scenario())


@pytest.mark.parametrize("holder", ["remove", "replace"], indirect=True)
def test_a_stopped_holder_changes_nothing_when_it_goes_on(
    minio_url: str, holder: "subprocess.Popen[str]"
) -> None:
    """What has taken the key since stays: it was decided by what was there before, so the lease is looked at first."""
    holder.send_signal(signal.SIGSTOP)

    async def scenario() -> None:
        with opened_bucket(minio_url, store_settings(**QUICK)) as store:
            async with store.lock(KEY.shard):
                await store.put_new(KEY, [b"the repaired one"])

    asyncio.run(scenario())
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    holder.send_signal(signal.SIGCONT)
    assert "lease" in holder.stdout.readline()
    assert str(KEY) in names(minio_url)

    async def stored() -> bytes:
        with opened_bucket(minio_url, store_settings(**QUICK)) as store:
            found = await store.start(KEY, 100)
            assert found is not None
            return found.data

    assert asyncio.run(stored()) == b"the repaired one"


def test_who_waits_for_a_lane_comes_back(
    minio_url: str, holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that another holds for long is `Unavailable`: others' work must not wait behind it."""
    monkeypatch.setattr(bucket_store, "_LOCK_WITHIN", 0.3)

    async def scenario() -> None:
        with opened_bucket(minio_url, store_settings(**QUICK)) as store:
            with pytest.raises(Unavailable, match="another works in the lane"):
                async with store.lock(KEY.shard):
                    pass
            await store.put_new(quarantine_key("1.2.3", "a" * 64), [b"not held up"])

    asyncio.run(scenario())


def test_an_unreadable_lease_runs_out_too(bucket: Bucket, clock: Clock) -> None:
    """Whatever is written there, nobody waits for ever."""
    bucket.create("locks/abc", [b"\xff not JSON"])
    one = lease(bucket)
    assert not one.try_take()
    clock.now += SECONDS + 0.01
    assert one.try_take()
