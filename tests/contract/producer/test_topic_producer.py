"""A topic's producer: what it says is durable is there, a failed one makes way for another, and nothing is left open."""

import asyncio

import pytest

from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.producer import Outgoing, TopicProducer
from ingest.contract.settings import KafkaSettings
from tests.support.asynchronous import asynchronous, until
from tests.support.kafka_log import PARTITIONS, kafka_settings, values
from tests.support.kafka_servers import KafkaServers
from tests.support.scripted_broker import ScriptedBroker

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

DEADLINE = 60.0  # s; a busy machine's
REFUSED = 87  # INVALID_RECORD: does not pass


def topic_producer(broker: ScriptedBroker, delivery_timeout: float) -> TopicProducer:
    servers = (f"127.0.0.1:{broker.port}",)
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": servers, "delivery_timeout": delivery_timeout}
    )
    return TopicProducer(settings, broker.topic)


@asynchronous
async def test_each_record_stands_where_its_offset_says(kafka: KafkaServers) -> None:
    """Of many that are sent together, and by several at once."""
    settings = kafka_settings(kafka)
    producer = TopicProducer(settings.kafka, settings.kafka.instance_topic)
    sent = [
        [Outgoing((number + turn) % PARTITIONS, b"%d of %d" % (number, turn)) for number in range(50)]
        for turn in range(8)
    ]
    offsets = await asyncio.gather(*map(producer.send, sent))
    assert await producer.send([]) == []
    await producer.close()
    found = await asyncio.to_thread(values, kafka, settings)
    for records, places in zip(sent, offsets, strict=True):
        assert [found[record.partition][at] for record, at in zip(records, places, strict=True)] == [
            record.value for record in records
        ]
    assert sum(map(len, found)) == 8 * 50


@asynchronous
async def test_brokers_that_do_not_answer_fail_what_waits_and_what_comes() -> None:
    """Each in its time, however many wait to connect; once brokers answer the next is taken."""
    async with ScriptedBroker(silent=True) as broker:
        producer = topic_producer(broker, 1)
        for _ in range(2):
            sending = [producer.send([Outgoing(0, b"x")]) for _ in range(20)]
            async with asyncio.timeout(DEADLINE):
                for error in await asyncio.gather(*sending, return_exceptions=True):
                    assert isinstance(error, KafkaUnreachable)
        broker.speak()
        async with asyncio.timeout(DEADLINE):
            assert await producer.send([Outgoing(0, b"x")]) == [0]
            broker.silent = True
            with pytest.raises(KafkaUnreachable):
                await producer.send([Outgoing(0, b"x")])
            broker.speak()
            assert await producer.send([Outgoing(0, b"x")]) == [0]
            await producer.close()
            await until(lambda: not broker.open)


@asynchronous
async def test_a_record_that_is_refused_takes_no_later_one_with_it() -> None:
    """With it fails what shares its producer; another is opened for whatever comes then."""
    async with ScriptedBroker(error=lambda partition: REFUSED if partition == 1 else 0) as broker:
        producer = topic_producer(broker, DEADLINE)
        await producer.start()
        for _ in range(3):
            with pytest.raises(KafkaUnreachable):
                await producer.send([Outgoing(1, b"x")])
            assert await producer.send([Outgoing(0, b"x")]) == [0]
        await producer.close()
        await until(lambda: not broker.open)


@asynchronous
async def test_who_waits_no_more_leaves_nothing_open() -> None:
    """As when a partition goes while its proof waits for brokers: connected, or still on the way there."""
    async with ScriptedBroker(silent=True) as broker:
        producer = topic_producer(broker, DEADLINE)
        for connected in (False, True):
            if connected:
                broker.speak()
                await producer.start()
                broker.silent = True
            sending = asyncio.create_task(producer.send([Outgoing(0, b"x")]))
            await until(lambda: broker.open)
            sending.cancel()
            await asyncio.wait({sending})
            if not connected:
                await until(lambda: not broker.open)
        broker.speak()
        assert await producer.send([Outgoing(0, b"x")]) == [0]
        await producer.close()
        await until(lambda: not broker.open)


@asynchronous
async def test_a_start_without_brokers_says_where_they_were_looked_for() -> None:
    producer = TopicProducer(
        KafkaSettings(bootstrap_servers=("127.0.0.1:1",), delivery_timeout=1), "instances"
    )
    with pytest.raises(KafkaUnreachable, match=r"127\.0\.0\.1:1"):
        await producer.start()
    await producer.close()
