"""The receiver with Kafka as log, from outside: real senders, and a broker that is killed or stands still."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.contract.settings import MiB, Settings
from ingest.dimse.status import OUT_OF_RESOURCES
from tests.support.asynchronous import asynchronous
from tests.support.datasets import data_set_bytes
from tests.support.kafka_log import environment, instances, kafka_settings
from tests.support.kafka_servers import KafkaServers
from tests.support.placing import CORPUS
from tests.support.receiver_process import ReceiverProcess
from tests.support.scu import Scu, associate, c_store, ct_data_set, run_closing

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

DELIVERY = 4.0  # s
SLACK = 60.0  # s; a busy machine's
BUDGET = 16 * MiB
SENDERS = 40
SIZE = 900_000


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """A broker that tests stop and kill."""
    with KafkaServers(tmp_path_factory.mktemp("mortal")) as servers:
        yield servers


def receiver(folder: Path, settings: Settings, **more: str) -> ReceiverProcess:
    return ReceiverProcess(folder, environment(settings) | more)


def test_real_senders_to_the_topic(kafka: KafkaServers, tmp_path: Path) -> None:
    """What DCMTK and a sender of exact bytes send is in the topic, byte for byte, under its seal."""
    settings = kafka_settings(kafka)
    files = [path for path in sorted(CORPUS.glob("*.dcm")) if path.name.startswith("LittleEndianExplicit")]
    exact = {f"1.2.{size}": ct_data_set(f"1.2.{size}", size) for size in (1000, 500_000, 5_000_000)}

    async def send_exact(port: int) -> None:
        scu = await Scu.associated(port)
        for uid, data_set in exact.items():
            assert (await scu.store(uid, data_set)).status == 0
        await scu.release()

    with receiver(tmp_path, settings) as running:
        run_closing(send_exact(running.port))
        sent = subprocess.run(
            ["dcmsend", "-v", "-dn", "-nh", "-aec", "DICOM-INGEST", "127.0.0.1", str(running.port), *map(str, files)],
            check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert running.stop() == 0
    count = (sent.stdout + sent.stderr).count("Received C-STORE Response (Success)")
    found = instances(kafka, settings)
    assert sum(len(copies) for copies in found.values()) == count + len(exact)
    assert count == len(files)
    assert {uid: [data for _, data in found.pop(uid)] for uid in exact} == {
        uid: [data] for uid, data in exact.items()
    }
    originals = [data_set_bytes(path) for path in files]  # DCMTK leaves trailing padding out
    assert all(
        any(original.startswith(data) for original in originals)
        for copies in found.values()
        for _, data in copies
    )


async def answers(port: int, uid: str) -> tuple[int, float]:
    """Store one instance in an association of its own: the status, and how long it took."""
    scu = await Scu.associated(port)
    begun = time.monotonic()
    await scu.send(c_store(uid, ct_data_set(uid, SIZE)))
    status = (await scu.response(60)).status
    return status, time.monotonic() - begun


async def association_answer(port: int) -> tuple[int, bytes]:
    scu = await Scu.connect(port)
    await scu.send(associate())
    answer = await scu.pdu()
    await scu.close()
    return answer


@pytest.mark.parametrize("how", ["kill", "pause"])
@asynchronous
async def test_broker_goes_and_comes_back(mortal: KafkaServers, tmp_path: Path, how: str) -> None:
    """A700H in time, congestion to new peers, bounded memory; afterwards it receives again, unrestarted."""
    settings = kafka_settings(mortal, delivery_timeout=DELIVERY)
    node = mortal.nodes[0]
    with receiver(tmp_path, settings, DICOM_INGEST_RECEIVER__BUFFER_BUDGET=str(BUDGET)) as running:
        statuses = [await answers(running.port, f"1.1.{number}") for number in range(8)]
        assert {status for status, _ in statuses} == {0}
        before = running.resident
        scus = [await Scu.associated(running.port) for _ in range(SENDERS)]
        node.kill() if how == "kill" else node.pause()
        begun = time.monotonic()
        await asyncio.gather(
            *(
                scu.send(c_store(f"1.2.{n}", ct_data_set(f"1.2.{n}", SIZE))[:-1000])
                for n, scu in enumerate(scus[:8])
            )
        )
        rest = [
            scu.send(c_store(f"1.2.{n}", ct_data_set(f"1.2.{n}", SIZE))) for n, scu in enumerate(scus[8:], 8)
        ]
        sending = asyncio.gather(*rest)
        for n, scu in enumerate(scus[:8]):
            await scu.send(c_store(f"1.2.{n}", ct_data_set(f"1.2.{n}", SIZE))[-1000:])
        kind = 2
        async with asyncio.timeout(SLACK):
            while kind == 2:  # until the budget is full, and brokers have been silent for a while
                await asyncio.sleep(0.2)
                kind, body = await association_answer(running.port)
        assert (kind, body[1:4]) == (
            3,
            bytes([2, 3, 1]),
        )  # rejected-transient, presentation, temporary congestion
        first = (await scus[0].response(120)).status
        assert first == OUT_OF_RESOURCES
        assert time.monotonic() - begun < DELIVERY + SLACK
        others = await asyncio.gather(*(scu.response(120) for scu in scus[1:]))
        assert {answer.status for answer in others} == {OUT_OF_RESOURCES}
        assert time.monotonic() - begun < 2 * DELIVERY + SLACK
        await sending
        assert running.peak_resident - before < 3 * BUDGET / MiB + 32
        if how == "kill":
            node.launch()
            await asyncio.to_thread(node.wait_listening)
        else:
            node.resume()
        async with asyncio.timeout(120):
            while (await association_answer(running.port))[0] != 2:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.1)
        statuses = await asyncio.gather(*(answers(running.port, f"1.3.{number}") for number in range(20)))
        assert {status for status, _ in statuses} == {0}
        running.assert_calm()
        await Scu.close_all()
        assert running.stop() == 0
    await asyncio.to_thread(mortal.wait_complete)
    found = await asyncio.to_thread(instances, mortal, settings)
    acknowledged = {f"1.1.{number}" for number in range(8)} | {f"1.3.{number}" for number in range(20)}
    assert acknowledged <= set(found)
    assert all(data == ct_data_set(uid, SIZE) for uid, copies in found.items() for _, data in copies)


def test_receiver_refuses_a_single_copy(kafka: KafkaServers, tmp_path: Path) -> None:
    """Neither by settings nor by topics does it promise what they do not keep; one line says what is wrong."""
    settings = kafka_settings(kafka)
    careless = environment(settings) | {"DICOM_INGEST_LOG__ALLOW_SINGLE_COPY": "false"}
    with pytest.raises(AssertionError, match=r"log\.allow_single_copy"):
        ReceiverProcess(tmp_path, careless)
    proud = environment(settings) | {
        "DICOM_INGEST_KAFKA__REPLICATION_FACTOR": "3",
        "DICOM_INGEST_KAFKA__MIN_INSYNC_REPLICAS": "2",
    }
    with pytest.raises(AssertionError, match="has replication factor 1, ") as caught:
        ReceiverProcess(tmp_path, proud)
    assert "Traceback" not in str(caught.value)


@pytest.mark.long
@pytest.mark.timeout(400)
@asynchronous
async def test_a_minute_without_broker_under_full_load(mortal: KafkaServers, tmp_path: Path) -> None:
    """Many senders that never tire: memory stays within the budget, twice over for the client's own copies."""
    settings = kafka_settings(mortal)
    node = mortal.nodes[0]
    answered: dict[int, int] = {}
    acknowledged: set[str] = set()
    stop = asyncio.Event()

    async def sender(number: int, port: int) -> None:
        sequence = 0
        while not stop.is_set():
            try:
                scu = await Scu.associated(port)
                while not stop.is_set():
                    sequence += 1
                    uid = f"1.{number}.{sequence}"
                    await scu.send(c_store(uid, ct_data_set(uid, 3_000_000 if number % 2 else 500_000)))
                    status = (await scu.response(120)).status
                    answered[status] = answered.get(status, 0) + 1
                    if status == 0:
                        acknowledged.add(uid)
                await scu.close()
            except (AssertionError, OSError):  # rejected as congested
                answered[-1] = answered.get(-1, 0) + 1
                await asyncio.sleep(0.5)

    with receiver(tmp_path, settings) as running:
        tasks = [asyncio.create_task(sender(number, running.port)) for number in range(1, 49)]
        await asyncio.sleep(5)
        before = running.peak_resident
        node.pause()
        await asyncio.sleep(60)
        peak = running.peak_resident
        node.resume()
        answered.clear()
        await asyncio.sleep(15)
        stop.set()
        await asyncio.gather(*tasks)
        print(f"before {before:.0f}, peak {peak:.0f} MiB; {answered} afterwards, {len(acknowledged)} in all")  # noqa: T201
        assert answered[0] > 48
        assert peak < 2.5 * settings.receiver.buffer_budget / MiB + 64
        running.assert_calm()
        assert running.stop() == 0
    await asyncio.to_thread(mortal.wait_complete)
    found = await asyncio.to_thread(instances, mortal, settings)
    assert acknowledged <= set(found)
    assert all(len(copies) == 1 for copies in found.values())
