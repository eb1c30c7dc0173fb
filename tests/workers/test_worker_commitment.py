"""A real worker process on a real spool is asked for commitment, and killed at each step of the proof."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

from ingest.contract.checkpoint import Checkpoint, checkpoint_path, read_checkpoint
from ingest.contract.commitments import Finding, found_of
from ingest.contract.failpoints import VARIABLE, Failpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, Place, decode, encode_header
from ingest.contract.settings import Settings
from ingest.log.spool_writer import SpoolWriter
from tests.support.fences import TRANSACTION, fence_record
from tests.support.scu import CT, EXPLICIT, ct_data_set
from tests.support.waiting import until
from workers.cli.status_report import read_report
from workers.storage.layout import object_key

pytestmark = pytest.mark.real

UIDS = [f"1.2.840.{number}" for number in range(20)]
ABSENT = "1.2.840.999"
_HEADER = 32


def settings_of(folder: Path) -> tuple[Settings, Path]:
    """One partition, no codec."""
    config = folder / "config.toml"
    data = folder / "data"
    config.write_text(
        f'data = "{data}"\n[log]\npartitions = 1\nmaximum_size = {256 << 20}\n[transcode]\nenabled = false\n'
        "[worker]\ncheckpoint_interval = 0.05\n"
    )
    return Settings.model_validate(
        {
            "data": data,
            "log": {"partitions": 1, "maximum_size": 256 << 20},
            "transcode": {"enabled": False},
        }
    ), config


async def fill(settings: Settings) -> int:
    """Instances, the beginning of one that never ends, the question, and one instance more; the log's end."""
    writer = SpoolWriter(settings)
    await writer.start()
    for sequence, uid in enumerate([*UIDS, "1.2.840.1000"]):
        data = ct_data_set(uid, 8192)
        seal = xxhash.xxh3_128_digest(data)
        facts = Instance(CT, uid, EXPLICIT, len(data), seal, "MODALITY", "B", "127.0.0.1", 1)
        if sequence == len(UIDS):
            part = [memoryview(data)[:8]]
            hanging = UploadId.of(writer.receiver_id, writer.epoch, 500)
            await writer.publish(0, encode_header(Kind.PART, hanging, 0, None, part), part)
            fence = fence_record(UploadId.of(writer.receiver_id, writer.epoch, 501), [*UIDS, ABSENT])
            await writer.publish(0, fence[:_HEADER], [memoryview(fence)[_HEADER:]])
        upload_id = UploadId.of(writer.receiver_id, writer.epoch, sequence)
        await writer.publish(
            0, encode_header(Kind.INSTANCE, upload_id, 1, facts, [memoryview(data)]), [memoryview(data)]
        )
    await writer.close()
    return len(UIDS) + 1


def start_worker(config: Path, failpoints: str = "") -> subprocess.Popen[bytes]:
    with (config.parent / "worker.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ingest", "worker", "--config", str(config)],
            stderr=output, stdout=output, env={**os.environ, VARIABLE: failpoints},
        )  # fmt: skip


def checkpoint(settings: Settings) -> Checkpoint:
    return read_checkpoint(checkpoint_path(settings.data / "checkpoints", 0)) or Checkpoint(partition=0)


@pytest.mark.parametrize("point", ["", "worker.before-proof", "worker.after-proof", "worker.proof-published"])
def test_a_question_is_answered_once_its_instances_are_stored(point: str, tmp_path: Path) -> None:
    """Also when the worker is killed before, in or after the proof; nothing is counted for it or counted twice."""
    settings, config = settings_of(tmp_path)
    count = asyncio.run(fill(settings))
    if point:
        assert point in set(Failpoint)
        killed = start_worker(config, f"{point}=kill")
        assert killed.wait(120) == -signal.SIGKILL
    proofs = settings.data / "proofs"
    name = f"{TRANSACTION.hex()}-0-0"
    assert (proofs / name).exists() == (point == "worker.proof-published")
    worker = start_worker(config)

    def answered() -> bool:
        assert worker.poll() is None, (config.parent / "worker.log").read_text()
        found = checkpoint(settings)
        return (proofs / name).exists() and found.settled >= count and len(found.done) >= 2

    try:
        until(answered)
    finally:
        worker.terminate()
        assert worker.wait(120) == 0
    record = decode((proofs / name).read_bytes())
    findings = {found.sop_instance_uid: found.finding for found in found_of(record)}
    assert findings == dict.fromkeys(UIDS, Finding.PROVED) | {ABSENT: Finding.ABSENT}
    assert all((settings.data / "store" / str(object_key(uid))).exists() for uid in UIDS)
    assert checkpoint(settings).counters == {Place.STORED: count}
    report = read_report(settings)
    assert (report.received, report.stored, report.backlog) == (count, count, 0)
    assert [path.name for path in proofs.iterdir()] == [name]
