"""kill -9 of any process at any moment loses nothing, shows nothing incomplete, stores nothing twice."""

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from ingest.contract.running import running_processes
from tests.support.asynchronous import until
from tests.support.datasets import pixels
from tests.support.pipeline import Pipeline, assert_adds_up
from tests.support.scu import EXPLICIT, Scu, ct_data_set, run_closing

pytestmark = pytest.mark.real

# `make crash SEEDS=N` runs N seeds; CI a few. A failure names its seed: CRASH_FIRST_SEED=… SEEDS=1 repeats it.
SEEDS = int(os.environ.get("SEEDS", "2"))
FIRST_SEED = int(os.environ.get("CRASH_FIRST_SEED", "1"))
SENDERS = 4
# Beyond what `make test` runs, senders go without a pause and send large images, too: more is on its way at each kill, and
# what it leaves takes codecs longer.
LONG = "SEEDS" in os.environ
PAUSE = 0.0 if LONG else 0.05  # s between two instances of a sender
SIZES = (3000, 20_000, 140_000, 600_000, 2_500_000) if LONG else (3000, 20_000, 140_000, 300_000, 1_200_000)
KILLS = 4


class Load:
    """Senders that never give up, and the account of what they were told."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)
        self.seed = seed
        self.tried: dict[str, bytes] = {}
        self.acknowledged: set[str] = set()
        self.stopping = False

    async def send(self, sender: int) -> None:
        """Send instance after instance; a lost connection means the next association."""
        number = 0
        while not self.stopping:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError, AssertionError):
                scu = await Scu.associated(self.port)
                while not self.stopping:
                    number += 1
                    uid = f"1.2.826.{self.seed}.{sender}.{number}"
                    size = self.random.choice(SIZES)
                    data_set = self.tried[uid] = ct_data_set(uid, size)
                    if (await scu.store(uid, data_set)).status == 0:
                        self.acknowledged.add(uid)
                    await asyncio.sleep(PAUSE)
            await asyncio.sleep(0.05)


def victims(pipeline: Pipeline) -> dict[str, Callable[[], list[int]]]:
    """What can be killed, as the process ids of the moment."""

    def named(prefix: str) -> list[int]:
        return [
            process.pid for process in running_processes(pipeline.data) if process.name.startswith(prefix)
        ]

    def codecs() -> list[int]:
        assert pipeline.process is not None
        known = {pipeline.process.pid, *named("receiver"), *named("worker")}
        return [pid for pid in pipeline.children() if pid not in known]

    return {
        "receiver": lambda: named("receiver"),
        "worker": lambda: named("worker")[:1],
        "codec": lambda: codecs()[:1],
    }


async def kill_at_random(pipeline: Pipeline, load: Load) -> None:
    """Kill one process after the other at random moments, and at last all of them at once."""
    choices = victims(pipeline)
    # On a busy machine the kills may be quicker than the first instance.
    await until(lambda: load.acknowledged)
    for _ in range(KILLS):
        await asyncio.sleep(load.random.uniform(0.1, 1.5))
        name = load.random.choice(sorted(choices))
        for pid in choices[name]():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(load.random.uniform(0.1, 1.0))
    pipeline.kill()
    load.stopping = True


async def run_load(pipeline: Pipeline, load: Load) -> None:
    senders = [asyncio.create_task(load.send(number)) for number in range(SENDERS)]
    await kill_at_random(pipeline, load)
    await asyncio.gather(*senders)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    """After restart each acknowledged instance is stored once with its digest, and the counters add up."""
    pipeline = Pipeline(tmp_path / "data", workers=2)
    load = Load(pipeline.port, seed)
    pipeline.start()
    try:
        run_closing(run_load(pipeline, load))
        assert_adds_up(pipeline.status())  # with every process dead
        pipeline.start()
        status = pipeline.settle()
        assert pipeline.stop() == 0
    finally:
        if pipeline.process is not None:
            pipeline.kill()
    check(pipeline, load, status)


def check(pipeline: Pipeline, load: Load, status: dict[str, int]) -> None:
    """The invariants, looked at from outside."""
    assert_adds_up(status)
    objects = pipeline.objects()
    assert load.acknowledged, "the load never got through"
    missing = load.acknowledged - set(objects)
    assert not missing, f"seed {load.seed}: {len(missing)} of {len(load.acknowledged)} lost"
    assert set(objects) <= set(load.tried), "something that was never sent"
    assert status["stored"] == len(objects)
    assert status["received"] == len(objects)
    assert status["duplicates"] == status["conflicts"] == status["quarantined"] == 0
    for uid, path in objects.items():
        assert same_image(path, load.tried[uid]), f"seed {load.seed}: {uid} altered"
    done = subprocess.run(
        pipeline.command("verify", "--data", str(pipeline.data)), check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def same_image(path: Path, sent: bytes) -> bool:
    """The stored object's pixels are those that were sent."""
    kept = pydicom.dcmread(path)
    source = pydicom.dcmread(as_file(sent), force=True)
    source.file_meta.TransferSyntaxUID = pydicom.uid.UID(EXPLICIT)
    before, after = pixels(source), pixels(kept)
    assert before is not None
    assert after is not None
    return hashlib.sha256(before.tobytes()).digest() == hashlib.sha256(after.tobytes()).digest()


def as_file(data_set: bytes) -> pydicom.filebase.DicomBytesIO:
    """A data set as pydicom reads it."""
    return pydicom.filebase.DicomBytesIO(data_set)
