"""What producer, consumer and administration of Kafka have in common: how they reach it, how its topics are made.

Nothing here imports the client: the settings become its keywords, and each side gives them to what it uses.
"""

import os
import re
from collections.abc import Iterator
from typing import Final

from ingest.contract.records import MAX_RECORD
from ingest.contract.settings import KafkaSettings, Settings

# What promises that the loss of one broker, and then of another, loses nothing acknowledged.
SAFE_REPLICATION: Final = 3
SAFE_IN_SYNC: Final = 2
# A batch holds several small records or one of up to 960 KiB, and its own head.
MAXIMUM_MESSAGE: Final = 2 * 1024 * 1024
assert MAX_RECORD < MAXIMUM_MESSAGE

_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,/]+):[0-9]{1,5}\Z")


class LogRewound(Exception):  # noqa: N818 - named for the fact
    """A topic ends before what was read of it: it was made anew, or brokers have lost what they acknowledged."""


class KafkaUnreachable(Exception):  # noqa: N818 - named for the fact
    """No broker answers, or none lets us do what we must."""

    def __init__(self, settings: KafkaSettings, error: Exception) -> None:
        servers = ", ".join(settings.bootstrap_servers)
        super().__init__(f"Kafka at {servers} cannot be used: {type(error).__name__}")


class TopicMismatch(Exception):  # noqa: N818 - named for the fact
    """The topics are not what the settings promise; ``problems`` has one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def is_single_copy(settings: Settings) -> bool:
    """Whether the loss of one broker may lose what was acknowledged; status and readiness then say so."""
    kafka = settings.kafka
    return settings.log.kind == "kafka" and (
        kafka.replication_factor < SAFE_REPLICATION or kafka.min_insync_replicas < SAFE_IN_SYNC
    )


def single_copy_note(settings: Settings) -> list[str]:
    """What is to be said where that is so, else nothing."""
    return (
        ["single copy: the loss of one broker may lose what was acknowledged"]
        if is_single_copy(settings)
        else []
    )


def client_options(settings: KafkaSettings) -> dict[str, object]:
    """The keywords with which any client of kafka-python reaches the brokers; they hold the secrets."""
    options: dict[str, object] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "security_protocol": settings.security_protocol,
        # Else the pauses grow to half a minute, and brokers that are back are found when patience has ended.
        "reconnect_backoff_max_ms": 1000,
    }
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_cafile": settings.ssl_ca_file or None,
            "ssl_certfile": settings.ssl_certificate_file or None,
            "ssl_keyfile": settings.ssl_key_file or None,
            "ssl_password": settings.ssl_key_password.get_secret_value() or None,
        }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    return options


def reader_options(settings: KafkaSettings, bootstrap: float, records: int) -> dict[str, object]:
    """The keywords of a consumer without a group, which reads what it is told to and remembers nothing at the brokers.

    ``bootstrap``: seconds to look for a broker; ``records`` of one poll, at most.
    """
    return client_options(settings) | {
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",  # what retention has taken is passed over, and its reader tells of it
        "max_poll_records": records,
        "fetch_max_bytes": MAXIMUM_MESSAGE,
        "max_partition_fetch_bytes": MAXIMUM_MESSAGE,
        "check_crcs": False,  # a record has one of its own
        "bootstrap_timeout_ms": int(1000 * bootstrap),
        "metrics_enabled": False,
        "allow_auto_create_topics": False,
    }


def topic_configuration(settings: KafkaSettings) -> dict[str, str]:
    """How a topic of ours should be configured, beside its partitions and replication factor."""
    return {
        "min.insync.replicas": str(settings.min_insync_replicas),
        "unclean.leader.election.enable": "false",
        "message.timestamp.type": "LogAppendTime",  # uploads expire by it, whatever a receiver's clock says
        "max.message.bytes": str(MAXIMUM_MESSAGE),
        "compression.type": "producer",
        "cleanup.policy": "delete",
        "retention.ms": str(int(settings.retention * 1000)),
        "retention.bytes": "-1",
    }


def kafka_problems(settings: Settings) -> list[str]:
    """What single settings cannot say of themselves: one line for each that does not fit the others."""
    if settings.log.kind != "kafka":
        return []
    return [
        *_problems_of_copies(settings),
        *_problems_of_topics(settings.kafka, commitment=settings.commitment.enabled),
        *_problems_of_access(settings.kafka),
    ]


def _problems_of_copies(settings: Settings) -> Iterator[str]:
    kafka = settings.kafka
    if is_single_copy(settings) and not settings.log.allow_single_copy:
        yield (
            f"kafka.replication_factor is {kafka.replication_factor} and kafka.min_insync_replicas is "
            f"{kafka.min_insync_replicas}, which may lose acknowledged instances with one broker; allowed: at least "
            f"{SAFE_REPLICATION} and {SAFE_IN_SYNC}, or log.allow_single_copy = true"
        )
    if kafka.min_insync_replicas > kafka.replication_factor:
        yield "kafka.min_insync_replicas is above kafka.replication_factor; allowed: at most as many"


def _problems_of_topics(kafka: KafkaSettings, *, commitment: bool) -> Iterator[str]:
    for server in kafka.bootstrap_servers:
        if not _SERVER.match(server):
            yield f"kafka.bootstrap_servers: given {server[:80]!r}; allowed: HOST:PORT"
    if kafka.instance_topic == kafka.outcome_topic:
        yield "kafka.instance_topic and kafka.outcome_topic are the same; allowed: two topics"
    if commitment and kafka.commitment_topic in (kafka.instance_topic, kafka.outcome_topic):
        yield "kafka.commitment_topic is another topic of ours, too; allowed: one of its own"


def _problems_of_access(kafka: KafkaSettings) -> Iterator[str]:
    if kafka.security_protocol.startswith("SASL"):
        for key in ("sasl_username", "sasl_password"):
            if not getattr(kafka, key):
                yield f"kafka.{key} is empty; kafka.security_protocol = {kafka.security_protocol} needs it"
    if kafka.security_protocol.endswith("SSL"):
        for key in ("ssl_ca_file", "ssl_certificate_file", "ssl_key_file"):
            path = getattr(kafka, key)
            if path and not os.access(path, os.R_OK):
                yield f"kafka.{key}: given {path!r}; allowed: a file that can be read"
        if bool(kafka.ssl_certificate_file) != bool(kafka.ssl_key_file):
            yield "kafka.ssl_certificate_file and kafka.ssl_key_file; allowed: both or none"
