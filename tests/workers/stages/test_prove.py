"""What is found of an instance for whoever asks, from a real folder and a real bucket: each rule, each damage."""

import errno
import os
import secrets
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from ingest.contract.commitments import Finding, Policy, Reference
from ingest.contract.records import Place
from ingest.contract.settings import Settings
from tests.support.asynchronous import asynchronous
from tests.support.buckets import MiB, store_settings, url_of
from tests.support.fault_proxy import FaultProxy
from tests.support.fences import asked
from tests.support.instances import SECONDARY_CAPTURE
from tests.support.proving import A2, KEY, UID, A, Archive, B, C, archive
from tests.support.s3_servers import BUCKET, S3Server
from workers.dataset.payload import FilePayload
from workers.errors import Unavailable
from workers.stages.prove import Prover, refuse_unprovable, wants_checksums
from workers.storage.bucket import Bucket
from workers.storage.durable_files import DurableFiles
from workers.storage.layout import Area, Key, conflict_key
from workers.storage.object_store import Look, ObjectStore
from workers.storage.part10 import HEAD
from workers.storage.shard_map import WrongStores
from workers.storage.stores import Stores

POLICIES = list(Policy)
FIRST_READ = 4 * 1024 * 1024  # bytes of the largest first read of any store


@pytest.fixture(
    params=[
        "",
        pytest.param("minio_url", marks=[pytest.mark.real, pytest.mark.xdist_group("buckets")]),
    ],
    ids=["directory", "minio"],
)
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param) if request.param else ""


@asynchronous
async def test_what_is_stored_is_proved(tmp_path: Path, url: str) -> None:
    """For its source under any policy, for another that sent the same, and by the class that it has."""
    async with archive(tmp_path, url) as one:
        assert (await one.receive(A)).place is Place.STORED
        assert (await one.receive(B)).place is Place.DUPLICATE
        assert [await one.find(A, policy) for policy in POLICIES] == [Finding.PROVED] * 3
        assert await one.find(B) is Finding.PROVED
        assert await one.find(C) is Finding.PROVED
        assert await one.find(A, sop_class="1.2.840.10008.5.1.4.1.1.2") is Finding.CLASS_MISMATCH
        assert await one.find(A, uid="1.2.3.4.6") is Finding.ABSENT


@asynchronous
async def test_large_objects_are_read_whole(tmp_path: Path, url: str) -> None:
    """Beyond what the first read brings, every byte counts, the last one too."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, pixels=2 * FIRST_READ)
        assert len(one.content()) > 2 * FIRST_READ
        assert await one.find(A) is Finding.PROVED
        one.flip(FIRST_READ + HEAD)
        assert await one.find(A) is Finding.DAMAGED


def _flip(one: Archive) -> None:
    one.flip()


def _flip_manifest(one: Archive) -> None:
    one.flip(700)


def _truncate(one: Archive) -> None:
    one.write(one.content()[:-1])


def _empty(one: Archive) -> None:
    one.write(b"")


def _delete(one: Archive) -> None:
    one.delete()


DAMAGE = [
    # what another tool did through the store, what READ and CHECKSUM find, what MANIFEST finds
    pytest.param(_flip, Finding.DAMAGED, Finding.PROVED, id="flipped"),
    pytest.param(_flip_manifest, Finding.DAMAGED, Finding.DAMAGED, id="flipped in the manifest"),
    pytest.param(_truncate, Finding.DAMAGED, Finding.DAMAGED, id="truncated"),
    pytest.param(_empty, Finding.DAMAGED, Finding.DAMAGED, id="empty"),
    pytest.param(_delete, Finding.ABSENT, Finding.ABSENT, id="deleted"),
]


@pytest.mark.parametrize(("damage", "by_read", "by_manifest"), DAMAGE)
@asynchronous
async def test_each_policy_finds_what_it_can(
    tmp_path: Path, url: str, damage: Callable[[Archive], None], by_read: Finding, by_manifest: Finding
) -> None:
    """Flipped bits are not in head and length; what has not the checksum of what we put is read back."""
    async with archive(tmp_path, url) as one:
        for policy, expected in (
            (Policy.MANIFEST, by_manifest),
            (Policy.CHECKSUM, by_read),
            (Policy.READ, by_read),
        ):
            await one.receive(A)
            damage(one)
            before = len(await one.keys(Area.QUARANTINE))
            assert await one.find(A, policy) is expected
            aside = len(await one.keys(Area.QUARANTINE)) - before
            assert aside == (expected is Finding.DAMAGED)
            if expected is Finding.PROVED:
                one.flip()


def _flip_on_disk(path: Path) -> None:
    largest = max((path, *path.rglob("*")), key=lambda found: found.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(2 * MiB)
        (byte,) = file.read(1)
        file.seek(2 * MiB)
        file.write(bytes([byte ^ 1]))


def _truncate_on_disk(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _delete_on_disk(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


ROT = [
    # where, what was done beneath the store, what READ, CHECKSUM and MANIFEST find
    pytest.param(
        "minio", _flip_on_disk, (Finding.UNAVAILABLE, Finding.PROVED, Finding.PROVED), id="minio flipped"
    ),
    pytest.param("minio", _delete_on_disk, (Finding.ABSENT,) * 3, id="minio deleted"),
    *(
        pytest.param("versitygw", damage, findings, id=f"versitygw {name}", marks=pytest.mark.servers)
        for name, damage, findings in (
            ("flipped", _flip_on_disk, (Finding.DAMAGED, Finding.PROVED, Finding.PROVED)),
            ("truncated", _truncate_on_disk, (Finding.DAMAGED,) * 3),
            ("deleted", _delete_on_disk, (Finding.ABSENT,) * 3),
        )
    ),
]


@pytest.mark.real
@pytest.mark.xdist_group("buckets")
@pytest.mark.parametrize(("server", "damage", "findings"), ROT)
@asynchronous
async def test_each_policy_finds_of_rot_what_it_can(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    s3_credentials: None,
    *,
    server: str,
    damage: Callable[[Path], None],
    findings: Sequence[Finding],
) -> None:
    """On a store's disks bits flip after it has checked them: only who reads them finds that.

    MinIO finds it by itself then, and does not hand them out; what is not known is never a success.
    """
    running: S3Server = request.getfixturevalue(server)
    for policy, expected in zip((Policy.READ, Policy.CHECKSUM, Policy.MANIFEST), findings, strict=True):
        prefix = secrets.token_hex(8)
        async with archive(tmp_path / prefix, running.url(prefix)) as one:
            await one.receive(A, pixels=3 * MiB)
            assert await one.find(A, policy) is Finding.PROVED
            damage(running.folder / "data" / BUCKET / prefix / str(KEY))
            assert await one.find(A, policy) is expected
            await one.receive(B, uid="1.2.3.4.6")
            assert await one.find(B, policy, uid="1.2.3.4.6") is Finding.PROVED, (
                "one that is rotten stops no other"
            )


@pytest.mark.real
@pytest.mark.xdist_group("buckets")
@asynchronous
async def test_a_checksum_is_asked_for_instead_of_the_bytes(
    tmp_path: Path, minio: S3Server, s3_credentials: None
) -> None:
    """Of what was put at once; what was staged in parts has none that counts, and is read."""
    with FaultProxy(minio.endpoint) as proxy:
        prefix = secrets.token_hex(8)
        async with archive(tmp_path, f"s3://{BUCKET}/{prefix}?endpoint={proxy.endpoint}") as one:
            for pixels, whole in ((8 * MiB, False), (17 * MiB, True)):
                uid = f"1.2.3.{pixels}"
                await one.receive(A, pixels=pixels, uid=uid)
                proxy.requests.clear()
                assert await one.find(A, Policy.CHECKSUM, uid=uid) is Finding.PROVED
                asked_for = [
                    (request.method, request.headers.get("range", "")) for request, _ in proxy.requests
                ]
                assert any(method == "HEAD" for method, _ in asked_for)
                last = max(int(span.rpartition("-")[2]) for _, span in asked_for if span)
                assert (last > pixels) == whole
                assert last > pixels or last <= HEAD


@asynchronous
async def test_what_was_set_aside_stays_damaged_until_it_is_repaired(tmp_path: Path, url: str) -> None:
    """Asked again after a crash, or later, the answer is the same; the next good copy is proved for everybody."""
    async with archive(tmp_path, url) as one:
        await one.receive(A)
        one.flip()
        assert await one.find(A) is Finding.DAMAGED
        assert await one.find(A) is Finding.DAMAGED
        assert await one.find(B) is Finding.ABSENT, "B may still send it"
        assert (await one.receive(B)).reason == "repaired"
        for ae_title in (A, B, C):
            assert await one.find(ae_title) is Finding.PROVED


@asynchronous
async def test_an_object_whose_head_is_gone_may_be_anybodys(tmp_path: Path, url: str) -> None:
    """Set aside from the store, it is damage for whoever asks, and no entry of a lane once it is repaired."""
    async with archive(tmp_path, url) as one:
        await one.receive(A)
        one.flip(300)
        assert await one.find(A) is Finding.DAMAGED
        assert await one.find(B) is Finding.DAMAGED
        await one.receive(A)
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.SET_APART, "what was lost may have been B's, and other content"


@asynchronous
async def test_other_content_in_the_place_of_what_was_damaged(tmp_path: Path, url: str) -> None:
    """A's is lost to damage, and B's takes the key without a conflict: A is not told that A's is safe."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        one.flip()
        assert await one.find(A) is Finding.DAMAGED
        assert (await one.receive(B, b"ID 2")).reason == "repaired"
        assert await one.find(A) is Finding.SET_APART
        assert await one.find(B) is Finding.PROVED


@asynchronous
async def test_a_conflict_is_told_to_those_whom_it_concerns(tmp_path: Path, url: str) -> None:
    """A's is stored, B's in the lane: A is safe, B is not, and C, who sent neither, cannot know which is meant."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        assert (await one.receive(B, b"ID 2")).place is Place.CONFLICT
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.SET_APART
        assert await one.find(C) is Finding.SET_APART
        assert await one.find(A, ae_titles=[B]) is Finding.SET_APART, "both are of one source"
        assert (await one.receive(C, b"ID 2")).place is Place.CONFLICT  # a repeat of B's
        assert await one.find(C) is Finding.SET_APART
        assert await one.find(A) is Finding.PROVED
        await one.resolved(b"ID 2")
        for ae_title in (A, B, C):
            assert await one.find(ae_title) is Finding.PROVED
        assert len(await one.keys(Area.CONFLICTS)) == 1, "A's is kept, and decided about"


@asynchronous
async def test_content_that_made_way_must_be_whole_for_its_source(tmp_path: Path, url: str) -> None:
    """A lost the conflict and may delete its copy: only while ours, in the lane, is proved. B's never was there."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(B, b"ID 2")
        await one.resolved(b"ID 2")
        assert await one.find(A) is Finding.PROVED
        one.flip(-10, conflict_key(UID, one.digest(b"ID 1")))
        assert await one.find(B) is Finding.PROVED
        assert await one.find(A, Policy.MANIFEST) is Finding.PROVED, "which sees no flipped bits"
        assert await one.find(A) is Finding.DAMAGED
        assert not await one.keys(Area.CONFLICTS), "set aside"
        assert await one.find(A) is Finding.SET_APART
        assert await one.find(B) is Finding.PROVED


@asynchronous
async def test_what_was_discarded_is_no_question_any_more(tmp_path: Path, url: str) -> None:
    """An administrator gave it up: it is absent, and once another copy is stored, that is what is under the UID."""
    async with archive(tmp_path, url) as one:
        await one.quarantined(A)
        assert await one.find(A) is Finding.SET_APART
        await one.discarded()
        assert await one.find(A) is Finding.ABSENT
        await one.receive(B, b"ID 2")
        assert await one.find(A) is Finding.PROVED
        await one.quarantined(A)
        assert await one.find(A) is Finding.SET_APART, "one more, of which nobody has decided"


@asynchronous
async def test_a_source_in_conflict_with_itself(tmp_path: Path, url: str) -> None:
    """A technologist corrected the patient and sent the same UIDs again, under another AE title of the console."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(A2, b"ID 2")
        assert await one.find(A, ae_titles=[A2]) is Finding.SET_APART
        assert await one.find(A2, ae_titles=[A]) is Finding.SET_APART
        await one.resolved(b"ID 2")
        assert await one.find(A, ae_titles=[A2]) is Finding.PROVED


@asynchronous
async def test_an_interrupted_resolution_says_nothing_too_early(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the key has B's content B is not safe, whatever is recorded; as soon as it has, B is."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(B, b"ID 2")
        store = one.stores.of(KEY)
        for name, expected in (("replace", Finding.SET_APART), ("remove", Finding.PROVED)):
            original = getattr(store, name)

            async def fails(key: object, *rest: object, original: Callable[..., object] = original) -> None:
                if key in (KEY, conflict_key(UID, one.digest(b"ID 2"))):
                    raise Unavailable("stopped", 0)
                await original(key, *rest)  # type: ignore[misc]

            with monkeypatch.context() as patch:
                patch.setattr(store, name, fails)
                with pytest.raises(Unavailable):
                    await one.resolved(b"ID 2")
            assert await one.find(B) is expected


@asynchronous
async def test_what_is_in_quarantine_is_not_committed_to_its_source(tmp_path: Path, url: str) -> None:
    """Until it is replayed; to others it is simply not there."""
    async with archive(tmp_path, url) as one:
        await one.quarantined(A)
        assert await one.find(A) is Finding.SET_APART
        assert await one.find(A2, ae_titles=[A]) is Finding.SET_APART
        assert await one.find(B) is Finding.ABSENT
        await one.quarantined(B)  # the same bytes: a repeat
        assert await one.find(B) is Finding.SET_APART
        assert await one.replayed() is Place.STORED
        assert not await one.keys(Area.QUARANTINE)
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.PROVED


@asynchronous
async def test_a_replay_that_has_yet_to_remove_the_entry_is_over(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the new place and the removal, the entry says nothing any more, nor do its repeats."""
    async with archive(tmp_path, url) as one:
        await one.quarantined(A)
        await one.quarantined(B)

        async def stopped(key: object) -> None:
            raise Unavailable("stopped", 0)

        with monkeypatch.context() as patch:
            patch.setattr(one.stores.of(KEY), "remove", stopped)
            with pytest.raises(Unavailable):
                await one.replayed()
        assert len(await one.keys(Area.QUARANTINE)) == 2
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.PROVED


@asynchronous
async def test_beside_a_good_object_anothers_rejected_copy_does_not_count(tmp_path: Path, url: str) -> None:
    """A's is stored; what B sent under the same UID could not be read: B is told so, and A is safe."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.quarantined(B, b"ID 2")
        assert await one.find(A) is Finding.PROVED
        assert await one.find(B) is Finding.SET_APART
        assert await one.find(C) is Finding.SET_APART


@pytest.mark.parametrize("part", ["entry", "repeat"])
@asynchronous
async def test_what_nobody_can_read_any_more_may_be_anybodys(tmp_path: Path, url: str, part: str) -> None:
    """A success for the wrong one is worse than a failure that an administrator must look at."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(B, b"ID 2")
        await one.receive(C, b"ID 2")
        key = conflict_key(UID, one.digest(b"ID 2"))
        if part == "repeat":
            key = next(found for found in await one.keys(Area.CONFLICTS) if found != key)
        one.write(b"no longer what it was", key)
        assert await one.find(A) is Finding.SET_APART


@asynchronous
async def test_a_damaged_entry_that_was_set_aside_still_waits(tmp_path: Path, url: str) -> None:
    """What B sent was in the lane, and rotted there: it is in quarantine now, and B is not told that it is safe."""
    async with archive(tmp_path, url) as one:
        await one.receive(A, b"ID 1")
        await one.receive(B, b"ID 2")
        one.flip(-10, conflict_key(UID, one.digest(b"ID 2")))
        one.write(
            one.content(conflict_key(UID, one.digest(b"ID 2")))[:-1], conflict_key(UID, one.digest(b"ID 2"))
        )
        assert (await one.receive(B, b"ID 2")).place is Place.CONFLICT  # which sets the first aside
        for key in await one.keys(Area.CONFLICTS):
            one.delete(key)
        assert await one.find(B) is Finding.SET_APART
        assert await one.find(A) is Finding.PROVED


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
        named: dict[str, ObjectStore] = one.stores._stores  # type: ignore[assignment]
        (name,) = named
        real = named[name]
        for times, findings in (
            (float("inf"), {Finding.UNAVAILABLE}),
            (1, {Finding.UNAVAILABLE, Finding.PROVED}),
        ):
            for policy in POLICIES:
                named[name] = Silent(real, times, failing)  # type: ignore[assignment]
                found = await one.find(A, policy)
                assert found in findings or failing == "filled"
                assert found is not Finding.ABSENT
                assert await one.find(A, policy, uid="1.2.3.4.99") in {Finding.UNAVAILABLE, Finding.ABSENT}
        named[name] = Silent(real, float("inf"), "start")  # type: ignore[assignment]
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
        bucket = store._bucket  # type: ignore[attr-defined]
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
        named: dict[str, ObjectStore] = one.stores._stores  # type: ignore[assignment]
        named[store.name] = Lying(store, 0, "open")  # type: ignore[assignment]
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


CHECKSUM = {"commitment": {"enabled": True, "proof": "checksum"}}
ONE_WITH_CHECKSUM = {
    "commitment": {"enabled": True},
    "sources": {"ct": {"ae_titles": ["CT"], "proof": "checksum"}},
}


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
