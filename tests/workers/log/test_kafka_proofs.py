"""Proofs on the commitment topic of a real broker."""

import asyncio
import itertools
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from ingest.contract.commitments import CommitProved, Finding, Found, commitment_of, found_of
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import Kind, decode
from ingest.contract.settings import Settings
from tests.support.fences import CLASS
from tests.support.kafka_records import kafka_settings
from tests.support.kafka_servers import KafkaServers
from workers.errors import Unavailable
from workers.log.kafka_proofs import KafkaProofs
from workers.log.proof import Proof

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("kafka"),
    # As in the tests of the reader.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]
numbers = itertools.count()


@pytest.fixture
def settings(kafka: KafkaServers, tmp_path: Path) -> Settings:
    """A log whose commitment topic is still missing."""
    name = f"proofs-{next(numbers)}"
    client = {"commitment_topic": f"{name}-commitments", "delivery_timeout": 5.0}
    return kafka_settings(kafka, tmp_path, name, client=client)[0]


def make_topic(settings: Settings) -> None:
    """As `topics create` does where commitment is enabled."""
    with closing(KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)) as admin:
        admin.create_topics([NewTopic(settings.kafka.commitment_topic, settings.log.partitions, 1)])


def proofs(count: int) -> list[Proof]:
    """Of several transactions, one of them as large as it can be."""
    return [
        Proof(
            TransactionId.of("MODALITY", f"1.2.{number}"),
            CommitProved(0, number, count, number % 4, 1),
            [
                Found(CLASS, f"1.2.{instance:060d}", Finding.PROVED)
                for instance in range(4000 if not number else 3)
            ],
        )
        for number in range(count)
    ]


def found_on(settings: Settings) -> dict[TransactionId, int]:
    """The partition of each transaction's proof, all of them read back and compared."""
    expected = {proof.transaction_id: proof for proof in proofs(12)}
    topic = settings.kafka.commitment_topic
    with closing(KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers)) as consumer:
        places = [TopicPartition(topic, number) for number in range(settings.log.partitions)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        consumer.seek_to_beginning(*places)
        found = {}
        while any(consumer.position(place) < ends[place] for place in places):
            for place, batch in consumer.poll(timeout_ms=500).items():
                for one in batch:
                    record = decode(one.value)
                    proof = expected[TransactionId(record.upload_id)]
                    assert record.kind is Kind.COMMIT_PROVED
                    assert commitment_of(record) == proof.proved
                    assert found_of(record) == list(proof.found)
                    found[proof.transaction_id] = place.partition
    return found


def test_a_proof_goes_to_the_home_of_its_transaction(settings: Settings) -> None:
    """Whichever partition of the instance log it comes from; a missing topic holds it until it is there."""

    async def scenario() -> None:
        sender = KafkaProofs(settings)
        try:
            with pytest.raises(Unavailable, match="commitment topic"):
                await sender.publish(proofs(12)[1])
            await asyncio.to_thread(make_topic, settings)
            for proof in proofs(12):
                while True:
                    try:
                        await sender.publish(proof)
                    except Unavailable:
                        await asyncio.sleep(0.1)  # the client learns of the topic in its own time
                    else:
                        break
        finally:
            await sender.close()

    asyncio.run(scenario())
    found = found_on(settings)
    assert found == {proof.transaction_id: proof.transaction_id.home(4) for proof in proofs(12)}
    assert len(set(found.values())) > 1


def test_a_topic_that_is_known_late_is_waited_for(settings: Settings) -> None:
    """As by a process that stood still while it connected: one look in vain does not end it."""

    async def scenario() -> None:
        patient = settings.kafka.model_copy(update={"delivery_timeout": 60.0})
        sender = KafkaProofs(settings.model_copy(update={"kafka": patient}))
        publishing = asyncio.create_task(sender.publish(proofs(2)[1]))
        await asyncio.sleep(2)  # a look is a second, and there are sixty
        await asyncio.to_thread(make_topic, settings)
        await publishing
        await sender.close()

    asyncio.run(scenario())
