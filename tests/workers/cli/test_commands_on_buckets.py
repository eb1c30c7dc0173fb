"""Lanes, `get`, `verify`, `status` and `shards` where the store is a bucket, as an administrator meets them."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Place
from tests.support.buckets import content, names, root_of_bucket
from tests.support.command import run
from tests.support.datasets import data_set_bytes
from tests.support.fault_proxy import Action, FaultProxy, Request, gets_of
from tests.support.placing import CT, instance_of, placing
from tests.support.s3_servers import S3Server
from workers.cli.moves import read_moves
from workers.errors import Unavailable
from workers.storage.layout import Area, object_key
from workers.storage.resolution import CannotResolve, resolve

pytestmark = pytest.mark.real

UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
FIRST = data_set_bytes(CT)
OTHER = FIRST.replace(b"CompressedSamples^CT1", b"CompressedSamples^CT2")
CUT = FIRST[:400]
KEY = str(object_key(UID))


def place(data: Path, url: str, *data_sets: bytes, encode: bool = False, after: int = 0) -> list[Place]:
    """``after``: uploads that there have been."""

    async def scenario() -> list[Place]:
        async with placing(data, encode=encode, urls=[url]) as one:
            one.sequence = after
            return [(await one.data_set(data_set, CT)).place for data_set in data_sets]

    return asyncio.run(scenario())


@pytest.fixture
def url(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DICOM_INGEST_STORE__URLS", bucket_url)
    return bucket_url


@pytest.fixture
def data(tmp_path: Path, url: str) -> Path:
    """One stored, sent again, a conflict, and a quarantined one that was sent twice."""
    placed = place(tmp_path, url, FIRST, FIRST, OTHER, CUT, CUT)
    assert placed == [
        Place.STORED, Place.DUPLICATE, Place.CONFLICT, Place.QUARANTINED, Place.QUARANTINED,
    ]  # fmt: skip
    return tmp_path


def test_quarantine_is_listed_shown_and_discarded(data: Path, url: str) -> None:
    """As on a folder; the path is a URL, which names the entry too."""
    (entry,) = run(data, "quarantine", "list", "--json").json
    assert (entry["sop_instance_uid"], entry["reason"], entry["repeats"]) == (UID, "truncated", 1)
    assert entry["path"].startswith("s3://tests/")
    assert "endpoint" not in entry["path"]
    assert hashlib.sha256(CUT).hexdigest() == entry["source_digest"]
    assert "truncated" in run(data, "quarantine", "show", entry["path"]).out
    discarded = run(data, "quarantine", "discard", entry["key"], "--reason", "test", "--json").json
    assert discarded[0]["uploads"] == 2
    assert run(data, "quarantine", "list", "--json").json == []
    moved = read_moves([root_of_bucket(url)])
    assert {(move.source, move.target) for move in moved} == {(Place.QUARANTINED, Place.DISCARDED)}
    assert len(moved) == 2


def test_a_replay_that_is_rejected_again_stays(data: Path) -> None:
    """Exit code 1, and the entry is where it was."""
    assert run(data, "quarantine", "replay", UID).code == 1
    assert len(run(data, "quarantine", "list", "--json").json) == 1


def test_a_conflict_is_resolved_and_taken_back(data: Path, url: str) -> None:
    """The preferred content is what `get` hands out, and all is proved."""
    (entry,) = run(data, "conflicts", "list", "--json").json
    target = data / "got.dcm"
    for prefer, expected in ((entry["source_digest"], OTHER), (hashlib.sha256(FIRST).hexdigest(), FIRST)):
        done = run(data, "conflicts", "resolve", UID, "--prefer", prefer, "--reason", "corrected")
        assert done.code == 0, done.err
        assert run(data, "get", "--sop", UID, str(target)).code == 0
        assert data_set_bytes(target) == expected
        assert len(run(data, "conflicts", "list", "--json").json) == 1
    assert run(data, "verify").code == 0
    assert not [name for name in names(url) if name.startswith("staging/")]


def test_get_decompresses_with_proof(tmp_path: Path, url: str) -> None:
    """A transcoded object comes back as it was sent."""
    assert place(tmp_path, url, FIRST, encode=True) == [Place.STORED]
    done = run(tmp_path, "get", "--sop", UID, "--decompress", str(tmp_path / "out.dcm"))
    assert done.code == 0, done.err
    assert run(tmp_path, "get", "--sop", "1.2.3", str(tmp_path / "none.dcm")).code == 1
    assert run(tmp_path, "verify").code == 0


def test_verify_sets_aside_what_is_damaged_and_a_resend_repairs_it(data: Path, url: str) -> None:
    """The damaged object is kept whole in quarantine, its move is counted, the next copy takes its key."""
    bucket = root_of_bucket(url)._bucket
    damaged = bytearray(content(url, KEY))
    damaged[-1] ^= 1
    head = bucket.head(KEY)
    assert head is not None
    assert bucket.swap(KEY, [bytes(damaged)], head.version) is not None
    assert run(data, "get", "--sop", UID, str(data / "x")).code == 1
    report = run(data, "verify", "--json")
    assert report.code == 1
    (problem,) = report.json["problems"]
    assert problem["damaged"]
    assert content(url, problem["set_aside"]) == bytes(damaged)
    assert KEY not in names(url)
    assert [(move.source, move.target) for move in read_moves([root_of_bucket(url)])] == [
        (Place.STORED, Place.QUARANTINED)
    ]
    assert place(data, url, FIRST, after=5) == [Place.STORED]
    assert run(data, "verify").code == 0
    assert run(data, "get", "--sop", UID, str(data / "x")).code == 0


def test_wrong_bytes_on_the_way_are_noticed(
    minio: S3Server, s3_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By digest: nothing wrong is handed out, and what is sound is not called lost."""
    sound = minio.url(tmp_path.name)
    place(tmp_path, sound, FIRST)
    with FaultProxy(minio.endpoint) as proxy:
        monkeypatch.setenv("DICOM_INGEST_STORE__URLS", sound.replace(minio.endpoint, proxy.endpoint))
        proxy.fault(gets_of(KEY), Action.WRONG)
        assert run(tmp_path, "get", "--sop", UID, str(tmp_path / "out.dcm")).code == 1
        assert not (tmp_path / "out.dcm").exists()
        assert run(tmp_path, "verify", "--report-only").code == 1
        proxy.heal()
        assert run(tmp_path, "verify").code == 0
        proxy.fault(gets_of(KEY), Action.TRUNCATED, 2)
        assert run(tmp_path, "get", "--sop", UID, str(tmp_path / "out.dcm")).code == 0
        assert data_set_bytes(tmp_path / "out.dcm") == FIRST


def test_verify_tells_what_it_found_before_a_store_fell_silent(
    minio: S3Server, s3_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was set aside is named, and that not all was read."""
    sound = minio.url(tmp_path.name)
    place(tmp_path, sound, FIRST)
    bucket = root_of_bucket(sound)._bucket
    head = bucket.head(KEY)
    assert head is not None
    assert bucket.swap(KEY, [content(sound, KEY)[:-1]], head.version) is not None
    listings = itertools.count()

    def is_second_listing(request: Request) -> bool:
        return "list-type" in request.path and "conflicts" in request.path and next(listings) > 0

    monkeypatch.setenv("DICOM_INGEST_STORE__RETRY_TIMEOUT", "1")
    with FaultProxy(minio.endpoint) as proxy:
        monkeypatch.setenv("DICOM_INGEST_STORE__URLS", sound.replace(minio.endpoint, proxy.endpoint))
        proxy.fault(is_second_listing, Action.ERROR_503)
        done = run(tmp_path, "verify")
    assert done.code == 1
    assert f"{KEY}: " in done.out
    assert "set aside as quarantine/" in done.out
    assert "not all was read" in done.err


def test_one_wrong_answer_moves_nothing(minio: S3Server, s3_credentials: None, tmp_path: Path) -> None:
    """Whichever read it is the answer to: each upload comes to the place where it belongs, and what is stored stays."""
    sent = (FIRST, OTHER, OTHER, CUT, CUT, FIRST)
    belongs = [
        Place.STORED, Place.CONFLICT, Place.CONFLICT, Place.QUARANTINED, Place.QUARANTINED, Place.DUPLICATE,
    ]  # fmt: skip
    expected: list[str] = []
    with FaultProxy(minio.endpoint) as proxy:
        for number in itertools.count():
            url = minio.url(f"{tmp_path.name}-{number}")
            proxy.fault(read_of_number(number), Action.WRONG, 1)
            faulty = url.replace(minio.endpoint, proxy.endpoint)
            assert asyncio.run(placed_and_resolved(tmp_path / str(number), faulty, sent)) == belongs, number
            # The history of resolutions is named by the time.
            kept = [name for name in names(url) if not name.startswith(str(Area.RESOLUTIONS))]
            expected = expected or kept
            assert kept == expected, number
            proxy.heal()
            if [action for _, action in proxy.requests].count(Action.WRONG) <= number:
                break
    assert number > len(sent)


def read_of_number(number: int) -> Callable[[Request], bool]:
    """The read of that number, from 0, of an object or an entry."""
    reads = itertools.count()
    return lambda request: request.method == "GET" and ".dcm" in request.path and next(reads) == number


async def placed_and_resolved(data: Path, url: str, data_sets: Sequence[bytes]) -> list[Place]:
    """As a worker and an administrator do, who try again what the store cannot do now; the conflict is resolved at the end."""
    places = []
    async with placing(data, encode=False, urls=[url]) as one:
        for number, data_set in enumerate(data_sets, 1):
            while True:
                with contextlib.suppress(Unavailable):
                    outcome = await one.upload(UploadId.of(1, 1, number), instance_of(data_set, CT), data_set)
                    places.append(outcome.place)
                    break
        preferred = hashlib.sha256(OTHER).hexdigest()
        while True:
            with contextlib.suppress(Unavailable, CannotResolve):
                await resolve(one.stores, UID, preferred, "the later one is right")
                break
    return places


def test_status_and_shards(data: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, the map and its stores, a folder added to it, and shards moved from bucket to folder."""
    status = run(data, "status", "--json").json
    (group,) = status["store"]
    assert (group["objects"], group["bytes"]) == (1, len(content(url, KEY)))
    shown = run(data, "shards", "show", "--json").json
    assert shown["stores"][0]["shards"] == 4096
    assert shown["stores"][0]["directory"].startswith("s3://")
    more = tmp_path / "more"
    added = run(data, "shards", "add", str(more))
    assert added.code == 0, added.err
    assert run(data, "verify").code == 1  # the settings do not name it yet
    assert run(data, "shards", "add", "http://elsewhere").code == 2
    monkeypatch.setenv("DICOM_INGEST_STORE__DIRECTORIES", str(more))
    moved = run(data, "shards", "rebalance")
    assert moved.code == 0, moved.err
    shown = run(data, "shards", "show", "--json").json
    assert [row["shards"] for row in shown["stores"]] == [2048, 2048]
    verified = run(data, "verify", "--json")
    assert verified.code == 0
    assert (verified.json["objects"], verified.json["entries"]) == (1, 2)


def test_a_missing_bucket_or_wrong_credentials_is_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, no secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quite-another-secret")
    for command in (["quarantine", "list"], ["verify"], ["status"], ["shards", "show"]):
        done = run(data, *command)
        assert done.code == 1, command
        assert "refuses our credentials" in done.err
        assert "quite-another-secret" not in done.err + done.out
        assert len(done.err.strip().splitlines()) == 1


def test_commands_end_with_their_own_exit_code(data: Path) -> None:
    """Over many runs: an interpreter that ends after talking to a bucket does not abort."""
    codes = [
        subprocess.run(
            [sys.executable, "-m", "ingest", "quarantine", "list", "--json", "--data", str(data)],
            check=False, capture_output=True,
        )
        for _ in range(8)
    ]  # fmt: skip
    assert [done.returncode for done in codes] == [0] * 8
    assert all(json.loads(done.stdout) for done in codes)
