"""What is found of an instance for whoever asks, from a real folder and a real bucket: each rule, each damage."""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ingest.contract.commitments import Finding, Policy
from ingest.contract.records import Place
from tests.support.asynchronous import asynchronous
from tests.support.buckets import MiB
from tests.support.fault_proxy import FaultProxy
from tests.support.proving import KEY, A, Archive, B, C, archive
from tests.support.s3_servers import BUCKET, S3Server
from workers.storage.layout import Area
from workers.storage.part10 import HEAD

POLICIES = list(Policy)
FIRST_READ = 4 * 1024 * 1024  # bytes of the largest first read of any store
CHECKSUM = {"commitment": {"enabled": True, "proof": "checksum"}}


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
