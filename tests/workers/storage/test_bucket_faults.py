"""What stores and networks do to requests, each settled by reading back and none by guessing."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.buckets import MiB, content, names, opened_bucket, root_of_bucket, store_settings
from tests.support.clocks import Clock
from tests.support.fault_proxy import Action, FaultProxy, everything, gets_of, puts_of
from tests.support.s3_servers import BUCKET, S3Server
from workers.errors import Unavailable
from workers.storage.bucket_store import BucketStore
from workers.storage.layout import Key, object_key, quarantine_key
from workers.storage.object_store import ObjectStore
from workers.storage.shard_map import WrongStores

pytestmark = pytest.mark.real

KEY = object_key("1.2.3")
OURS = b"these are our bytes"
THEIRS = b"these are not, alas"  # as long
QUICK = {"request_timeout": 0.7, "lease": 3.0}
HASTY = QUICK | {"retry_timeout": 4.0}  # where no request will succeed
UNSURE = [Action.STORE_500, Action.STORE_SILENCE, Action.STORE_RESET]
NOTHING_STORED = [Action.ERROR_503, Action.CONFLICT_409]


@pytest.fixture
def proxy(minio: S3Server, s3_credentials: None) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


class Place:
    def __init__(self, proxy: FaultProxy, minio: S3Server, prefix: str) -> None:
        self.faulty = f"s3://{BUCKET}/{prefix}?endpoint={proxy.endpoint}"
        self.sound = minio.url(prefix)

    def names(self) -> list[str]:
        return names(self.sound)

    def content(self, key: Key = KEY) -> bytes:
        return content(self.sound, str(key))


@pytest.fixture
def place(proxy: FaultProxy, minio: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(proxy, minio, tmp_path_factory.mktemp("faults").name + str(time.time_ns()))


@pytest.fixture
def store(place: Place) -> Iterator[BucketStore]:
    """Whose requests are repeated for as long as a busy machine needs."""
    settings = store_settings(**QUICK, single_put_limit=2 * MiB, part_size=5 * MiB)
    with opened_bucket(place.faulty, settings) as store:
        yield store


@pytest.fixture
def hasty(place: Place) -> Iterator[BucketStore]:
    """Which gives up soon."""
    settings = store_settings(**HASTY, single_put_limit=2 * MiB, part_size=5 * MiB)
    with opened_bucket(place.faulty, settings) as store:
        yield store


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("action", [*UNSURE, *NOTHING_STORED])
def test_an_unsure_create_is_settled(
    store: ObjectStore, proxy: FaultProxy, place: Place, action: Action, times: int
) -> None:
    """Our own write is known as ours, and what was not stored is stored after all; once."""
    proxy.fault(puts_of(str(KEY)), action, times)
    assert asyncio.run(store.put_new(KEY, [OURS])) is True
    assert place.content() == OURS
    assert place.names() == [str(KEY)]


@pytest.mark.parametrize("action", [*UNSURE, *NOTHING_STORED])
def test_anothers_object_is_never_taken_for_ours(
    store: ObjectStore, proxy: FaultProxy, place: Place, action: Action
) -> None:
    """The same length, other bytes, and an answer that may mean anything: False, and theirs stay."""
    assert asyncio.run(store.put_new(KEY, [THEIRS]))
    proxy.fault(puts_of(str(KEY)), action, 1)
    assert asyncio.run(store.put_new(KEY, [OURS])) is False
    assert place.content() == THEIRS


@pytest.mark.parametrize("action", [*UNSURE, *NOTHING_STORED])
def test_an_unsure_replacement_is_settled(
    store: ObjectStore, proxy: FaultProxy, place: Place, action: Action
) -> None:
    """The new bytes are there when it returns."""
    asyncio.run(store.put_new(KEY, [THEIRS]))
    proxy.fault(puts_of(str(KEY)), action, 1)
    asyncio.run(store.replace(KEY, [OURS]))
    assert place.content() == OURS


@pytest.mark.parametrize("action", [*UNSURE, *NOTHING_STORED])
def test_an_unsure_completion_of_a_large_object_is_settled(
    store: ObjectStore, proxy: FaultProxy, place: Place, action: Action
) -> None:
    """The conditional copy that gives it its name is settled like a create."""
    proxy.fault(lambda request: request.method == "POST" and str(KEY) in request.path, action, 1)
    whole = [bytes([number]) * MiB for number in range(7)]
    assert asyncio.run(store.put_new(KEY, whole)) is True
    assert place.content() == b"".join(whole)
    assert place.names() == [str(KEY)]


def test_a_part_that_fails_leaves_nothing(hasty: ObjectStore, proxy: FaultProxy, place: Place) -> None:
    """Neither under the final name nor in staging."""
    proxy.fault(lambda request: "partNumber" in request.path, Action.CONFLICT_409)
    with pytest.raises(Unavailable):
        asyncio.run(hasty.put_new(KEY, [bytes(MiB)] * 7))
    assert place.names() == []


@pytest.mark.parametrize("action", [Action.HANG, Action.ERROR_503, Action.SLOW_REQUEST, Action.STORE_SILENCE])
def test_a_dead_store_is_unavailable_in_time(
    hasty: ObjectStore, proxy: FaultProxy, place: Place, action: Action
) -> None:
    """No success, no loss, no waiting beyond the deadline; and after it heals, one object."""
    proxy.fault(everything, action)
    with pytest.raises(Unavailable):
        asyncio.run(hasty.put_new(KEY, [bytes(64 * 1024)]))
    rest = hasty._rest  # type: ignore[attr-defined] # whose end is not waited for
    rest._until += 3600
    asked = len(proxy.requests)
    for _ in range(20):  # which others would have to wait for, one deadline each
        with pytest.raises(Unavailable, match="left alone"):
            asyncio.run(hasty.put_new(object_key("1.2.4"), [OURS]))
    assert len(proxy.requests) == asked
    proxy.heal()
    rest._until = 0.0
    created = asyncio.run(hasty.put_new(KEY, [bytes(64 * 1024)]))
    assert created is True
    assert place.content() == bytes(64 * 1024)


@pytest.mark.parametrize("action", [Action.HANG, Action.SLOW_ANSWER])
def test_a_read_that_does_not_come_is_unavailable(
    hasty: ObjectStore, proxy: FaultProxy, action: Action
) -> None:
    """Not damage: the object may be sound."""
    asyncio.run(hasty.put_new(KEY, [bytes(MiB)]))
    payload = asyncio.run(hasty.open(KEY))
    assert payload is not None
    proxy.fault(gets_of(str(KEY)), action)
    with payload, pytest.raises(Unavailable):
        payload.read(0, MiB)
    with pytest.raises(Unavailable):
        asyncio.run(hasty.start(KEY, MiB))


@pytest.mark.parametrize("action", [Action.TRUNCATED, Action.SHORT, Action.ERROR_503])
def test_a_cut_read_is_repeated(store: ObjectStore, proxy: FaultProxy, action: Action) -> None:
    """And never taken for the object's end."""
    data = bytes(range(256)) * 4096
    asyncio.run(store.put_new(KEY, [data]))
    payload = asyncio.run(store.open(KEY))
    assert payload is not None
    proxy.fault(gets_of(str(KEY)), action, 1)
    with payload:
        assert bytes(payload.read(0, len(data))) == data
    proxy.fault(gets_of(str(KEY)), action, 1)
    start = asyncio.run(store.start(KEY, 1000))
    assert start is not None
    assert (start.data, start.size) == (data[:1000], len(data))


def test_a_replaced_object_is_not_read_half_and_half(store: ObjectStore) -> None:
    """A reader has one content or `Unavailable`."""
    asyncio.run(store.put_new(KEY, [b"a" * 8 * MiB]))
    payload = asyncio.run(store.open(KEY))
    assert payload is not None
    with payload:
        assert bytes(payload.read(0, 10)) == b"a" * 10
        asyncio.run(store.replace(KEY, [b"b" * 8 * MiB]))
        with pytest.raises(Unavailable, match="replaced"):
            payload.read(7 * MiB, 10)


@pytest.mark.parametrize("action", UNSURE)
def test_an_unsure_removal_is_repeated(
    store: ObjectStore, proxy: FaultProxy, place: Place, action: Action
) -> None:
    """What is gone is gone."""
    asyncio.run(store.put_new(KEY, [OURS]))
    proxy.fault(lambda request: request.method in ("DELETE", "POST"), action, 1)
    asyncio.run(store.remove(KEY))
    assert place.names() == []


def test_a_move_that_was_interrupted_is_ended(hasty: ObjectStore, proxy: FaultProxy, place: Place) -> None:
    """Copied and not removed: the same move again removes."""
    target = quarantine_key("1.2.3", "a" * 64)
    asyncio.run(hasty.put_new(KEY, [OURS]))
    proxy.fault(lambda request: request.method == "DELETE" or "delete" in request.path, Action.ERROR_503)
    with pytest.raises(Unavailable):
        asyncio.run(hasty.move(KEY, target))
    assert place.names() == [str(target), str(KEY)] or len(place.names()) == 2
    proxy.heal()
    hasty._rest._until = 0.0  # type: ignore[attr-defined]
    assert asyncio.run(hasty.move(KEY, target)) is True
    assert place.names() == [str(target)]
    assert place.content(target) == OURS


def test_secrets_and_keys_stay_out_of_messages(
    store: ObjectStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    """Refused credentials are told as that, without them."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quite-another-secret")
    with opened_bucket(place.faulty, store_settings(**QUICK)) as refused:
        with pytest.raises(Unavailable, match="refuses our credentials") as caught:
            asyncio.run(refused.put_new(KEY, [OURS]))
        assert "secret" not in str(caught.value)
        assert "1.2.3" not in str(caught.value)
        with pytest.raises(Unavailable, match="refuses our credentials"):
            refused._bucket.folders("")


def test_checksums_go_with_what_is_written(store: ObjectStore, proxy: FaultProxy, place: Place) -> None:
    """SHA-256 with every PUT and part, unless the settings say none."""
    asyncio.run(store.put_new(KEY, [OURS]))
    asyncio.run(store.put_new(object_key("1.2.4"), [bytes(MiB)] * 7))
    puts = [
        request
        for request, _ in proxy.requests
        if request.method == "PUT" and "x-amz-copy-source" not in request.headers
    ]
    assert len({request.path for request in puts}) == 3, (
        "one whole and two parts; a busy machine may repeat one"
    )
    assert all("x-amz-checksum-sha256" in request.headers for request in puts)
    proxy.requests.clear()
    with opened_bucket(place.faulty, store_settings(checksum="none")) as plain:
        assert asyncio.run(plain.put_new(object_key("1.2.5"), [OURS]))
    assert not [name for request, _ in proxy.requests for name in request.headers if "checksum" in name]


def test_an_aws_profile_needs_boto3_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence."""
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(WrongStores, match=r"dicom-ingest\[aws-profile\]"):
        root_of_bucket("s3://images?profile=archive")


@pytest.mark.parametrize("url", ["gs://images/x", "az://account/container/x"])
def test_other_clouds_are_made_without_asking_them(url: str) -> None:
    """Their URLs are taken; what follows is for their own servers to tell."""
    root = root_of_bucket(url)
    assert str(root) == url
    root.close()


_LOOK = """
import sys
from ingest.contract.store_urls import parse_store_url
from tests.support.buckets import store_settings
from workers.errors import Unavailable
from workers.storage.bucket import Bucket
try:
    Bucket(parse_store_url(sys.argv[1]), store_settings()).head("any")
except Unavailable as error:
    print(error)
"""


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_wrong_is_told_whatever_is_asked_first(
    minio: S3Server, tmp_path: Path, seconds: int
) -> None:
    """The first request for an upload is a HEAD, and its refusal has no body that says why."""
    clock = Clock(tmp_path / "clock")
    clock.set(seconds)
    said = subprocess.run(
        [sys.executable, "-c", _LOOK, minio.url("clock")],
        env={**os.environ, **minio.environment, **clock.environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == "store: its clock and ours are too far apart", said.stderr
