"""Announces each upload's place on the outcome topic, in the partition of the same number.

An OUTCOME record is acknowledged by all replicas in sync before the commit that counts it. A replay may announce an
upload again, so whoever reads outcomes keys them by upload id; nothing is counted by reading them.
"""

from collections.abc import Sequence

from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import KafkaSettings
from workers.log.checkpoint import Announced
from workers.log.topic_producer import Outgoing, TopicProducer


class KafkaOutcomes(TopicProducer):
    """The outcome topic, for all partitions of a worker. Owned by one event loop."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings, settings.outcome_topic, "outcome topic")

    def of(self, partition: int) -> "PartitionOutcomes":
        """The announcer of one partition."""
        return PartitionOutcomes(self, partition)


class PartitionOutcomes:
    """See `Announcer`; positions in the outcome topic mean nothing to the account."""

    def __init__(self, topic: TopicProducer, partition: int) -> None:
        self._topic = topic
        self._partition = partition

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        """See `Announcer`.

        Raises:
            Unavailable: brokers do not acknowledge them now.
        """
        await self._topic.send(
            [
                Outgoing(self._partition, encode_header(Kind.OUTCOME, upload_id, 0, outcome))
                for upload_id, outcome in outcomes
            ]
        )
        return 0

    def counted(self, position: int) -> None:
        """Nothing is kept for those that are counted: retention is the topic's."""
