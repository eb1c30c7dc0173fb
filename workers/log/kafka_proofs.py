"""Hands proofs over on Kafka: COMMIT_PROVED records on the commitment topic, in the partition of their transaction."""

from ingest.contract.settings import Settings
from workers.log.proof import Proof
from workers.log.topic_producer import Outgoing, TopicProducer


class KafkaProofs:
    """See `Proofs`. Connects when there is the first, as where commitment is off there is no such topic."""

    def __init__(self, settings: Settings) -> None:
        self._topic = TopicProducer(settings.kafka, settings.kafka.commitment_topic, "commitment topic")
        self._partitions = settings.log.partitions

    async def publish(self, proof: Proof) -> None:
        """See `Proofs.publish`."""
        home = proof.transaction_id.home(self._partitions)
        await self._topic.send([Outgoing(home, proof.encoded())])

    async def close(self) -> None:
        """Let go of the client."""
        await self._topic.close()
