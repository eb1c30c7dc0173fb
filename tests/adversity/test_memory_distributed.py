"""Memory within the declared budgets while a broker stands still, and while a store hangs; MEMORY_SECONDS=60 for long.

What a budget does not say of a process is what it weighs idle, so growth is measured, from the first work on.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import peak_resident, reset_peak, resident
from ingest.contract.settings import MiB
from ingest.contract.settings_sources import load_settings
from tests.support.distributed import Distributed, Host
from tests.support.fault_proxy import Action, FaultProxy, everything
from tests.support.kafka_records import Publisher
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import BUCKET, S3Server
from tests.support.scu import Scu, associate, c_store, ct_data_set

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("memory"), pytest.mark.timeout(600)]

SECONDS = float(os.environ.get("MEMORY_SECONDS", "12"))
OTHER = 64.0  # MiB: what libraries, buffers of sockets and the slack of the allocator take besides
SENDERS = 48
SIZE = 900_000


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """A broker that stands still."""
    with KafkaServers(tmp_path_factory.mktemp("mortal")) as servers:
        yield servers


@pytest.fixture
def pipeline(
    tmp_path: Path, mortal: KafkaServers, minio: S3Server, s3_credentials: None
) -> Iterator[Distributed]:
    with Distributed(
        tmp_path,
        mortal.bootstrap_servers,
        [minio.url(tmp_path.name)],
        name=tmp_path.name[-40:],
        environment=minio.environment,
        retry=4,
        request=1.5,
    ) as pipeline:
        yield pipeline


class FullLoad:
    """Associations in a thread of their own that send whatever they can, and come back when they are rejected."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = threading.Event()
        self.acknowledged = 0
        self.refused = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        await asyncio.gather(*(self._send(number) for number in range(SENDERS)))
        await Scu.close_all()

    async def _send(self, number: int) -> None:
        uid = f"1.2.826.5.{number}"
        wire = c_store(uid, ct_data_set(uid, SIZE))
        while not self._stopping.is_set():
            try:
                scu = await Scu.connect(self._port)
                await scu.send(associate())
                if (await scu.pdu())[0] != 2:
                    self.refused += 1
                    await asyncio.sleep(0.3)
                    continue
                while not self._stopping.is_set():
                    await scu.send(wire)
                    if (await scu.response(60)).status == 0:
                        self.acknowledged += 1
                    else:
                        self.refused += 1
                        await asyncio.sleep(0.3)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                await asyncio.sleep(0.3)


def watched(host: Host) -> float:
    """Begin to watch its peak; what it has now, in MiB."""
    reset_peak(host.pid)
    return resident(host.pid)


def wait(condition: object, what: str, timeout: float = 120) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.mark.slow
def test_broker_stands_still_under_full_load(pipeline: Distributed, mortal: KafkaServers) -> None:
    """Receiver: its buffers, from which records are sent; worker: no more than when it works."""
    settings = load_settings(pipeline.config).settings
    receiver, worker = pipeline.start_receiver(), pipeline.start_worker()
    load = FullLoad(receiver.port)
    wait(lambda: load.acknowledged > 20, "the first acknowledgements")
    wait(lambda: pipeline.status()["stored"] > 20, "a worker that has what it works with")
    bases = watched(receiver), watched(worker)
    mortal.nodes[0].pause()
    try:
        time.sleep(SECONDS)
    finally:
        mortal.nodes[0].resume()
    grown = peak_resident(receiver.pid) - bases[0], peak_resident(worker.pid) - bases[1]
    refused, before = load.refused, load.acknowledged
    wait(lambda: load.acknowledged > before + 20, "acknowledgements after it")
    load.stop()
    print(f"{SECONDS} s: receiver {grown[0]:+.0f} MiB, worker {grown[1]:+.0f} MiB, {refused} refused")  # noqa: T201
    assert refused, "it was never at its limit"
    assert grown[0] <= settings.receiver.buffer_budget / MiB + OTHER
    assert grown[1] <= worker_budget(pipeline) + OTHER
    status = pipeline.settle()
    assert status["stored"] == min(SENDERS, status["received"])
    assert set(pipeline.stop().values()) == {0}


def worker_budget(pipeline: Distributed) -> float:
    """What the settings say of a worker, in MiB: uploads, those that are put together, and fetched records."""
    settings = load_settings(pipeline.config).settings
    return (2 * settings.worker.memory_limit + 4 * settings.kafka.fetch_maximum) / MiB


@pytest.mark.slow
def test_store_hangs_with_a_full_topic(
    tmp_path: Path, mortal: KafkaServers, minio: S3Server, s3_credentials: None
) -> None:
    """Many times a worker's budget waits in the topic, and its only store hangs: it holds what it declares."""
    with (
        FaultProxy(minio.endpoint) as proxy,
        Distributed(
            tmp_path,
            mortal.bootstrap_servers,
            [f"s3://{BUCKET}/{tmp_path.name}?endpoint={proxy.endpoint}"],
            name=tmp_path.name[-40:],
            environment=minio.environment,
            retry=4,
            request=1.5,
        ) as pipeline,
    ):
        worker = pipeline.start_worker()
        publisher = Publisher(load_settings(pipeline.config).settings)
        for number in range(20):
            publisher.upload(f"1.2.826.5.{number}", ct_data_set(f"1.2.826.5.{number}", SIZE))
        publisher.flush()
        pipeline.settle()
        base = watched(worker)
        proxy.fault(everything, Action.HANG)
        for number in range(20, 140):
            size = SIZE if number % 4 else 3 * SIZE
            publisher.upload(f"1.2.826.5.{number}", ct_data_set(f"1.2.826.5.{number}", size))
        publisher.flush()
        publisher.close()
        time.sleep(SECONDS)
        grown = peak_resident(worker.pid) - base
        print(f"{SECONDS} s: worker {grown:+.0f} MiB")  # noqa: T201 - for whoever runs with -s
        assert grown <= worker_budget(pipeline) + OTHER
        proxy.heal()
        assert pipeline.settle(240)["stored"] == 140
        assert pipeline.stop() == {worker.name: 0}
