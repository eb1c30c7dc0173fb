"""What is compared with what. Each scenario takes a `Scale` and returns comparisons.

``protocol``  the receiver without a log, against a discarding peer
``receive``   durable receive, against peers that are not durable and against the disk
``kafka``     the same into Kafka (``kafka_receive``), against the bare client
``worker``    transcode and proof, against the bare codec calls
``kafka-consume``  (``kafka_consume``) a worker without codec and store on Kafka, against a bare client
``end-to-end``  spool to store with one and two workers, into a folder and MinIO, and while receiving
``resend``    a stored study once more
``commitment``  proof of stored objects, against bare reads of them; ``commitment_whole`` from N-ACTION to report,
              ``commitment_beside`` what it costs those who send
``latency``   response and time to stored at half of the capacity, in open loop
``memory``    what one huge instance and many senders cost
``soak``      memory over time, under a hospital day's mix
``profile``   processor time, copies and system calls of each hop; not in the quick form
``network``   arms that send to a receiver, and ``scale``, how much: shared by the others
``scaling``   cost of an instance by objects in the store, and by associations
"""

from typing import Final

from benchmarks.scenarios import (
    commitment,
    end_to_end,
    kafka_consume,
    kafka_receive,
    latency,
    memory,
    profile,
    protocol,
    receive,
    resend,
    scaling,
    soak,
    worker,
)
from benchmarks.scenarios.scale import Scale, Scenario

PROFILE: Final = "profile"
SCENARIOS: Final[dict[str, Scenario]] = {
    "protocol": protocol.run,
    "receive": receive.run,
    "kafka": kafka_receive.run,
    "worker": worker.run,
    "kafka-consume": kafka_consume.run,
    "end-to-end": end_to_end.run,
    "resend": resend.run,
    "commitment": commitment.run,
    "latency": latency.run,
    "memory": memory.run,
    "soak": soak.run,
    "scaling": scaling.run,
    PROFILE: profile.run,
}

__all__ = ["PROFILE", "SCENARIOS", "Scale", "Scenario"]
