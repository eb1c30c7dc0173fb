"""Brokers that lose the end of a partition, as by a power cut, and give its positions to other records: none is passed over."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import TopicPartition

from ingest.contract.settings import Settings
from tests.support.group_member import Member, committed, until
from tests.support.kafka_records import Publisher, kafka_settings
from tests.support.kafka_servers import KafkaServers

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("lost-end")]
numbers = itertools.count()


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """A broker whose power fails, and which soon after is known to have been away."""
    properties = {"broker.session.timeout.ms": "1000", "broker.heartbeat.interval.ms": "200"}
    with KafkaServers(tmp_path_factory.mktemp("lost-end"), properties=properties) as servers:
        yield servers


@pytest.fixture
def settings(cut_off: KafkaServers, tmp_path: Path) -> Settings:
    """A log of one partition of its own; a worker that lives through a start of the broker stays in its group."""
    name = f"lost-end-{next(numbers)}"
    return kafka_settings(cut_off, tmp_path, name, partitions=1, client={"session_timeout": 30})[0]


def publish(settings: Settings, count: int) -> None:
    """So many records, each in a batch of its own: a producer that starts after a power cut."""
    with closing(Publisher(settings)) as publisher:
        for _ in range(count):
            publisher.upload("1.2", b"a")
            publisher.flush()


def fail_power(kafka: KafkaServers, settings: Settings, end: int) -> None:
    """The partition ends there when the broker is back."""
    (node,) = kafka.nodes
    node.kill()
    node.lose(settings.kafka.instance_topic, 0, end)
    node.start()
    kafka.wait_complete()


async def read(member: Member, count: int) -> None:
    """Until so many records have come in all."""
    await until(lambda: len(member.entries) >= count and 0 in member.owned, member)


async def a_worker_reads(settings: Settings, count: int) -> Member:
    """All of a new log of so many records, and commits; it goes on."""
    publish(settings, count)
    member = Member(settings)
    await member.reader.start()
    await read(member, count)
    await member.commit()
    return member


async def a_worker_has_read(settings: Settings, count: int) -> None:
    """And has ended."""
    member = await a_worker_reads(settings, count)
    await member.reader.close()


def test_the_next_worker_reads_what_has_the_lost_places(settings: Settings, cut_off: KafkaServers) -> None:
    """Its account is ahead of the log first, and then within records that nobody has read."""

    async def scenario() -> None:
        await a_worker_has_read(settings, 10)
        fail_power(cut_off, settings, 6)
        publish(settings, 8)
        member = Member(settings)
        await member.reader.start()
        await read(member, 8)
        assert member.positions(0) == list(range(6, 14))
        await member.commit()
        await member.reader.close()
        found = committed(settings, 0)
        assert (found.low_water_mark, found.lost) == (14, 4)

    asyncio.run(scenario())


def test_an_account_ahead_of_the_log_waits_for_what_comes(settings: Settings, cut_off: KafkaServers) -> None:
    """Nothing new has come yet when the next worker looks: it says what is lost once, and reads on."""

    async def scenario() -> None:
        await a_worker_has_read(settings, 3)
        fail_power(cut_off, settings, 1)
        for _ in range(2):
            member = Member(settings)
            await member.reader.start()
            await read(member, 0)
            assert member.owned[0].lost == 2
            await member.reader.close()
        publish(settings, 4)
        member = Member(settings)
        await member.reader.start()
        await read(member, 4)
        assert member.positions(0) == [1, 2, 3, 4]
        await member.reader.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("new", [1, 9])
def test_a_worker_that_lives_through_it_reads_them_too(
    settings: Settings, cut_off: KafkaServers, new: int
) -> None:
    """Whether they end before the place where it was, or behind it."""

    async def scenario() -> None:
        member = await a_worker_reads(settings, 5)
        # Not in a thread of its own: a broker lives no longer than the one that starts it.
        fail_power(cut_off, settings, 2)
        publish(settings, new)
        await read(member, 5 + new)
        assert member.positions(0) == [*range(5), *range(2, 2 + new)]
        assert member.owned[0].lost == 3
        await member.reader.close()

    asyncio.run(scenario())


def test_a_worker_that_has_read_nothing_yet_reads_them_too(settings: Settings, cut_off: KafkaServers) -> None:
    """It knows what was read by the commit alone, and its client nothing."""

    async def scenario() -> None:
        await a_worker_has_read(settings, 5)
        member = Member(settings)
        await member.reader.start()
        await read(member, 0)
        fail_power(cut_off, settings, 2)
        publish(settings, 9)
        await read(member, 9)
        assert member.positions(0) == list(range(2, 11))
        assert member.owned[0].lost == 3
        await member.reader.close()

    asyncio.run(scenario())


def test_a_broker_that_comes_back_whole_has_lost_nothing(settings: Settings, cut_off: KafkaServers) -> None:
    """Another epoch alone says nothing, neither to who lives on nor to who comes after."""

    async def scenario() -> None:
        member = await a_worker_reads(settings, 3)
        (node,) = cut_off.nodes
        for expected in (5, 7):
            node.kill()
            node.start()
            publish(settings, 2)
            await read(member, expected)
        assert member.positions(0) == list(range(7))
        assert member.owned[0].lost == 0
        await member.commit()
        await member.reader.close()
        member = Member(settings)
        await member.reader.start()
        await read(member, 0)
        assert member.owned[0].low_water_mark == 7
        assert member.owned[0].lost == 0
        await member.reader.close()

    asyncio.run(scenario())


def test_retention_of_another_epoch_is_counted_once(settings: Settings, cut_off: KafkaServers) -> None:
    """What it took unread is no end that was lost, though the epoch that was read ends before it."""

    async def scenario() -> None:
        await a_worker_has_read(settings, 3)
        (node,) = cut_off.nodes
        node.kill()
        node.start()
        publish(settings, 4)
        with closing(cut_off.admin()) as admin:
            admin.delete_records({TopicPartition(settings.kafka.instance_topic, 0): 5})
        member = Member(settings)
        await member.reader.start()
        await read(member, 2)
        await member.commit()
        await member.reader.close()
        found = committed(settings, 0)
        assert (found.low_water_mark, found.lost) == (7, 2)

    asyncio.run(scenario())
