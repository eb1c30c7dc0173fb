"""What is said while stores are silent, lie once, or do not sync, and of policies that they cannot serve: never a success that is none."""

import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from ingest.contract.commitments import Finding, Policy, Reference
from ingest.contract.settings import Settings
from tests.support.asynchronous import asynchronous
from tests.support.buckets import store_settings, url_of
from tests.support.fences import asked
from tests.support.instances import SECONDARY_CAPTURE
from tests.support.proving import KEY, UID, A, B, archive
from workers.dataset.payload import FilePayload
from workers.errors import Unavailable
from workers.stages.prove import Prover, refuse_unprovable, wants_checksums
from workers.storage.bucket import Bucket
from workers.storage.durable_files import DurableFiles
from workers.storage.layout import Area, Key
from workers.storage.object_store import Look, ObjectStore
from workers.storage.shard_map import WrongStores
from workers.storage.stores import Stores

POLICIES = list(Policy)
CHECKSUM = {"commitment": {"enabled": True, "proof": "checksum"}}
ONE_WITH_CHECKSUM = {
    "commitment": {"enabled": True},
    "sources": {"ct": {"ae_titles": ["CT"], "proof": "checksum"}},
}


class Silent:
    """A store that does not answer at times."""

    def __init__(self, store: ObjectStore, times: float, failing: str) -> None:
        self._store = store
        self._times = times
        self._failing = failing

    def __getattr__(self, name: str) -> object:
        if name == self._failing or (name == "read_back" and self._failing == "start"):
            return partial(self._fail, name)
        return getattr(self._store, name)

    async def _fail(self, name: str, *arguments: object) -> object:
        if self._times > 0:
            self._times -= 1
            raise Unavailable("store: it does not answer in time", 0.01)
        return await getattr(self._store, name)(*arguments)


@pytest.mark.parametrize("failing", ["start", "find", "filled"])
@asynchronous
async def test_silence_is_never_absence(tmp_path: Path, failing: str) -> None:
    """Whatever it does not answer: what is not known is asked again, and a moment's silence changes nothing."""
    async with archive(tmp_path) as one:
        await one.receive(A)
        await one.receive(B, b"ID 2")
        named: dict[str, ObjectStore] = one.stores._stores  # type: ignore[assignment] # and what stands in
        (name,) = named
        real = named[name]
        for times, findings in (
            (float("inf"), {Finding.UNAVAILABLE}),
            (1, {Finding.UNAVAILABLE, Finding.PROVED}),
        ):
            for policy in POLICIES:
                named[name] = Silent(real, times, failing)  # type: ignore[assignment] # stands in for it
                found = await one.find(A, policy)
                assert found in findings or failing == "filled"
                assert found is not Finding.ABSENT
                assert await one.find(A, policy, uid="1.2.3.4.99") in {Finding.UNAVAILABLE, Finding.ABSENT}
        named[name] = Silent(real, float("inf"), "start")  # type: ignore[assignment] # stands in for it
        assert await one.find(A, uid="1.2.3.4.99") is Finding.UNAVAILABLE
        named[name] = real


@pytest.mark.real
@pytest.mark.xdist_group("buckets")
@asynchronous
async def test_a_bucket_that_is_gone_is_not_an_absent_instance(
    tmp_path: Path, minio_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers "not found" to every question, which is an error of the store."""
    async with archive(tmp_path, minio_url) as one:
        await one.receive(A)
        store = one.stores.of(KEY)
        bucket = store._bucket  # type: ignore[attr-defined] # it is a bucket
        gone = Bucket(url_of(minio_url.replace("s3://tests/", "s3://no-such-bucket/")), store_settings())
        monkeypatch.setattr(bucket, "_client", gone._client)
        for policy in POLICIES:
            assert await one.find(A, policy) is Finding.UNAVAILABLE


@asynchronous
async def test_a_read_that_lies_once_damages_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found damaged, an object is looked at again under the lock before it is set aside."""
    async with archive(tmp_path) as one:
        await one.receive(A)
        store = one.stores.of(KEY)
        wrong = tmp_path / "wrong"
        wrong.write_bytes(one.content()[:-1] + b"?")
        lies = 1

        async def read_back(keys: deque[Key], look: Look) -> None:
            with FilePayload(wrong) as lie:
                look(keys.pop(), lie.size, lie.blocks())

        class Lying(Silent):
            async def _fail(self, name: str, *arguments: object) -> object:
                nonlocal lies
                lies -= 1
                return await store.open(KEY) if lies < 0 else FilePayload(wrong)

        monkeypatch.setattr(store, "read_back", read_back)
        named: dict[str, ObjectStore] = one.stores._stores  # type: ignore[assignment] # and what stands in
        named[store.name] = Lying(store, 0, "open")  # type: ignore[assignment] # stands in for it
        assert await one.find(A) is Finding.PROVED
        assert lies < 0
        assert not await one.keys(Area.QUARANTINE)
        named[store.name] = store


@asynchronous
async def test_what_is_not_durable_is_not_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stored it may have died before its own sync: the proof is worth what the disk has taken."""
    async with archive(tmp_path) as one:
        await one.receive(A)
        store = one.stores.of(KEY)
        order: list[str] = []
        read_back, sync = store.read_back, store.sync

        async def reading(keys: deque[Key], look: Look) -> None:
            await read_back(keys, look)
            order.append("read")

        async def syncing() -> None:
            order.append("sync")
            await sync()

        async def failing() -> None:
            raise Unavailable("store: Input/output error", 0.01)

        def failing_too(descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(store, "read_back", reading)
        monkeypatch.setattr(store, "sync", syncing)
        assert await one.find(A) is Finding.PROVED
        assert order == ["read", "sync"]
        monkeypatch.setattr(store, "sync", failing)
        assert await one.find(A) is Finding.PROVED, "this process has stored it, and synced it then"
        monkeypatch.setattr(store, "_durable", DurableFiles())
        assert await one.find(A) is Finding.PROVED, "file and folder can be synced"
        monkeypatch.setattr(store, "_durable", DurableFiles())
        monkeypatch.setattr(os, "fsync", failing_too)
        assert await one.find(A) is Finding.UNAVAILABLE


@asynchronous
async def test_many_are_found_in_their_order_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget bounds what is looked at at once, over all that ask at the same time."""
    async with archive(tmp_path) as one:
        uids = [f"1.2.3.{number}" for number in range(60)]
        for number, uid in enumerate(uids):
            if number % 3:
                await one.receive(A, uid=uid)
        store = one.stores.of(KEY)
        working, most = 0, 0

        def counted(work: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
            async def call(*arguments: object) -> object:
                nonlocal working, most
                working += 1
                most = max(most, working)
                try:
                    return await work(*arguments)
                finally:
                    working -= 1

            return call

        for name in ("read_back", "start", "sync"):
            monkeypatch.setattr(store, name, counted(getattr(store, name)))
        prover = Prover(one.stores, 3)
        questions = [Reference(SECONDARY_CAPTURE, uid) for uid in uids]
        found = await prover.prove(asked(ae_titles=(A,)), questions)
        assert [one.sop_instance_uid for one in found] == uids
        assert [one.finding for one in found] == [
            Finding.PROVED if number % 3 else Finding.ABSENT for number in range(60)
        ]
        assert 1 < most <= 3


@asynchronous
async def test_a_defect_of_ours_costs_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never a success, and the worker does not end over and over by the same question."""
    async with archive(tmp_path) as one:
        await one.receive(A)

        def defect(self: Stores, key: object) -> ObjectStore:
            raise ZeroDivisionError

        prover = Prover(one.stores, 1)
        store = one.stores.of(KEY)
        monkeypatch.setattr(store, "read_back", defect)
        monkeypatch.setattr(store, "start", defect)
        (found,) = await prover.prove(asked(ae_titles=(A,)), [Reference(SECONDARY_CAPTURE, UID)])
        assert found.finding is Finding.UNAVAILABLE


@pytest.mark.parametrize(
    ("tables", "names"), [(CHECKSUM, "commitment.proof"), (ONE_WITH_CHECKSUM, "sources.ct.proof")]
)
@pytest.mark.parametrize(
    ("store", "place"),
    [
        ({"urls": ["gs://bucket/prefix"]}, "gs://bucket/prefix"),
        ({"urls": ["s3://bucket", "az://account/container"]}, "az://account/container"),
        ({"urls": ["s3://bucket/prefix"], "directories": ["/srv/store"]}, "/srv/store"),
        ({"urls": ["s3://bucket/prefix"], "checksum": "crc64nvme"}, "s3://bucket/prefix .*store.checksum"),
        ({}, "/store"),
    ],
)
def test_a_store_that_has_no_checksum_is_refused(
    store: dict[str, object], place: str, tables: dict[str, object], names: str
) -> None:
    """By name of the setting and of a store, at start."""
    with pytest.raises(WrongStores, match=f"{place}.*{names}"):
        refuse_unprovable(Settings.model_validate(tables | {"store": store}))


@pytest.mark.parametrize("proof", ["read", "manifest"])
def test_other_policies_are_not(proof: str) -> None:
    """Nor one that is not in force, while commitment is off."""
    for commitment in ({"enabled": True, "proof": proof}, {"proof": "checksum"}):
        settings = Settings.model_validate({"commitment": commitment})
        refuse_unprovable(settings)
        assert not wants_checksums(settings)


@pytest.mark.parametrize("tables", [CHECKSUM, ONE_WITH_CHECKSUM])
def test_a_store_of_s3_is_tried_when_it_is_opened(tables: dict[str, object]) -> None:
    """Which only then can tell."""
    settings = Settings.model_validate(tables | {"store": {"urls": ["s3://bucket/prefix"]}})
    refuse_unprovable(settings)
    assert wants_checksums(settings)
