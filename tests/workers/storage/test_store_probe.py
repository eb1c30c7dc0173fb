"""A store that does not keep its word is refused at the start, with the reason."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.buckets import names, opened_bucket, root_of_bucket, store_settings, url_of
from tests.support.fault_proxy import Action, FaultProxy, Request, everything
from tests.support.s3_servers import BUCKET, S3Server
from workers.errors import Unavailable
from workers.storage.layout import object_key
from workers.storage.shard_map import WrongStores
from workers.storage.stores import open_stores

pytestmark = pytest.mark.real

QUICK = {"request_timeout": 2.0, "retry_timeout": 3.0}


@pytest.fixture
def proxy(minio: S3Server, s3_credentials: None) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


@pytest.fixture
def lying(proxy: FaultProxy) -> str:
    return f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={proxy.endpoint}"


def condition(name: str) -> object:
    return lambda request: request.method == "PUT" and name in request.headers


def completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.path


def test_a_sound_store_passes_and_nothing_is_left(bucket_url: str) -> None:
    """MinIO and versitygw give one winner; what was tried is removed."""
    root_of_bucket(bucket_url).probe()
    assert names(bucket_url) == []


@pytest.mark.parametrize(
    ("matches", "said"),
    [
        (condition("if-none-match"), "creates a key once for each"),
        (condition("if-match"), "replace the same version"),
        (completion, "overwrites by copying"),
    ],
    ids=["create", "swap", "copy"],
)
def test_a_store_that_answers_success_to_several_is_refused(
    proxy: FaultProxy, lying: str, matches: object, said: str
) -> None:
    """The message says what is wrong and what would come of it."""
    proxy.fault(matches, Action.LIE_200)  # type: ignore[arg-type]
    with pytest.raises(WrongStores, match=rf"{said}.*silently overwrite") as caught:
        root_of_bucket(lying, store_settings(**QUICK)).probe()
    assert str(url_of(lying)) in str(caught.value)


def test_the_start_refuses_it_before_anything_is_stored(
    proxy: FaultProxy, lying: str, tmp_path: Path
) -> None:
    """Neither shard map nor identity is made in it, nor in the folder beside it."""
    proxy.fault(condition("if-none-match"), Action.LIE_200)  # type: ignore[arg-type]
    settings = store_settings(**QUICK)
    folder = tmp_path / "store"
    with pytest.raises(WrongStores, match="silently overwrite"):
        open_stores([folder, url_of(lying)], settings, working=True)
    assert list(folder.iterdir()) == []


def test_a_store_that_does_not_answer_is_not_called_a_liar(proxy: FaultProxy, lying: str) -> None:
    """It is unavailable, which is tried again."""
    proxy.fault(everything, Action.ERROR_503)
    with pytest.raises(Unavailable):
        root_of_bucket(lying, store_settings(**QUICK)).probe()


def test_errors_among_the_answers_do_not_matter(proxy: FaultProxy, lying: str) -> None:
    """Answers that may mean anything are no winners: a store under load passes."""
    proxy.fault(condition("if-none-match"), Action.STORE_500, 3)  # type: ignore[arg-type]
    root_of_bucket(lying, store_settings(**QUICK)).probe()


def test_a_bucket_that_is_not_there_is_named(minio: S3Server, s3_credentials: None) -> None:
    """An administrator makes buckets; the message says which is missing."""
    url = minio.url(bucket="absent")
    with pytest.raises(Unavailable, match=r"s3://absent: there is no such bucket"):
        open_stores([url_of(url)], store_settings(**QUICK))
    with (
        opened_bucket(url, store_settings(**QUICK)) as store,
        pytest.raises(Unavailable, match="no such bucket"),
    ):
        asyncio.run(store.put_new(object_key("1.2.3"), [b"x"]))
