"""The logs of many machines on a real broker: read on from any offset; what retention took unread is told."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from ingest.contract.identifiers import UploadId
from tests.support.kafka_records import kafka_settings
from tests.support.kafka_servers import KafkaServers
from tests.support.ledgers import fates, outcome
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


def test_topics_are_read_on(kafka: KafkaServers, tmp_path: Path) -> None:
    """All partitions, once; by another reader from where the first was; a gap is counted."""
    settings, _ = kafka_settings(kafka, tmp_path, "ledger-logs")

    async def announce(numbers: range) -> None:
        producer = KafkaOutcomes(settings.kafka)
        await producer.start()
        try:
            for number in numbers:
                announced = Announced(UploadId.of(1, 1, number), outcome(number))
                await producer.of(number % settings.log.partitions).announce([announced])
        finally:
            await producer.close()

    ledger = Ledger(open_database(settings))
    with closing(ledger):
        with closing(logs_of(settings)) as logs:
            assert catch_up(ledger, logs) == 0
            asyncio.run(announce(range(20)))
            assert catch_up(ledger, logs) == 20
            asyncio.run(announce(range(18, 40)))
            assert catch_up(ledger, logs) == 22  # two of them again
            assert catch_up(ledger, logs) == 0
        with closing(logs_of(settings)) as logs:
            assert catch_up(ledger, logs) == 0
            assert len(fates(ledger)) == 40
            assert ledger.counts()[1] == 0
            asyncio.run(announce(range(40, 48)))
            with closing(KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)) as admin:
                # As retention does; `delete_records` takes the offset that becomes the first.
                place = TopicPartition(settings.kafka.outcome_topic, 0)
                admin.delete_records({place: ledger.positions()[f"{place.topic}/0"] + 1})
            assert catch_up(ledger, logs) == 7
            assert len(fates(ledger)) == 47
            assert ledger.counts()[1] == 1
