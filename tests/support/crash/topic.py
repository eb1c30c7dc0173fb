"""The instance topic and its group, read by clients of our own."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from ingest.contract.records import CorruptRecord, Kind, decode, instance_of
from ingest.contract.settings import Settings

_FETCH: Final = 8 * 1024 * 1024  # bytes


def committed(settings: Settings) -> dict[int, int]:
    """The group's low-water mark by partition."""
    with contextlib.closing(
        KafkaAdminClient(
            bootstrap_servers=list(settings.kafka.bootstrap_servers), bootstrap_timeout_ms=3000,
            request_timeout_ms=5000,
        )
    ) as admin:  # fmt: skip
        offsets = admin.list_group_offsets(settings.kafka.group)[settings.kafka.group]
    return {at.partition: found.offset for at, found in offsets.items() if found.offset >= 0}


def is_read(settings: Settings, ends: Mapping[int, int], orphans: Mapping[bytes, tuple[int, int]]) -> bool:
    """Whether the marks are at the ends, but where an upload without end waits to expire."""
    marks = committed(settings)
    return all(
        marks.get(partition, 0) >= min([end, *(first for at, first in orphans.values() if at == partition)])
        for partition, end in ends.items()
    )


def members(settings: Settings) -> dict[str, tuple[int, ...]]:
    """The partitions of each member of the group, by the name that a rebalance does not change."""
    group = settings.kafka.group
    with contextlib.closing(
        KafkaAdminClient(bootstrap_servers=list(settings.kafka.bootstrap_servers))
    ) as admin:
        found = admin.describe_groups([group])[group]["members"]
    return {
        member["member_id"]: tuple(
            sorted(
                number
                for topic in (member["member_assignment"] or {}).get("assigned_partitions", ())
                for number in topic["partitions"]
            )
        )
        for member in found
    }


def ends(settings: Settings) -> dict[int, int]:
    """The end of each partition of the instance topic."""
    places = [
        TopicPartition(settings.kafka.instance_topic, number) for number in range(settings.log.partitions)
    ]
    with contextlib.closing(
        KafkaConsumer(bootstrap_servers=list(settings.kafka.bootstrap_servers))
    ) as client:
        return {place.partition: end for place, end in client.end_offsets(places).items()}


class Logged(NamedTuple):
    """A completed upload in the topic."""

    partition: int
    first: int  # offset of its first record
    uid: str


@dataclass
class Topic:
    """What was appended to the instance topic from some offsets on."""

    ends: dict[int, int]
    uploads: list[Logged] = field(default_factory=list)
    begun: dict[bytes, tuple[int, int]] = field(
        default_factory=dict
    )  # without end: partition and first offset
    twice: list[str] = field(default_factory=list)  # records that are there again


def read_topic(settings: Settings, starts: Mapping[int, int] | None) -> Topic:
    """All from ``starts`` on; without them nothing, but where it ends."""
    consumer = KafkaConsumer(
        bootstrap_servers=list(settings.kafka.bootstrap_servers), enable_auto_commit=False,
        auto_offset_reset="earliest", fetch_max_bytes=_FETCH, check_crcs=False,
    )  # fmt: skip
    with contextlib.closing(consumer):
        partitions = [
            TopicPartition(settings.kafka.instance_topic, number) for number in range(settings.log.partitions)
        ]
        consumer.assign(partitions)
        topic = Topic({at.partition: end for at, end in consumer.end_offsets(partitions).items()})
        if starts is None:
            return topic
        for at in partitions:
            consumer.seek(at, starts[at.partition])
        seen: set[tuple[bytes, int, int]] = set()
        while any(consumer.position(at) < topic.ends[at.partition] for at in partitions):
            for at, records in consumer.poll(timeout_ms=500).items():
                for found in records:
                    with contextlib.suppress(CorruptRecord):  # as some are that tests make
                        _take(topic, at.partition, found, seen)
    return topic


def _take(topic: Topic, partition: int, found: object, seen: set[tuple[bytes, int, int]]) -> None:
    record, offset = decode(found.value), found.offset  # type: ignore[attr-defined]
    upload = bytes(record.upload_id)
    if (upload, record.kind, record.index) in seen:
        topic.twice.append(f"{record.kind.name} {record.index} at {partition}/{offset}")
        return
    seen.add((upload, record.kind, record.index))
    _, first = topic.begun.setdefault(upload, (partition, offset))
    if record.kind is not Kind.PART:
        del topic.begun[upload]
    if record.kind in (Kind.INSTANCE, Kind.END):
        topic.uploads.append(Logged(partition, first, instance_of(record).sop_instance_uid))
