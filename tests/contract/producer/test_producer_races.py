"""The producer at moments that a real broker does not come to on demand: nobody waits for ever, and nobody is passed over."""

import asyncio
import time
from collections import Counter

import pytest
from kafka.errors import Cancelled
from kafka.protocol.metadata import MetadataRequest

from ingest.contract.producer import Producer, Sent
from ingest.contract.producer.broker import Broker
from ingest.contract.settings import KafkaSettings
from tests.support.asynchronous import asynchronous, until
from tests.support.scripted_broker import ScriptedBroker

NOT_LEADER = 6
DEADLINE = 60.0  # s; a busy machine's


class Owner:
    """Publishes, and once a record is acknowledged, ``again`` another to the same partition."""

    def __init__(self, broker: ScriptedBroker, again: bool = False, **settings: float) -> None:
        servers = (f"127.0.0.1:{broker.port}",)
        self.settings = KafkaSettings.model_validate({"bootstrap_servers": servers, **settings})
        self.producer = Producer(self.settings, self.settings.instance_topic, self.done)
        self.again = again
        self.acknowledged: Counter[object] = Counter()
        self.failed: list[Exception] = []

    def send(self, partition: int, value: bytes = b"x") -> None:
        future = asyncio.get_running_loop().create_future()
        self.producer.send(partition, Sent(value, future, partition, time.monotonic()))

    def done(self, _producer: Producer, sent: Sent, error: Exception | None) -> None:
        if error is not None:
            self.failed.append(error)
            return
        assert isinstance(sent.owner, int)
        self.acknowledged[sent.owner] += 1
        if self.again:
            self.send(sent.owner, bytes(sent.value))


@asynchronous
async def test_every_partition_has_its_turn() -> None:
    """More of them have full batches than a request has room for: none waits while others are served again and again."""
    async with ScriptedBroker(partitions=6) as broker:
        owner = Owner(broker, again=True)
        await owner.producer.open(DEADLINE)
        value = bytes(900_000)
        for partition in range(6):
            for _ in range(6):
                owner.send(partition, value)
        async with asyncio.timeout(DEADLINE):
            await until(lambda: sum(owner.acknowledged.values()) > 300)
        counts = [owner.acknowledged[partition] for partition in range(6)]
        assert min(counts) > max(counts) / 2
        await owner.producer.close(0)


@asynchronous
async def test_given_up_while_a_connection_opens() -> None:
    """The connection is open, and its owner has not had its turn: it is closed all the same, and everybody is told."""
    async with ScriptedBroker() as broker, ScriptedBroker() as second:
        broker.addresses[1] = second.port
        owner = Owner(broker)
        await owner.producer.open(DEADLINE)
        broker.error, broker.leader = lambda _: NOT_LEADER, lambda _: 1
        made = Broker.connection_made

        def give_up(self: Broker, transport: asyncio.BaseTransport) -> None:
            made(self, transport)
            if transport.get_extra_info("peername")[1] == second.port:
                asyncio.get_running_loop().call_soon(owner.producer.abort, Cancelled("given up"))

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Broker, "connection_made", give_up)
            owner.send(0)
            async with asyncio.timeout(DEADLINE):
                await until(lambda: bool(owner.failed))
        begun = time.monotonic()
        await owner.producer.close(0)
        assert time.monotonic() - begun < 2, "nothing is left to wait for"
        assert not owner.producer._brokers


@asynchronous
async def test_questions_take_no_record_its_turn() -> None:
    """Who leads a partition was asked of a broker that is slow, and nobody waits for its answer any more: records are sent."""
    async with ScriptedBroker() as broker:
        owner = Owner(broker)
        await owner.producer.open(DEADLINE)
        (connection,) = owner.producer._brokers.values()
        broker.silent = True
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await connection.ask(MetadataRequest[5](topics=[], allow_auto_topic_creation=False))
        owner.send(0)
        async with asyncio.timeout(DEADLINE):
            await until(lambda: bool(broker.produced))
            broker.speak()
            await until(lambda: owner.acknowledged[0] == 1)
        await owner.producer.close(0)


@asynchronous
async def test_a_broker_that_is_slow_within_its_limit_is_not_cut_off() -> None:
    """It takes one request at a time: the second's time begins with the first's end."""
    async with ScriptedBroker(delay=0.35) as broker:
        owner = Owner(broker, again=True, delivery_timeout=1)
        await owner.producer.open(DEADLINE)
        connections = broker.connections
        for partition in (0, 1, 2):
            owner.send(partition)
            await asyncio.sleep(0.02)  # a request of its own
        await until(lambda: sum(owner.acknowledged.values()) >= 12)
        assert broker.connections == connections
        owner.again = False
        await owner.producer.close(0)


@asynchronous
async def test_who_cannot_be_told_keeps_nobody_else_waiting() -> None:
    """A defect of one's own: the others of the same batch, and of other partitions, are told."""
    async with ScriptedBroker() as broker:
        owner = Owner(broker)
        told: list[object] = []

        def done(producer: Producer, sent: Sent, error: Exception | None) -> None:
            told.append(sent.owner)
            raise ValueError("a defect")

        owner.producer = Producer(owner.settings, owner.settings.instance_topic, done)
        await owner.producer.open(DEADLINE)
        for partition in (0, 0, 1):
            owner.send(partition)
        async with asyncio.timeout(DEADLINE):
            await until(lambda: len(told) == 3)
        assert not owner.producer.sent
        await owner.producer.close(0)
