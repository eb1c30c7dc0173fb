"""kill -9 of a real worker over a real spool, at random moments: every upload is counted once, at its place."""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import xxhash

from ingest.contract.checkpoint import checkpoint_path, read_checkpoint
from ingest.contract.identifiers import UploadId, partition_of
from ingest.contract.records import MAX_PAYLOAD, Instance, Kind, Place, encode_header
from ingest.contract.running import running_processes
from ingest.contract.settings import Settings
from ingest.log.spool_writer import SpoolWriter
from tests.support.scu import CT, EXPLICIT, ct_data_set
from workers.cli.backlog import completed_uploads
from workers.log.outcome_producer import OutcomeProducer

pytestmark = pytest.mark.real

PARTITIONS = 4
UPLOADS = 60
KILLS = 3
SEEDS = int(os.environ.get("SEEDS", "2"))
FIRST_SEED = int(os.environ.get("CRASH_FIRST_SEED", "1"))


@dataclass
class Load:
    """Uploads in the order of the log, and where each must end."""

    seed: int
    ending: bool = False
    expected: Counter[Place] = field(default_factory=Counter)
    places: dict[UploadId, Place] = field(default_factory=dict)
    first: dict[str, tuple[UploadId, bytes]] = field(default_factory=dict)

    async def publish(self, writer: SpoolWriter) -> None:
        """Small and large instances, copies, conflicts, unreadable ones, and uploads that never end."""
        rng = random.Random(self.seed)
        for sequence in itertools.count():
            if self.ending and sequence >= UPLOADS:
                return
            await asyncio.sleep(rng.uniform(0, 0.1))
            upload_id = UploadId.of(writer.receiver_id, writer.epoch, sequence)
            uid = f"1.2.{self.seed}.{rng.randint(0, UPLOADS // 2)}"
            data = ct_data_set(uid, rng.choice((3000, 40_000, 300_000, 2_500_000)))
            if rng.random() < 0.2:
                data = data[:-1] + b"\xee"  # another pixel
            if rng.random() < 0.1:
                data = data.replace(b"1.2.3.4\0", b"1.2.3.x\0")  # an invalid Study Instance UID
            partition = partition_of(uid, PARTITIONS)
            if rng.random() < 0.1:
                await writer.publish(
                    partition,
                    encode_header(Kind.PART, upload_id, 0, None, [memoryview(data)[:9]]),
                    [memoryview(data)[:9]],
                )
                continue
            self.judge(upload_id, uid, data)
            await self.send(writer, upload_id, uid, data)

    def judge(self, upload_id: UploadId, uid: str, data: bytes) -> None:
        if b"1.2.3.x" in data:
            place = Place.QUARANTINED
        elif uid not in self.first:
            place = Place.STORED
            self.first[uid] = (upload_id, data)
        else:
            place = Place.DUPLICATE if self.first[uid][1] == data else Place.CONFLICT
        self.places[upload_id] = place
        self.expected[place] += 1

    async def send(self, writer: SpoolWriter, upload_id: UploadId, uid: str, data: bytes) -> None:
        partition = partition_of(uid, PARTITIONS)
        instance = Instance(
            CT, uid, EXPLICIT, len(data), xxhash.xxh3_128_digest(data), "A", "B", "127.0.0.1", 1
        )
        view = memoryview(data)
        if len(data) <= MAX_PAYLOAD:
            header = encode_header(Kind.INSTANCE, upload_id, 1, instance, [view])
            await writer.publish(partition, header, [view])
            return
        pieces = [view[at : at + MAX_PAYLOAD] for at in range(0, len(data), MAX_PAYLOAD)]
        for index, piece in enumerate(pieces):
            await writer.publish(
                partition, encode_header(Kind.PART, upload_id, index, None, [piece]), [piece]
            )
        await writer.publish(partition, encode_header(Kind.END, upload_id, len(pieces), instance), [])


def start_worker(config: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ingest", "worker", "--config", str(config)], stderr=output, stdout=output
        )


async def run_load(settings: Settings, load: Load, config: Path) -> None:
    """Publish while workers come and die."""
    rng = random.Random(load.seed + 1000)
    log = settings.data / "worker.log"
    writer = SpoolWriter(settings)
    await writer.start()
    publishing = asyncio.create_task(load.publish(writer))
    for _ in range(KILLS):
        worker = start_worker(config, log)
        await asyncio.sleep(rng.uniform(0.6, 2.0))
        worker.kill()
        worker.wait()
    worker = start_worker(config, log)
    while worker.pid not in [found.pid for found in running_processes(settings.data)]:  # noqa: ASYNC110 - of processes
        await asyncio.sleep(0.05)
    load.ending = True
    await publishing
    deadline = time.monotonic() + 240
    while backlog(settings) and time.monotonic() < deadline and worker.poll() is None:  # noqa: ASYNC110 - of processes
        await asyncio.sleep(0.1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(120) == 0, log.read_text()
    await writer.close()


def backlog(settings: Settings) -> int:
    """Completed uploads that no checkpoint counts yet."""
    checkpoints = [
        read_checkpoint(checkpoint_path(settings.data / "checkpoints", n)) for n in range(PARTITIONS)
    ]
    marks = {found.partition: found.low_water_mark for found in checkpoints if found}
    done = {upload_id for found in checkpoints if found for upload_id in found.done}
    return sum(
        completed.upload_id not in done for completed in completed_uploads(settings.data / "spool", marks)
    )


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_a_killed_worker_loses_and_doubles_nothing(seed: int, tmp_path: Path) -> None:
    """After kills and restarts counters, outcomes and store say what one undisturbed worker would have said."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'data = "{tmp_path}/data"\n[log]\npartitions = {PARTITIONS}\nsegment_size = 4194304\n'
        "[worker]\nmemory_limit = 1048576\ncheckpoint_interval = 0.1\n"
    )
    settings = Settings.model_validate(
        {"data": tmp_path / "data", "log": {"partitions": PARTITIONS, "segment_size": 4 * 1024 * 1024}}
    )
    settings.data.mkdir()
    load = Load(seed)
    asyncio.run(run_load(settings, load, config))

    counted: Counter[Place] = Counter()
    announced: dict[UploadId, Place] = {}
    for partition in range(PARTITIONS):
        checkpoint = read_checkpoint(checkpoint_path(settings.data / "checkpoints", partition))
        assert checkpoint is not None
        counted.update(checkpoint.counters)
        producer = OutcomeProducer(settings.data / "outcomes" / str(partition), 0)
        outcomes, end = producer.uncounted()
        producer.close()
        assert end == checkpoint.outcomes_end
        for upload_id, outcome in outcomes:
            assert upload_id not in announced, f"seed {seed}: announced twice"
            announced[upload_id] = outcome.place
    assert announced == load.places, f"seed {seed}"
    assert counted == load.expected, f"seed {seed}"
    stored = {path.stem: path for path in (settings.data / "store").glob("[0-9a-f][0-9a-f][0-9a-f]/*.dcm")}
    assert stored.keys() == load.first.keys(), f"seed {seed}"
    for uid, (upload_id, _) in load.first.items():
        assert upload_id.hex().encode() in stored[uid].read_bytes()[:40_000], (
            f"seed {seed}: not the first of {uid}"
        )
    assert not [
        path
        for path in (settings.data / "scratch").rglob("*")
        if path.is_file() and "in-hand" not in path.name
    ]
