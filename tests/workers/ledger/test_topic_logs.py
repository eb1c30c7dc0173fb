"""The logs of many machines on a real broker: read on from any offset; what retention took unread is told."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from ingest.contract.identifiers import UploadId
from ingest.contract.kafka_topics import create_topics
from ingest.contract.settings import Settings
from tests.support.kafka_records import kafka_settings
from tests.support.kafka_servers import KafkaServers
from tests.support.ledgers import fates, outcome
from tests.support.waiting import until
from workers.ledger.consumer import catch_up, logs_of
from workers.ledger.database import open_database
from workers.ledger.ledger import Ledger
from workers.log.checkpoint import Announced
from workers.log.kafka_outcomes import KafkaOutcomes

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.xdist_group("kafka"),
    # As in the tests of the reader.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


async def _announce(settings: Settings, numbers: range) -> None:
    producer = KafkaOutcomes(settings.kafka)
    await producer.start()
    try:
        for number in numbers:
            announced = Announced(UploadId.of(1, 1, number), outcome(number))
            await producer.of(number % settings.log.partitions).announce([announced])
    finally:
        await producer.close()


def test_topics_are_read_on(kafka: KafkaServers, tmp_path: Path) -> None:
    """All partitions, once; by another reader from where the first was; a gap is counted."""
    settings, _ = kafka_settings(kafka, tmp_path, "ledger-logs")
    ledger = Ledger(open_database(settings))
    with closing(ledger):
        with closing(logs_of(settings)) as logs:
            assert catch_up(ledger, logs) == 0
            asyncio.run(_announce(settings, range(20)))
            assert catch_up(ledger, logs) == 20
            asyncio.run(_announce(settings, range(18, 40)))
            assert catch_up(ledger, logs) == 22  # two of them again
            assert catch_up(ledger, logs) == 0
        with closing(logs_of(settings)) as logs:
            assert catch_up(ledger, logs) == 0
            assert len(fates(ledger)) == 40
            assert ledger.counts()[1] == 0
            asyncio.run(_announce(settings, range(40, 48)))
            with closing(KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)) as admin:
                # As retention does; `delete_records` takes the offset that becomes the first.
                place = TopicPartition(settings.kafka.outcome_topic, 0)
                admin.delete_records({place: ledger.positions()[f"{place.topic}/0"] + 1})
            assert catch_up(ledger, logs) == 7
            assert len(fates(ledger)) == 47
            assert ledger.counts()[1] == 1


def test_a_topic_made_anew_is_read_from_its_start(kafka: KafkaServers, tmp_path: Path) -> None:
    """It ends before what was read of the one before: nothing of it is passed over, and the break is counted."""
    settings, _ = kafka_settings(kafka, tmp_path, "ledger-anew")
    ledger = Ledger(open_database(settings))
    with closing(ledger), closing(logs_of(settings)) as logs:
        asyncio.run(_announce(settings, range(40)))
        assert catch_up(ledger, logs) == 40
        topic = settings.kafka.outcome_topic
        with closing(KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)) as admin:
            admin.delete_topics([topic])
            until(lambda: topic not in admin.list_topics(), "the topic gone")
        assert create_topics(settings) == [topic]
        asyncio.run(_announce(settings, range(40, 48)))
        assert catch_up(ledger, logs) == 8
        assert catch_up(ledger, logs) == 0
        assert len(fates(ledger)) == 48
        assert ledger.counts()[1] == settings.log.partitions
