"""Hands proofs over on Kafka: COMMIT_PROVED records on the commitment topic, in the partition of their transaction."""

from typing import Final

from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.producer import Outgoing, TopicProducer
from ingest.contract.settings import Settings
from workers.errors import Unavailable
from workers.log.proof import Proof

_RETRY_AFTER: Final = 1.0  # s


class KafkaProofs:
    """See `Proofs`. Connects when there is the first, as where commitment is off there is no such topic."""

    def __init__(self, settings: Settings) -> None:
        self._topic = TopicProducer(settings.kafka, settings.kafka.commitment_topic)
        self._partitions = settings.log.partitions

    async def publish(self, proof: Proof) -> None:
        """See `Proofs.publish`."""
        home = proof.transaction_id.home(self._partitions)
        try:
            await self._topic.send([Outgoing(home, proof.encoded())])
        except KafkaUnreachable as error:
            raise Unavailable(f"commitment topic: {error}", _RETRY_AFTER) from None

    async def close(self) -> None:
        """Let go of the client."""
        await self._topic.close()
