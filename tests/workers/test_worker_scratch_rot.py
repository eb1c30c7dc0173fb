"""A worker's scratch disk flips a bit of an upload that is put together on it: the log still has the right one."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

from ingest.contract.checkpoint import Checkpoint, checkpoint_path, read_checkpoint
from ingest.contract.failpoints import VARIABLE, Failpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import MAX_PAYLOAD, Instance, Kind, encode_header
from ingest.contract.settings import MiB, Settings
from ingest.log.spool_writer import SpoolWriter
from tests.support.datasets import data_set_bytes
from tests.support.scu import CT, EXPLICIT, ct_data_set
from tests.support.waiting import until
from workers.storage.layout import object_key

pytestmark = pytest.mark.real

UID = "1.2.826.0.1.9"
DATA = ct_data_set(UID, 3 * MiB)
STOPS = f"{Failpoint.PART_READ}=stop@2"  # the first part is in scratch by then


def settings_of(folder: Path) -> tuple[Settings, Path]:
    """One partition, no codec, and little memory."""
    tables: dict[str, dict[str, int | float]] = {
        "log": {"partitions": 1, "maximum_size": 256 * MiB},
        "transcode": {"enabled": False},
        "worker": {"checkpoint_interval": 0.05, "memory_limit": MiB},
    }
    config = folder / "config.toml"
    lines = [f'data = "{folder / "data"}"']
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {str(value).lower()}" for key, value in table.items())]
    config.write_text("\n".join(lines))
    return Settings.model_validate({"data": folder / "data", **tables}), config


async def publish(settings: Settings, seal: bytes) -> None:
    """One instance in parts."""
    writer = SpoolWriter(settings)
    await writer.start()
    upload_id = UploadId.of(writer.receiver_id, writer.epoch, 1)
    facts = Instance(CT, UID, EXPLICIT, len(DATA), seal, "MODALITY", "INGEST", "127.0.0.1", 1)
    pieces = [memoryview(DATA)[at : at + MAX_PAYLOAD] for at in range(0, len(DATA), MAX_PAYLOAD)]
    for index, piece in enumerate(pieces):
        await writer.publish(0, encode_header(Kind.PART, upload_id, index, None, [piece]), [piece])
    await writer.publish(0, encode_header(Kind.END, upload_id, len(pieces), facts), [])
    await writer.close()


def start_worker(config: Path, failpoints: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ingest", "worker", "--config", str(config)]
    with (config.parent / "worker.log").open("ab") as output:
        return subprocess.Popen(
            command, stderr=output, stdout=output, env={**os.environ, VARIABLE: failpoints}
        )


def rot(settings: Settings) -> None:
    """Flip a bit of the only scratch file."""
    (path,) = (settings.data / "scratch" / "0").iterdir()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


@pytest.mark.parametrize("wrong", ["scratch", "log"])
def test_a_spoiled_upload_is_read_from_the_log_again(tmp_path: Path, wrong: str) -> None:
    """By another process, once; what is still not as it was received is set apart then, and holds up nothing."""
    settings, config = settings_of(tmp_path)
    asyncio.run(publish(settings, xxhash.xxh3_128_digest(DATA if wrong == "scratch" else b"")))
    first = start_worker(config, STOPS if wrong == "scratch" else "")
    try:
        if wrong == "scratch":
            os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            rot(settings)
            first.send_signal(signal.SIGCONT)
        assert first.wait(120) == 1, (config.parent / "worker.log").read_text()
    finally:
        first.kill()
    second = start_worker(config)

    def found() -> Checkpoint:
        assert second.poll() is None, (config.parent / "worker.log").read_text()
        return read_checkpoint(checkpoint_path(settings.data / "checkpoints", 0)) or Checkpoint(partition=0)

    try:
        until(lambda: found().settled)
        assert found().reasons == {"stored/disabled" if wrong == "scratch" else "quarantined/seal": 1}
    finally:
        second.terminate()
        assert second.wait(120) == 0
    path = settings.data / "store" / str(object_key(UID))
    assert not path.exists() if wrong == "log" else data_set_bytes(path) == DATA
