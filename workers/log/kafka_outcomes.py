"""Announces each upload's place on the outcome topic, in the partition of the same number.

An OUTCOME record is acknowledged by all replicas in sync before the commit that counts it. A replay may announce an
upload again, so whoever reads outcomes keys them by upload id; nothing is counted by reading them.
"""

from collections.abc import Sequence
from typing import Final

from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.producer import Outgoing, TopicProducer
from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import KafkaSettings
from workers.errors import Unavailable
from workers.log.checkpoint import Announced

_RETRY_AFTER: Final = 1.0  # s


class KafkaOutcomes(TopicProducer):
    """The outcome topic, for all partitions of a worker. Owned by one event loop."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings, settings.outcome_topic)

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
        records = [
            Outgoing(self._partition, encode_header(Kind.OUTCOME, upload_id, 0, outcome))
            for upload_id, outcome in outcomes
        ]
        try:
            await self._topic.send(records)
        except KafkaUnreachable as error:
            raise Unavailable(f"outcome topic: {error}", _RETRY_AFTER) from None
        return 0

    def counted(self, position: int) -> None:
        """Nothing is kept for those that are counted: retention is the topic's."""
