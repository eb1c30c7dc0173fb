"""What the workers' group has committed, as it is told to those who are not of the group."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from ingest.contract.kafka import KafkaUnreachable, client_options
from ingest.contract.settings import Settings
from workers.log.commit_metadata import ForeignCommit, OffsetCheckpoint, decode_metadata

_BOOTSTRAP: Final = 10.0  # s
_RETRY: Final = 0.2  # s


def looking(settings: Settings) -> dict[str, Any]:
    """The keywords of a client that looks once."""
    return client_options(settings.kafka) | {"bootstrap_timeout_ms": int(1000 * _BOOTSTRAP)}


@contextmanager
def group_admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """A client to ask with.

    Raises:
        KafkaUnreachable: no broker answers, or none lets us in, now or within.
    """
    try:
        with closing(KafkaAdminClient(**looking(settings))) as admin:
            yield admin
    except KafkaError as error:
        raise KafkaUnreachable(settings.kafka, error) from None


def accounts_of(admin: KafkaAdminClient, settings: Settings) -> dict[int, OffsetCheckpoint]:
    """The account of each partition that has one.

    Raises:
        ForeignCommit: the group's offsets are not ours.
        KafkaError: brokers do not answer.
    """
    kafka = settings.kafka
    commits = _commits(admin, kafka.group)
    return {
        place.partition: decode_metadata(place.partition, commit.offset, commit.metadata)
        for place, commit in commits.items()
        if place.topic == kafka.instance_topic
    }


def has_placed(settings: Settings) -> bool:
    """Whether workers of the group have placed anything; offsets that are not ours tell of something.

    Raises:
        KafkaUnreachable: no broker answers, or none lets us in.
    """
    with group_admin(settings) as admin:
        try:
            return any(found.counters for found in accounts_of(admin, settings).values())
        except ForeignCommit:
            return True


def _commits(admin: KafkaAdminClient, group: str) -> dict[TopicPartition, Any]:
    """All of a group. A broker makes the topic that holds them when the first is asked for, and says so meanwhile."""
    deadline = time.monotonic() + _BOOTSTRAP
    while True:
        try:
            found: dict[TopicPartition, Any] = admin.list_group_offsets({group: None})[group]
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY)
        else:
            return found
