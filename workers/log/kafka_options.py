"""How a worker joins its consumer group: the consumer's keywords."""

import os
import socket
from typing import Any, Final

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from ingest.contract.kafka import MAXIMUM_MESSAGE, client_options
from ingest.contract.settings import Settings
from workers.log.kafka_network import wide_client

RECORDS: Final = 16  # of one poll: up to 16 MB
_HEARTBEATS: Final = 4  # within a session, at least
_HEARTBEAT: Final = 2.0  # s; a member hears of a rebalance with its next one


def consumer_options(settings: Settings) -> dict[str, Any]:
    """By the settings."""
    kafka = settings.kafka
    return (
        client_options(kafka)
        | {
            "client_id": f"worker-{socket.gethostname()}-{os.getpid()}",  # as status and the brokers' tools show it
            "group_id": kafka.group,
            "group_instance_id": kafka.group_instance_id or None,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "partition_assignment_strategy": (CooperativeStickyAssignor,),
            "session_timeout_ms": int(1000 * kafka.session_timeout),
            "heartbeat_interval_ms": int(1000 * min(_HEARTBEAT, kafka.session_timeout / _HEARTBEATS)),
            "max_poll_interval_ms": int(1000 * kafka.poll_interval),
            "max_poll_records": RECORDS,
            "fetch_max_bytes": kafka.fetch_maximum,
            "max_partition_fetch_bytes": min(kafka.fetch_maximum, MAXIMUM_MESSAGE),
            "check_crcs": False,  # each record of ours has its own, over everything
            "metrics_enabled": False,
            "allow_auto_create_topics": False,
            "kafka_client": wide_client,
        }
    )
