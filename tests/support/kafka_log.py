"""Topics of a test's own on a real broker, settings that lead there, and what the topic then holds."""

import itertools
from contextlib import closing
from typing import Any, Final

import xxhash
from kafka import KafkaConsumer, TopicPartition

from ingest.contract.identifiers import partition_of
from ingest.contract.kafka_topics import create_topics
from ingest.contract.records import Instance, Kind, Record, decode, instance_of
from ingest.contract.settings import Settings
from tests.support.kafka_servers import KafkaServers

PARTITIONS: Final = 3
_numbers = itertools.count()


def kafka_settings(servers: KafkaServers, **kafka: Any) -> Settings:
    """Settings with two topics of their own, which are made; ``kafka`` are keys of that table."""
    copies = len(servers.nodes)
    number = next(_numbers)
    settings = Settings.model_validate(
        {
            "log": {"kind": "kafka", "partitions": PARTITIONS, "allow_single_copy": True},
            "kafka": {
                "bootstrap_servers": servers.bootstrap_servers,
                "instance_topic": f"instances-{number}",
                "outcome_topic": f"outcomes-{number}",
                "replication_factor": copies,
                "min_insync_replicas": min(copies, 2),
                **kafka,
            },
        }
    )
    create_topics(settings)
    return settings


def environment(settings: Settings) -> dict[str, str]:
    """The same for a child process."""
    kafka = settings.kafka
    found = {
        "LOG__KIND": "kafka",
        "LOG__PARTITIONS": str(settings.log.partitions),
        "LOG__ALLOW_SINGLE_COPY": "true",
        "KAFKA__BOOTSTRAP_SERVERS": ",".join(kafka.bootstrap_servers),
        "KAFKA__SASL_PASSWORD": kafka.sasl_password.get_secret_value(),
    }
    for key, value in kafka.model_dump(
        exclude={"bootstrap_servers", "sasl_password", "ssl_key_password"}
    ).items():
        found[f"KAFKA__{key.upper()}"] = str(value)
    return {f"DICOM_INGEST_{key}": value for key, value in found.items()}


def records(servers: KafkaServers, settings: Settings) -> list[list[Record]]:
    """All records of each partition, decoded, which checks their CRC."""
    return [[decode(value) for value in partition] for partition in values(servers, settings)]


def values(servers: KafkaServers, settings: Settings) -> list[list[bytes]]:
    """What each partition of the instance topic holds."""
    topic = settings.kafka.instance_topic
    with closing(KafkaConsumer(bootstrap_servers=servers.bootstrap_servers)) as consumer:
        partitions = [TopicPartition(topic, number) for number in range(settings.log.partitions)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[list[bytes]] = [[] for _ in partitions]
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, batch in consumer.poll(timeout_ms=500).items():
                found[partition.partition] += [record.value for record in batch]
        return found


def instances(servers: KafkaServers, settings: Settings) -> dict[str, list[tuple[Instance, bytes]]]:
    """Complete instances by SOP Instance UID, in their partition, their seals checked."""
    found: dict[str, list[tuple[Instance, bytes]]] = {}
    for number, partition in enumerate(records(servers, settings)):
        parts: dict[bytes, list[bytes]] = {}
        for record in partition:
            pieces = parts.setdefault(record.upload_id, [])
            if record.kind == Kind.PART:
                assert record.index == len(pieces)
                pieces.append(bytes(record.payload))
            elif record.kind in (Kind.INSTANCE, Kind.END):
                if record.kind == Kind.INSTANCE:
                    pieces.append(bytes(record.payload))
                assert record.index == len(pieces)
                instance, data_set = instance_of(record), b"".join(pieces)
                assert instance.seal == xxhash.xxh3_128_digest(data_set)
                assert instance.size == len(data_set)
                assert number == partition_of(instance.sop_instance_uid, settings.log.partitions)
                found.setdefault(instance.sop_instance_uid, []).append((instance, data_set))
    return found
