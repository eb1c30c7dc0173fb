"""The producer on a real broker: success only after the acknowledgement, whole uploads or none, nothing twice."""

import asyncio
import secrets
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.kafka import KafkaUnreachable, TopicMismatch
from ingest.contract.records import MAX_PAYLOAD, Instance, Kind, encode_header
from ingest.contract.settings import Settings
from ingest.errors import LogUnavailable
from ingest.instance import ChunkPool, Upload
from ingest.log.kafka_writer import KafkaWriter
from tests.support.asynchronous import asynchronous, until
from tests.support.kafka_log import instances, kafka_settings, records
from tests.support.kafka_servers import KafkaServers
from tests.support.scu import CT, EXPLICIT, ct_data_set

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

TIMEOUT = 3.0  # s; of delivery, where a broker is gone
SLACK = 60.0  # s; a busy machine's, and far less than what the client alone would take


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[KafkaWriter]:
    writer = KafkaWriter(settings)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.close()


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """A broker that tests stop and kill."""
    with KafkaServers(tmp_path_factory.mktemp("mortal")) as servers:
        yield servers


def begin(writer: KafkaWriter, uid: str, pool: ChunkPool | None = None) -> Upload:
    upload_id = UploadId.of(writer.receiver_id, writer.epoch, secrets.randbits(48))
    instance = Instance(CT, uid, EXPLICIT, 0, b"", "MODALITY", "DICOM-INGEST", "127.0.0.1", 1)
    return Upload(writer, pool or ChunkPool(64 * 1024 * 1024), upload_id, instance, lambda: None)


async def finish(upload: Upload) -> Exception | None:
    """What `Upload.finish` reports."""
    answer: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    upload.finish(answer.set_result)
    return await answer


async def store(writer: KafkaWriter, uid: str, data_set: bytes) -> Exception | None:
    upload = begin(writer, uid)
    at = 0
    while at < len(data_set):
        taken = upload.write(memoryview(data_set)[at:])
        at += taken
        if not taken:
            await asyncio.sleep(0.005)
    return await finish(upload)


def part(writer: KafkaWriter, upload_id: bytes, index: int, payload: bytes) -> asyncio.Future[None]:
    view = memoryview(payload)
    return writer.publish(0, encode_header(Kind.PART, upload_id, index, None, [view]), [view])


def end(writer: KafkaWriter, upload_id: bytes, parts: int) -> asyncio.Future[None]:
    instance = Instance(CT, "1.2", EXPLICIT, 1, b"", "A", "B", "C", 1)
    return writer.publish(0, encode_header(Kind.END, upload_id, parts, instance), ())


def assert_nothing_twice(servers: KafkaServers, settings: Settings) -> None:
    found = Counter(
        (bytes(record.upload_id), record.kind, record.index)
        for partition in records(servers, settings)
        for record in partition
    )
    assert set(found.values()) <= {1}


@asynchronous
async def test_instances_of_all_sizes_arrive_byte_for_byte(kafka: KafkaServers) -> None:
    """One record up to 960 KiB, parts and an end above it; each in the partition of its UID."""
    settings = kafka_settings(kafka)
    sizes = (1, 2048, 512 * 1024, MAX_PAYLOAD - 4096, MAX_PAYLOAD + 1, 5 * MAX_PAYLOAD)
    sent = {f"1.2.3.{size}": ct_data_set(f"1.2.3.{size}", size) for size in sizes}
    async with opened(settings) as writer:
        assert writer.refusal() is None
        answers = await asyncio.gather(*(store(writer, uid, data) for uid, data in sent.items()))
    assert answers == [None] * len(sizes)
    found = await asyncio.to_thread(instances, kafka, settings)
    assert {uid: [data for _, data in copies] for uid, copies in found.items()} == {
        uid: [data] for uid, data in sent.items()
    }


@asynchronous
async def test_end_waits_for_every_part(kafka: KafkaServers) -> None:
    """END is not even sent before the last PART is acknowledged, so a gap before it is loss."""
    settings = kafka_settings(kafka)
    async with opened(settings) as writer:
        upload_id = UploadId.of(1, 1, 1)
        parts = [part(writer, upload_id, index, b"x" * 1000) for index in range(3)]
        last = end(writer, upload_id, 3)
        assert len(writer._producer.sent) == 3
        await last
        assert all(future.done() for future in parts)
    (found, *_) = await asyncio.to_thread(records, kafka, settings)
    assert [record.kind for record in found] == [Kind.PART] * 3 + [Kind.END]


@asynchronous
async def test_upload_that_paused_too_long_gets_no_end(kafka: KafkaServers) -> None:
    """Workers may have given it up: a process that was stopped and goes on must not finish it."""
    settings = kafka_settings(kafka)
    async with opened(settings) as writer:
        writer._longest_gap = 0.2
        upload_id = UploadId.of(1, 1, 1)
        await part(writer, upload_id, 0, b"x")
        await asyncio.sleep(0.3)
        with pytest.raises(LogUnavailable):
            await part(writer, upload_id, 1, b"x")
        with pytest.raises(LogUnavailable):
            await end(writer, upload_id, 2)
    (found, *_) = await asyncio.to_thread(records, kafka, settings)
    assert [record.kind for record in found] == [Kind.PART]


@asynchronous
async def test_end_that_waited_too_long_is_not_sent(kafka: KafkaServers) -> None:
    """The pause before an END is measured when it is sent, not when it is asked for."""
    settings = kafka_settings(kafka)
    async with opened(settings) as writer:
        upload_id = UploadId.of(1, 1, 1)
        sent, last = part(writer, upload_id, 0, b"x"), end(writer, upload_id, 1)
        writer._longest_gap = -1.0
        await sent
        with pytest.raises(LogUnavailable):
            await last


@asynchronous
@pytest.mark.parametrize("late", [Kind.PART, Kind.END])
async def test_a_pause_that_only_brokers_saw_is_none_the_less_one(kafka: KafkaServers, late: Kind) -> None:
    """A virtual machine that was paused: its clock did not go on, workers' and brokers' did."""
    settings = kafka_settings(kafka)
    async with opened(settings) as writer:
        writer._longest_pause = 200
        upload_id, whole = UploadId.of(1, 1, 1), UploadId.of(1, 1, 2)
        await part(writer, upload_id, 0, b"x")
        await part(writer, whole, 0, b"x")
        await end(writer, whole, 1)
        await asyncio.sleep(0.3)
        if late is Kind.PART:
            with pytest.raises(LogUnavailable):
                await part(writer, upload_id, 1, b"x")
        with pytest.raises(LogUnavailable):
            await end(writer, upload_id, 1 + (late is Kind.PART))
    (found, *_) = await asyncio.to_thread(records, kafka, settings)
    assert [record.kind for record in found][3:] == [late]


@asynchronous
async def test_abandoned_upload_is_aborted(kafka: KafkaServers) -> None:
    """The peer is gone in mid-instance: ABORT tells workers at once; an END that waits is never sent."""
    settings = kafka_settings(kafka)
    data = ct_data_set("1.2.3", 3 * MAX_PAYLOAD)
    async with opened(settings) as writer:
        upload = begin(writer, "1.2.3")
        upload.write(memoryview(data)[: 2 * MAX_PAYLOAD])
        upload.abandon()
        whole = begin(writer, "1.2.3")
        whole.write(memoryview(data))
        whole.finish(lambda _: None)
        whole.abandon()
        await asyncio.sleep(0)
        assert await store(writer, "1.2.3", data) is None
        assert not writer._uploads
    kinds = Counter(
        record.kind for partition in await asyncio.to_thread(records, kafka, settings) for record in partition
    )
    assert kinds[Kind.ABORT] == 2
    assert kinds[Kind.END] == 1


@asynchronous
async def test_start_is_refused_where_topics_break_the_promise(kafka: KafkaServers) -> None:
    """Every difference is named; nothing is acknowledged on a topic that keeps less than was promised."""
    settings = kafka_settings(kafka)
    data = settings.model_dump()
    data["kafka"] |= {"replication_factor": 3, "min_insync_replicas": 2, "sasl_password": "x"}
    data["log"]["partitions"] += 1
    with pytest.raises(TopicMismatch) as caught:
        await KafkaWriter(Settings.model_validate(data)).start()
    assert len(caught.value.problems) == 6
    data["kafka"]["instance_topic"] = "none"
    with pytest.raises(TopicMismatch, match="topic none does not exist"):
        await KafkaWriter(Settings.model_validate(data)).start()


def clients() -> set[threading.Thread]:
    """Threads of Kafka clients, of earlier tests' too."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("kafka")}


@asynchronous
async def test_start_without_broker_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker: an error that names where it was looked for, in bounded time."""
    monkeypatch.setattr("ingest.log.kafka_writer._START", 1.0)
    settings = Settings.model_validate(
        {"log": {"kind": "kafka"}, "kafka": {"bootstrap_servers": ["127.0.0.1:1"]}}
    )
    before = clients()
    for _ in range(3):
        with pytest.raises(KafkaUnreachable, match=r"Kafka at 127\.0\.0\.1:1 cannot be used"):
            await KafkaWriter(settings).start()
    await until(lambda: clients() <= before)  # an outage of an hour must not end with a thousand threads


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_broker_gone_and_back(mortal: KafkaServers, how: str) -> None:
    """Records under way fail within the configured time, later ones too; after it is back nothing is restarted."""
    settings = kafka_settings(mortal, delivery_timeout=TIMEOUT)
    node = mortal.nodes[0]
    started = asyncio.Event()

    async def timed(writer: KafkaWriter, uid: str) -> tuple[Exception | None, float]:
        begun = time.monotonic()
        return await store(writer, uid, ct_data_set(uid, 3 * MAX_PAYLOAD)), time.monotonic() - begun

    async def scenario() -> None:
        async with opened(settings) as writer:
            assert await store(writer, "1.1", ct_data_set("1.1")) is None
            node.kill() if how == "kill" else node.pause()
            for turn in range(3):  # also when the client has noticed
                sent = [timed(writer, f"1.2.{turn}.{number}") for number in range(4)]
                for error, seconds in await asyncio.gather(*sent):
                    assert isinstance(error, LogUnavailable)
                    assert seconds < TIMEOUT + SLACK
            gone.set()
            await started.wait()
            deadline = time.monotonic() + 120
            while await store(writer, "1.3", ct_data_set("1.3")) is not None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            for number in range(20):
                uid = f"1.4.{number}"
                assert await store(writer, uid, ct_data_set(uid, 2 * MAX_PAYLOAD)) is None
            assert writer.refusal() is None
            assert not writer._uploads
            assert not writer._producer.sent

    gone = asyncio.Event()

    async def with_broker() -> None:
        async def bring_back() -> None:
            await gone.wait()
            if how == "kill":
                node.launch()  # in this thread, which the broker dies with
                await asyncio.to_thread(node.wait_listening)
            else:
                node.resume()
            started.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bring_back())
            tasks.create_task(scenario())

    asyncio.run(with_broker())
    mortal.wait_complete()
    assert_nothing_twice(mortal, settings)
    found = instances(mortal, settings)
    assert {f"1.4.{number}" for number in range(20)} <= set(found)
    assert all(len(copies) == 1 for uid, copies in found.items() if uid != "1.3")


@asynchronous
async def test_close_without_broker_is_quick(mortal: KafkaServers) -> None:
    """Whoever still waits is told, and the process can end."""
    settings = kafka_settings(mortal)
    async with opened(settings) as writer:
        mortal.nodes[0].pause()
        waiting = part(writer, UploadId.of(1, 1, 1), 0, b"x")
        begun = time.monotonic()
    mortal.nodes[0].resume()
    assert time.monotonic() - begun < 2 + SLACK
    with pytest.raises(LogUnavailable):
        await waiting


def test_leader_is_killed(kafka_three: KafkaServers, tmp_path: Path) -> None:
    """Three brokers, two in sync: a leader's death under load loses nothing acknowledged, and doubles nothing."""
    settings = kafka_settings(kafka_three)
    acknowledged: dict[str, bytes] = {}

    async def sender(writer: KafkaWriter, name: int, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            uid = f"1.{name}.{number}"
            data = ct_data_set(uid, 200_000 if number % 4 else 2 * MAX_PAYLOAD)
            if await store(writer, uid, data) is None:
                acknowledged[uid] = data

    async def scenario() -> None:
        stop = asyncio.Event()
        async with opened(settings) as writer:
            async with asyncio.TaskGroup() as tasks:
                for name in range(6):
                    tasks.create_task(sender(writer, name, stop))
                await asyncio.sleep(1)
                kafka_three.nodes[0].kill()
                count = len(acknowledged)
                while len(acknowledged) < count + 100:  # noqa: ASYNC110 - the senders announce nothing
                    await asyncio.sleep(0.1)
                stop.set()
            assert not writer._producer.sent

    asyncio.run(scenario())
    kafka_three.nodes[0].start()
    kafka_three.wait_complete()
    assert_nothing_twice(kafka_three, settings)
    found = instances(kafka_three, settings)
    assert {uid: [data for _, data in found[uid]] for uid in acknowledged} == {
        uid: [data] for uid, data in acknowledged.items()
    }
