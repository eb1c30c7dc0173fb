"""The checksum that a real S3 store checked at the PUT and returns: of which objects, and which stores are refused."""

import asyncio
import base64
import hashlib
import secrets
import sys
from collections.abc import Iterator

import obstore
import pytest

from tests.support.buckets import KiB, names, opened_bucket, root_of_bucket, store_settings, url_of
from tests.support.fault_proxy import Action, FaultProxy, Request
from tests.support.s3_servers import BUCKET, S3Server
from workers.errors import Unavailable
from workers.storage.bucket import DIGEST, Bucket
from workers.storage.bucket_store import BucketStore
from workers.storage.layout import Key, object_key
from workers.storage.shard_map import WrongStores

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("buckets")]

KEY = object_key("1.2.3")
OURS = secrets.token_bytes(3000)
LENGTH = 1000
QUICK = {"request_timeout": 2.0, "retry_timeout": 3.0}
MiB = 1024 * KiB


@pytest.fixture
def proxy(minio: S3Server, s3_credentials: None) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


@pytest.fixture
def faulty(proxy: FaultProxy) -> str:
    return f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={proxy.endpoint}"


def asks_for_checksum(request: Request) -> bool:
    return request.method == "HEAD" and "x-amz-checksum-mode" in request.headers


def sends_wrong_checksum(request: Request) -> bool:
    return request.headers.get("x-amz-checksum-sha256") == base64.b64encode(bytes(32)).decode()


def is_checked(store: BucketStore, key: Key = KEY) -> bool:
    start = asyncio.run(store.start_if_checked(key, LENGTH))
    assert start is None or (start.data, start.size) == (OURS[:LENGTH], len(OURS))
    return start is not None


def test_what_was_put_at_once_is_checked(bucket_url: str) -> None:
    """By MinIO and versitygw; what is not there, was put in parts or without a checksum is not."""
    small = store_settings(single_put_limit=64 * KiB, part_size=5 * MiB)
    with opened_bucket(bucket_url, small, checksums=True) as store:
        assert not is_checked(store)
        asyncio.run(store.put_new(KEY, [OURS[:10], OURS[10:]]))
        assert is_checked(store)
        staged = object_key("1.2.4")
        asyncio.run(store.put_new(staged, [bytes(MiB)] * 7))
        assert not is_checked(store, staged)
    plain = object_key("1.2.5")
    with opened_bucket(bucket_url, store_settings(checksum="none"), checksums=True) as store:
        asyncio.run(store.put_new(plain, [OURS]))
        assert not is_checked(store, plain)
        assert is_checked(store), "which another has put"


def test_what_others_have_put_is_not_checked(bucket_url: str) -> None:
    """Though the store has a checksum of it, and a tool that copied other bytes has copied ours beside them."""
    client = Bucket(url_of(bucket_url), store_settings())._client
    digest = base64.b64encode(hashlib.sha256(OURS).digest()).decode()
    with opened_bucket(bucket_url, checksums=True) as store:
        obstore.put(client, str(KEY), OURS)
        assert not is_checked(store)
        obstore.put(client, str(KEY), OURS, attributes={DIGEST: digest})
        assert is_checked(store)
        other = bytes([OURS[0] ^ 1]) + OURS[1:]
        obstore.put(client, str(KEY), other, attributes={DIGEST: digest})
        assert not is_checked(store)


def test_of_the_version_that_was_read(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that is replaced between its bytes and its checksum is not that one any more."""
    with opened_bucket(bucket_url, checksums=True) as store:
        asyncio.run(store.put_new(KEY, [OURS]))
        read = store._bucket.read

        def replaced_after(name: str, length: int) -> object:
            found = read(name, length)
            head = store._bucket.head(name)
            assert head is not None
            store._bucket.swap(name, [b"other bytes"], head.version)
            return found

        monkeypatch.setattr(store._bucket, "read", replaced_after)
        assert not is_checked(store)


def test_without_the_policy_nothing_is_asked(proxy: FaultProxy, faulty: str) -> None:
    """Nobody but `checksum` needs boto3, or pays for its requests."""
    with opened_bucket(faulty) as store:
        asyncio.run(store.put_new(KEY, [OURS]))
        proxy.requests.clear()
        assert not is_checked(store)
        assert not proxy.requests


def test_silence_is_no_answer(proxy: FaultProxy, faulty: str) -> None:
    """Asked again until the deadline, then `Unavailable`; refused credentials are told as that, without them."""
    with opened_bucket(faulty, store_settings(**QUICK), checksums=True) as store:
        asyncio.run(store.put_new(KEY, [OURS]))
        for action in (Action.ERROR_503, Action.STORE_RESET):
            proxy.fault(asks_for_checksum, action, 1)
            assert is_checked(store)
        for action in (Action.ERROR_503, Action.HANG):
            proxy.fault(asks_for_checksum, action)
            with pytest.raises(Unavailable):
                is_checked(store)
            proxy.heal()
            store._rest._until = 0.0
        assert is_checked(store)


def test_secrets_and_keys_stay_out_of_messages(
    faulty: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor does boto3 log them."""
    with opened_bucket(faulty, store_settings(**QUICK)) as store:
        asyncio.run(store.put_new(KEY, [OURS]))
        found = store._bucket.head(str(KEY))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quite-another-secret")
    with opened_bucket(faulty, store_settings(**QUICK), checksums=True) as store:
        assert store._checksums is not None
        assert found is not None
        with pytest.raises(Unavailable, match="refuses our credentials") as caught:
            store._checksums.has(found)
    said = str(caught.value) + "".join(capfd.readouterr())
    assert "secret" not in said
    assert "1.2.3" not in said


def test_a_store_that_checks_and_returns_passes(bucket_url: str) -> None:
    """What was tried is removed."""
    root_of_bucket(bucket_url, checksums=True).probe()
    assert names(bucket_url) == []


@pytest.mark.parametrize(
    ("matches", "action", "said"),
    [
        (sends_wrong_checksum, Action.LIE_200, "another SHA-256 than was sent"),
        (asks_for_checksum, Action.NO_CHECKSUM, "does not return the SHA-256"),
    ],
    ids=["takes what is wrong", "keeps none"],
)
def test_a_store_that_does_not_is_refused(
    proxy: FaultProxy, faulty: str, matches: object, action: Action, said: str
) -> None:
    """With the reason and what to take instead; other policies may use it."""
    proxy.fault(matches, action)  # type: ignore[arg-type]
    with pytest.raises(WrongStores, match=rf"{said}.*checksum cannot be the proof.*take read") as caught:
        root_of_bucket(faulty, store_settings(**QUICK), checksums=True).probe()
    assert str(url_of(faulty)) in str(caught.value)
    root_of_bucket(faulty, store_settings(**QUICK)).probe()
    proxy.heal()
    assert names(faulty) == []


def test_a_store_that_does_not_answer_is_not_refused(proxy: FaultProxy, faulty: str) -> None:
    """It is unavailable, which is tried again."""
    proxy.fault(asks_for_checksum, Action.ERROR_503)
    with pytest.raises(Unavailable):
        root_of_bucket(faulty, store_settings(**QUICK), checksums=True).probe()


def test_boto3_is_named_where_it_is_missing(faulty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.delitem(sys.modules, "workers.storage.checksums")
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(WrongStores, match=r"dicom-ingest\[s3-checksum\]"):
        root_of_bucket(faulty, checksums=True)


def test_a_profile_has_the_credentials(
    minio: S3Server, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the URL names, for obstore and for boto3."""
    for name, value in S3Server.environment.items():
        monkeypatch.setenv(name, "wrong-" + value)
    profile = tmp_path / "credentials"  # type: ignore[operator]
    secrets_of = {name.lower(): value for name, value in S3Server.environment.items()}
    profile.write_text("[archive]\n" + "".join(f"{name} = {value}\n" for name, value in secrets_of.items()))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    with opened_bucket(minio.url(secrets.token_hex(8)) + "&profile=archive", checksums=True) as store:
        asyncio.run(store.put_new(KEY, [OURS]))
        assert is_checked(store)
