"""Announces each upload's place on the outcome topic, in the partition of the same number.

An OUTCOME record is acknowledged by all replicas in sync before the commit that counts it. A replay may announce an
upload again, so whoever reads outcomes keys them by upload id; nothing is counted by reading them.
"""

from collections.abc import Sequence

from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import KafkaSettings
from workers.log.checkpoint import Announced
from workers.log.topic_producer import Outgoing, TopicProducer


class KafkaOutcomes:
    """The outcomes of a worker. Owned by one event loop."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = TopicProducer(settings, settings.outcome_topic, "outcome topic")

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaUnreachable: no broker answers, or none lets us in.
        """
        await self._topic.start()

    def of(self, partition: int) -> "PartitionOutcomes":
        """The announcer of one partition."""
        return PartitionOutcomes(self, partition)

    async def announce(self, partition: int, outcomes: Sequence[Announced]) -> None:
        """Make outcomes durable.

        Raises:
            Unavailable: brokers do not acknowledge them now.
        """
        records = [
            Outgoing(partition, encode_header(Kind.OUTCOME, upload_id, 0, outcome))
            for upload_id, outcome in outcomes
        ]
        await self._topic.send(records)

    async def close(self) -> None:
        """Let go of the client; whatever was announced is acknowledged, or is not waited for any more."""
        await self._topic.close()


class PartitionOutcomes:
    """See `Announcer`; positions in the outcome topic mean nothing to the account."""

    def __init__(self, outcomes: KafkaOutcomes, partition: int) -> None:
        self._outcomes = outcomes
        self._partition = partition

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        """See `Announcer`."""
        await self._outcomes.announce(self._partition, outcomes)
        return 0

    def counted(self, position: int) -> None:
        """Nothing is kept for those that are counted: retention is the topic's."""
