"""What is compared with what. Each scenario takes a `Scale` and returns comparisons.

``protocol``  the receiver without a log, against a discarding peer
``receive``   durable receive, against peers that are not durable and against the disk
``kafka``     the same into Kafka, against the bare client
``worker``    transcode and proof, against the bare codec calls
``kafka-consume``  a worker without codec and store on Kafka, against a bare client
``commitment``  proof of stored objects, against bare reads of them
``memory``    what one huge instance and many senders cost
"""

from benchmarks.scenarios import commitment, kafka_consume, kafka_receive, memory, protocol, receive, worker
from benchmarks.scenarios.scale import Scale, Scenario

SCENARIOS: dict[str, Scenario] = {
    "protocol": protocol.run,
    "receive": receive.run,
    "kafka": kafka_receive.run,
    "worker": worker.run,
    "kafka-consume": kafka_consume.run,
    "commitment": commitment.run,
    "memory": memory.run,
}

__all__ = ["SCENARIOS", "Scale", "Scenario"]
