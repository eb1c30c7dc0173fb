"""Receiver and workers as processes, their store in buckets: end to end, with one that dies, and how they end."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.contract.running import running_processes
from tests.support.acceptance import Sent, send_data_sets, settle
from tests.support.buckets import names
from tests.support.fault_proxy import Action, FaultProxy, everything
from tests.support.pipeline import Pipeline, assert_adds_up
from tests.support.s3_servers import BUCKET, S3Server
from tests.support.scu import CT, ct_data_set
from tests.support.waiting import until
from workers.storage.layout import object_key

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("buckets")]


def environment(urls: str, folder: Path | None = None) -> dict[str, str]:
    """Settings for processes: stores, short times, and no codec."""
    found = {
        **S3Server.environment,
        "DICOM_INGEST_STORE__URLS": urls,
        "DICOM_INGEST_STORE__REQUEST_TIMEOUT": "1.5",
        "DICOM_INGEST_STORE__RETRY_TIMEOUT": "3",
        "DICOM_INGEST_STORE__LEASE": "5",
        "DICOM_INGEST_TRANSCODE__ENABLED": "false",
        "DICOM_INGEST_LOG__PARTITIONS": "4",
    }
    return found | ({"DICOM_INGEST_STORE__DIRECTORIES": str(folder)} if folder else {})


def instances(number: int, first: int = 0) -> list[Sent]:
    return [Sent(CT, uid := f"1.2.840.{first + n}", ct_data_set(uid, 8192)) for n in range(number)]


@pytest.fixture
def proxy(minio: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(minio.endpoint) as proxy:
        yield proxy


def works(pipeline: Pipeline) -> bool:
    """Whether a worker has opened its stores."""
    return any(process.name.startswith("worker-") for process in running_processes(pipeline.data))


def objects(url: str) -> set[str]:
    return {name for name in names(url) if name.endswith(".dcm")}


def test_what_is_acknowledged_is_in_the_bucket_once(bucket_url: str, tmp_path: Path) -> None:
    """Two workers, everything sent twice: exact counts, verified bytes, exit code 0."""
    sent = instances(60)
    with Pipeline(tmp_path / "data", workers=2, environment=environment(bucket_url)) as pipeline:
        for _ in range(2):
            assert set(send_data_sets(pipeline.port, sent)) == {0}
        status = settle(pipeline)
        assert_adds_up(status)
        assert (status["stored"], status["duplicates"]) == (60, 60)
        assert objects(bucket_url) == {str(object_key(one.uid)) for one in sent}
        verified = pipeline.run_json("verify")
        assert (verified["objects"], verified["problems"]) == (60, [])
        assert pipeline.stop() == 0
    assert not [name for name in names(bucket_url) if name.startswith(("presence/", "staging/", "probe/"))]


def test_workers_killed_at_any_time_lose_nothing(minio_url: str, tmp_path: Path) -> None:
    """SIGKILL to all, several times while storing: everything once in the end."""
    sent = instances(200)
    with Pipeline(tmp_path / "data", workers=2, environment=environment(minio_url)) as pipeline:
        for part in range(4):
            assert set(send_data_sets(pipeline.port, sent[part * 50 : part * 50 + 50])) == {0}
            time.sleep(0.15 * part)
            pipeline.kill()
            pipeline.start()
        status = settle(pipeline)
        assert_adds_up(status)
        assert status["stored"] == 200
        assert objects(minio_url) == {str(object_key(one.uid)) for one in sent}
        verified = pipeline.run_json("verify")
        assert (verified["objects"], verified["problems"]) == (200, [])
        assert pipeline.stop() == 0


@pytest.mark.parametrize("action", [Action.HANG, Action.ERROR_503])
def test_a_dead_store_stops_its_own_shards_only(
    minio: S3Server, proxy: FaultProxy, s3_credentials: None, tmp_path: Path, action: Action
) -> None:
    """What goes elsewhere is stored meanwhile; the rest waits, and is stored once it answers again."""
    sound = minio.url(tmp_path.name)
    faulty = f"s3://{BUCKET}/{tmp_path.name}?endpoint={proxy.endpoint}"
    folder = tmp_path / "folder"
    with Pipeline(tmp_path / "data", environment=environment(faulty, folder)) as pipeline:
        assert set(send_data_sets(pipeline.port, instances(20))) == {0}
        settle(pipeline)
        in_bucket = len(objects(sound))
        assert 0 < in_bucket < 20
        proxy.fault(everything, action)
        sent = instances(120, first=1000)
        assert set(send_data_sets(pipeline.port, sent)) == {0}
        before = len(list(folder.glob("*/*.dcm")))
        # About half of them are the folder's; all of those arrive.
        elsewhere = 20 - in_bucket
        until(lambda: len(list(folder.glob("*/*.dcm"))) > elsewhere + 30, "the folder's half", 120)
        assert len(objects(sound)) == in_bucket
        assert before <= len(list(folder.glob("*/*.dcm")))
        proxy.heal()
        until(lambda: len(objects(sound)) + len(list(folder.glob("*/*.dcm"))) == 140, "all of them", 120)
        assert pipeline.stop() == 0


@pytest.mark.slow
def test_workers_start_while_a_store_is_dead(
    minio: S3Server, proxy: FaultProxy, s3_credentials: None, tmp_path: Path
) -> None:
    """They serve the other stores' shards, and take the dead one in when it answers, without a restart."""
    sound = minio.url(tmp_path.name)
    faulty = f"s3://{BUCKET}/{tmp_path.name}?endpoint={proxy.endpoint}"
    folder = tmp_path / "folder"

    def stored() -> int:
        return len(list(folder.glob("*/*.dcm")))

    with Pipeline(tmp_path / "data", environment=environment(faulty, folder)) as pipeline:
        until(lambda: works(pipeline), "the worker")
        assert pipeline.stop() == 0
        proxy.fault(everything, Action.ERROR_503)
        pipeline.start()
        assert set(send_data_sets(pipeline.port, instances(40))) == {0}
        elsewhere = sum(int(object_key(one.uid).shard, 16) % 2 == 0 for one in instances(40))
        until(lambda: stored() == elsewhere, "the folder's half")
        assert objects(sound) == set()
        assert "does not answer" in pipeline.log.read_text()
        proxy.heal()
        until(lambda: len(objects(sound)) == 40 - elsewhere, "the bucket's half", 120)
        assert stored() == elsewhere
        assert pipeline.stop() == 0


@pytest.mark.parametrize("ready", [False, True], ids=["opening", "working"])
def test_a_worker_ends_while_its_store_hangs(
    minio: S3Server, proxy: FaultProxy, s3_credentials: None, tmp_path: Path, ready: bool
) -> None:
    """SIGTERM: in time, with exit code 0, and the next start stores what waited."""
    sound = minio.url(tmp_path.name)
    faulty = f"s3://{BUCKET}/{tmp_path.name}?endpoint={proxy.endpoint}"
    settings = environment(faulty) | {
        "DICOM_INGEST_STORE__REQUEST_TIMEOUT": "600", "DICOM_INGEST_STORE__RETRY_TIMEOUT": "600",
        "DICOM_INGEST_WORKER__STOP_TIMEOUT": "3",
    }  # fmt: skip
    sent = instances(30)
    with Pipeline(tmp_path / "data", environment=settings) as pipeline:
        if ready:
            until(lambda: works(pipeline), "the worker")
        proxy.fault(everything, Action.HANG)
        assert set(send_data_sets(pipeline.port, sent)) == {0}
        time.sleep(1)
        assert pipeline.stop() == 0  # which waits for much less than the store's own time-outs
        assert "child killed" not in pipeline.log.read_text()
        pipeline.environment = {**os.environ, **environment(faulty)}
        pipeline.start()
        until(
            lambda: "does not answer" in pipeline.log.read_text(),
            "a start while no store answers at all",
            120,
        )
        proxy.heal()
        until(lambda: len(objects(sound)) == 30, "what waited", 120)
        assert pipeline.stop() == 0


def test_workers_end_with_0_over_many_runs(minio_url: str, tmp_path: Path) -> None:
    """Each run stores something and stops at once: no interpreter aborts as it ends."""
    with Pipeline(tmp_path / "data", workers=2, environment=environment(minio_url)) as pipeline:
        for number in range(2):
            assert set(send_data_sets(pipeline.port, instances(10, first=100 * number))) == {0}
            settle(pipeline)
            assert pipeline.stop() == 0
            assert '"code": -6' not in pipeline.log.read_text()
            pipeline.start()
        assert pipeline.stop() == 0
