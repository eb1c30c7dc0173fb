"""A full disk: refusals with A700H while it lasts, nothing lost, and all is well again when space returns."""

import asyncio
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.contract.running import running_processes
from ingest.contract.settings import LogSettings, Settings
from ingest.contract.uncaught import UNCAUGHT
from ingest.log import SpoolWriter
from tests.support.pipeline import Pipeline, assert_adds_up
from tests.support.scu import Scu, c_echo, ct_data_set, run_closing
from tests.support.small_disk import SmallDisk

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

OUT_OF_RESOURCES = 0xA700
SENDERS = 4
SIZES = (4_000, 60_000, 600_000, 2_500_000)
REFUSALS = 3  # that each sender sees before it stops
MiB = 1024 * 1024


class Senders:
    """Several associations that go on whatever they are told, and the account of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.random = random.Random(1)
        self.answers: Counter[int] = Counter()
        self.acknowledged: set[str] = set()
        self.number = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def data_set(self, uid: str) -> bytes:
        """A CT image whose pixels no codec makes smaller, so that as much is stored as is sent."""
        size = self.random.choice(SIZES)
        image = ct_data_set(uid, size)
        noise = self.random.randbytes(size // 128 * 128)
        return image[: -len(noise)] + noise

    async def store(self, scu: Scu) -> int:
        """Send one more instance; its status, which is success or A700H with a comment."""
        self.number += 1
        uid = f"1.2.826.7.{self.number}"
        answer = await asyncio.wait_for(scu.store(uid, self.data_set(uid)), 60)
        self.answers[answer.status] += 1
        if answer.status == 0:
            self.acknowledged.add(uid)
            if len(self.acknowledged) == 1:
                self.meanwhile()
        else:
            assert answer.status == OUT_OF_RESOURCES, hex(answer.status)
            assert answer.error_comment
        return answer.status

    async def _one(self) -> None:
        scu = await Scu.associated(self.port)
        refused = 0
        while refused < REFUSALS:
            refused += await self.store(scu) != 0
            assert self.number < 2000, "the disk never filled"
        await scu.send(c_echo())
        assert (await scu.response()).status == 0
        await scu.release()

    def until_refused(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """All send until each was refused several times, C-ECHO is answered, and each releases.

        ``meanwhile`` is called once, after the first was acknowledged.
        """
        self.meanwhile = meanwhile

        async def scenario() -> None:
            await asyncio.gather(*(self._one() for _ in range(SENDERS)))

        run_closing(scenario())

    def refused(self) -> None:
        """On a disk that is full an association is as good as ever, apart from storing."""

        async def scenario() -> None:
            scu = await Scu.associated(self.port)
            assert await self.store(scu) == OUT_OF_RESOURCES
            await scu.send(c_echo())
            assert (await scu.response()).status == 0
            await scu.release()

        run_closing(scenario())

    def until_accepted(self) -> None:
        """One association sends until it is told success again."""

        async def scenario() -> None:
            scu = await Scu.associated(self.port)
            while await self.store(scu) != 0:  # noqa: ASYNC110 - only the receiver knows, and only when asked
                await asyncio.sleep(0.1)
            await scu.release()

        run_closing(scenario())


def check(pipeline: Pipeline, senders: Senders, store: Path) -> None:
    """Everything acknowledged is stored, the counters say so, and every object is sound."""
    status = pipeline.settle()
    assert_adds_up(status)
    objects = {path.stem for path in store.glob("[0-9a-f][0-9a-f][0-9a-f]/*.dcm")}
    lost = senders.acknowledged - objects
    assert not lost, f"{len(lost)} of {len(senders.acknowledged)} acknowledged instances are not stored"
    assert status["stored"] == len(objects) == status["received"]
    done = subprocess.run(
        pipeline.command("verify", "--data", str(pipeline.data)),
        check=False, capture_output=True, env=pipeline.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in pipeline.log.read_text()
    assert UNCAUGHT not in pipeline.log.read_text()


# Of a small log every part is small: it fills by what is sent, where the default one fills by the ballast.
TIGHT = {
    "DICOM_INGEST_LOG__SEGMENT_SIZE": str(2 * MiB),
    "DICOM_INGEST_LOG__PARTITIONS": "4",
    "DICOM_INGEST_RECEIVER__BUFFER_BUDGET": str(4 * MiB),
}
# Where the store alone is looked at: the codec would only take its time for what it does not make smaller.
AS_SENT = {**TIGHT, "DICOM_INGEST_TRANSCODE__ENABLED": "false"}


def started_workers(pipeline: Pipeline) -> bool:
    return any(process.name.startswith("worker") for process in running_processes(pipeline.data))


@contextmanager
def serving(data: Path, log: Path, environment: dict[str, str]) -> Iterator[Pipeline]:
    """The pipeline with its worker at work; killed if the test did not stop it."""
    pipeline = Pipeline(data, environment=environment)
    pipeline.log = log
    start(pipeline)
    try:
        yield pipeline
    finally:
        if pipeline.process is not None and pipeline.process.poll() is None:
            pipeline.kill()


def start(pipeline: Pipeline) -> None:
    """Start, and wait until the worker has begun too."""
    pipeline.start()
    while not started_workers(pipeline):
        assert pipeline.process is not None
        assert pipeline.process.poll() is None, pipeline.log.read_text()[-4000:]
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("size", "environment"), [("200m", {}), ("64m", TIGHT)], ids=["defaults-200MB", "tight-64MB"]
)
def test_disk_full_under_load(tmp_path: Path, size: str, environment: dict[str, str]) -> None:
    """Another program takes the last byte while instances come; all is killed and started on the full disk."""
    with (
        SmallDisk(tmp_path / "disk", size) as disk,
        serving(disk.path / "data", tmp_path / "log", environment) as pipeline,
    ):
        senders = Senders(pipeline.port)
        senders.until_refused(meanwhile=disk.fill)
        disk.fill()
        senders.refused()
        pipeline.kill()
        disk.fill()
        assert_adds_up(pipeline.status())
        start(pipeline)
        disk.fill()
        senders.refused()
        assert_adds_up(pipeline.status())
        disk.relieve()
        senders.until_accepted()
        check(pipeline, senders, pipeline.data / "store")
        assert pipeline.stop() == 0


def test_disk_filled_by_what_is_sent(tmp_path: Path) -> None:
    """The store grows until the reserve is reached; what was acknowledged is stored from the reserve."""
    with SmallDisk(tmp_path / "disk", "64m") as disk:
        disk.fill(leave=44 * MiB)
        with serving(disk.path / "data", tmp_path / "log", AS_SENT) as pipeline:
            senders = Senders(pipeline.port)
            senders.until_refused()
            assert_adds_up(pipeline.status())
            disk.relieve()
            senders.until_accepted()
            check(pipeline, senders, pipeline.data / "store")
            assert pipeline.stop() == 0


def test_store_full(tmp_path: Path) -> None:
    """Workers hold what the store has no room for; the receiver goes on until its log is full, then refuses."""
    with SmallDisk(tmp_path / "disk", "64m") as disk:
        store = disk.path / "store"
        environment = {
            **AS_SENT,
            "DICOM_INGEST_LOG__MAXIMUM_SIZE": str(16 * MiB),
            "DICOM_INGEST_STORE__DIRECTORIES": str(store),
        }
        disk.fill(leave=4 * MiB)
        with serving(tmp_path / "data", tmp_path / "log", environment) as pipeline:
            senders = Senders(pipeline.port)
            senders.until_refused()
            status = pipeline.status()
            assert_adds_up(status)
            assert status["backlog"] > 0
            disk.relieve()
            senders.until_accepted()
            check(pipeline, senders, store)
            assert pipeline.stop() == 0


async def make_spool(data: Path) -> None:
    """As a receiver's first start leaves it."""
    log = LogSettings(segment_size=2 * MiB, partitions=4, maximum_size=8 * MiB)
    writer = SpoolWriter(Settings(data=data, log=log))
    await writer.start()
    await writer.close()


def test_a_worker_whose_first_start_finds_the_disk_full_waits(tmp_path: Path) -> None:
    """It says so and starts by itself when there is space: one that ended would take the receiver with it."""
    with SmallDisk(tmp_path / "disk", "16m") as disk:
        pipeline = Pipeline(disk.path / "data", environment=TIGHT)
        asyncio.run(make_spool(pipeline.data))
        disk.fill()
        log = tmp_path / "worker.log"
        with log.open("wb") as file:
            worker = subprocess.Popen(
                pipeline.command("worker", "--data", str(pipeline.data), "--partitions", "0,1,2,3"),
                stdout=file, stderr=file, env=pipeline.environment,
            )  # fmt: skip
        try:
            while b"no space to start" not in log.read_bytes():
                assert worker.poll() is None, log.read_text()[-4000:]
                time.sleep(0.05)
            disk.relieve()
            while not started_workers(pipeline):
                assert worker.poll() is None, log.read_text()[-4000:]
                time.sleep(0.05)
            worker.terminate()
            assert worker.wait(60) == 0, log.read_text()[-4000:]
        finally:
            worker.kill()
            worker.wait()
    assert "Traceback" not in log.read_text()
