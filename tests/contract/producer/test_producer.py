"""The producer on a real broker whose connections are cut, silent or lose answers; and a broker that is none."""

import asyncio
import random
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from kafka.errors import (
    Cancelled,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.metadata import MetadataRequest

from ingest.contract.kafka import MAXIMUM_MESSAGE, KafkaUnreachable
from ingest.contract.producer import Producer, Sent
from ingest.contract.producer.broker import Broker
from ingest.contract.settings import KafkaSettings, Settings
from tests.support.asynchronous import asynchronous, until
from tests.support.kafka_log import PARTITIONS, kafka_settings, values
from tests.support.kafka_servers import KafkaServers
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

DEADLINE = 60.0  # s; a busy machine's


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    with KafkaServers(tmp_path_factory.mktemp("proxied"), proxied=True) as servers:
        yield servers


def settings_of(servers: KafkaServers) -> Settings:
    return kafka_settings(servers, bootstrap_servers=servers.proxied_bootstrap_servers)


def proxy_of(servers: KafkaServers) -> TcpProxy:
    (node,) = servers.nodes
    assert node.proxy is not None
    return node.proxy


class Owner:
    """Whoever publishes: what became of its records."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.acknowledged: list[Sent] = []
        self.failed: list[tuple[Sent, Exception]] = []

    def done(self, _producer: Producer, sent: Sent, error: Exception | None) -> None:
        if error is None:
            self.acknowledged.append(sent)
        else:
            self.failed.append((sent, error))

    def send(self, producer: Producer, partition: int, value: bytes | bytearray) -> Sent:
        future = asyncio.get_running_loop().create_future()
        sent = Sent(memoryview(value), future, partition, time.monotonic())
        producer.send(partition, sent)
        return sent

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Producer]:
        producer = Producer(self.settings.kafka, self.settings.kafka.instance_topic, self.done)
        await producer.open(DEADLINE)
        try:
            yield producer
        finally:
            await producer.close(0)


@asynchronous
@pytest.mark.parametrize("how", ["cut", "lose answers"])
async def test_lost_connections_lose_and_double_nothing(proxied: KafkaServers, how: str) -> None:
    """Each record is acknowledged, stands in the log once, and in its order, however often it had to be sent."""
    settings, proxy, rng = settings_of(proxied), proxy_of(proxied), random.Random(1)
    owner = Owner(settings)
    sent: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    async with owner.running() as producer:
        for number in range(400):
            value = b"%d," % number + rng.randbytes(
                rng.choice([10, 10_000, 900_000 if number % 20 == 0 else 100])
            )
            partition = rng.randrange(PARTITIONS)
            sent[partition].append(value)
            owner.send(producer, partition, value)
            if number % 40 == 20:
                if how == "cut":
                    proxy.cut()
                else:
                    proxy.set(Mode.LOSE_ANSWERS)
            elif number % 40 == 30:
                proxy.set(Mode.PASS)
            await asyncio.sleep(0.005)
        proxy.set(Mode.PASS)
        async with asyncio.timeout(DEADLINE):
            await until(lambda: not producer.sent)
    assert not owner.failed
    assert all(one.appended_at > 0 for one in owner.acknowledged)
    assert all(sent[one.owner][one.offset] == one.value for one in owner.acknowledged)  # type: ignore[call-overload] # an int
    assert await asyncio.to_thread(values, proxied, settings) == sent


@asynchronous
async def test_bytes_of_what_failed_may_change(proxied: KafkaServers) -> None:
    """When a record is said to have failed, nothing of it can be sent any more: its buffer is another instance's by then."""
    settings, proxy = settings_of(proxied), proxy_of(proxied)
    owner = Owner(settings)
    async with owner.running() as producer:
        proxy.set(Mode.SILENT)
        buffers = [bytearray(b"a" * 900_000) for _ in range(12)]
        for buffer in buffers:
            owner.send(producer, 0, buffer)
        await asyncio.sleep(0.2)  # as much as fits is on its way
        producer.abort(Cancelled("given up"))
        assert not owner.failed, "the connection is not closed yet"
        async with asyncio.timeout(DEADLINE):
            await until(lambda: len(owner.failed) == len(buffers))
        assert not producer._brokers
        for buffer in buffers:
            buffer[:] = b"b" * len(buffer)
        with pytest.raises(Cancelled):
            owner.send(producer, 0, b"late")
    proxy.set(Mode.PASS)
    (found, *_) = await asyncio.to_thread(values, proxied, settings)
    assert set(found) <= {b"a" * 900_000}


@asynchronous
async def test_what_cannot_be_sent_is_refused_at_once(proxied: KafkaServers) -> None:
    """No such partition, or longer than the topic takes: whoever publishes is told, and the others go on."""
    owner = Owner(settings_of(proxied))
    async with owner.running() as producer:
        with pytest.raises(UnknownTopicOrPartitionError):
            owner.send(producer, PARTITIONS, b"x")
        with pytest.raises(MessageSizeTooLargeError):
            owner.send(producer, 0, bytes(MAXIMUM_MESSAGE))
        owner.send(producer, 0, b"x")
        async with asyncio.timeout(DEADLINE):
            await until(lambda: len(owner.acknowledged) == 1)


@asynchronous
async def test_an_error_that_does_not_pass_ends_it(proxied: KafkaServers) -> None:
    """As when brokers know nothing of what they acknowledged before: all under way fails, and it takes nothing more."""
    owner = Owner(settings_of(proxied))
    async with owner.running() as producer:
        owner.send(producer, 0, b"x")
        async with asyncio.timeout(DEADLINE):
            await until(lambda: not producer.sent)
        producer._queues[0]._sequence += 1000  # as if they had lost a thousand records
        owner.send(producer, 0, b"y")
        owner.send(producer, 1, b"x")
        async with asyncio.timeout(DEADLINE):
            await until(lambda: not producer.sent)
        assert [type(error).__name__ for _, error in owner.failed][:1] == ["OutOfOrderSequenceNumberError"]
        with pytest.raises(Cancelled):
            owner.send(producer, 2, b"x")


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


@asynchronous
@pytest.mark.parametrize(
    "answer",
    [
        struct.pack(">ii", 4, 99),
        struct.pack(">ii", -5, 1),
        struct.pack(">ii", 2**30, 1),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
    ids=["another request's", "negative", "huge", "another protocol", "nothing"],
)
async def test_what_is_no_broker_is_left(answer: bytes) -> None:
    """A response that belongs to no request, or is longer than any: the connection is closed, and who waits is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(answer)
        if answer:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    lost: list[Broker] = []
    broker = await Broker.connect("127.0.0.1", port, KafkaSettings(), lost.append)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(KafkaConnectionError):
            await broker.ask(MetadataRequest[5](topics=[], allow_auto_topic_creation=False))
        with pytest.raises(KafkaConnectionError):
            await broker.ask(MetadataRequest[5](topics=[], allow_auto_topic_creation=False))
    assert lost == [broker]
    server.close()


@asynchronous
async def test_a_start_without_brokers_leaves_nothing_open() -> None:
    """Within its time, and the error says where it was looked."""
    producer = Producer(KafkaSettings(bootstrap_servers=("127.0.0.1:1",)), "instances", lambda *_: None)
    with pytest.raises(KafkaUnreachable, match=r"127\.0\.0\.1:1"):
        await producer.open(0.5)
    assert not producer._brokers
    await producer.close(0)


@asynchronous
async def test_who_is_let_in_and_cut_off_is_looked_for_again() -> None:
    """A server that resets each connection: the start ends in its time, and the error is told."""

    def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    producer = Producer(KafkaSettings(bootstrap_servers=(f"127.0.0.1:{port}",)), "instances", lambda *_: None)
    with pytest.raises(KafkaUnreachable, match=r"cannot be used: (Kafka|Connection)"):
        await producer.open(0.5)
    await producer.close(0)
    server.close()
