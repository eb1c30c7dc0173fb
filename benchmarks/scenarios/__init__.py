"""What is compared with what. Each scenario takes a `Scale` and returns comparisons.

``protocol``  the receiver without a log, against a discarding peer
``receive``   durable receive, against peers that are not durable and against the disk
``worker``    transcode and proof, against the bare codec calls
``memory``    what one huge instance and many senders cost
"""

from benchmarks.scenarios import memory, protocol, receive, worker
from benchmarks.scenarios.scale import Scale, Scenario

SCENARIOS: dict[str, Scenario] = {
    "protocol": protocol.run,
    "receive": receive.run,
    "worker": worker.run,
    "memory": memory.run,
}

__all__ = ["SCENARIOS", "Scale", "Scenario"]
