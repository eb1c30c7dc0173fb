"""The topics on the brokers: made as the settings promise, and compared with them before anything is said to be durable."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from kafka.admin import ConfigResource, KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError

from ingest.contract.kafka import (
    MAXIMUM_MESSAGE,
    KafkaUnreachable,
    TopicMismatch,
    client_options,
    topic_configuration,
)
from ingest.contract.kafka_logging import use_our_events
from ingest.contract.settings import KafkaSettings, Settings

# What must be so for the promise to hold. Of the rest of `topic_configuration` what differs is told as advice, and what
# would lose records as a problem, too.
_PROMISED: Final = ("min.insync.replicas", "unclean.leader.election.enable", "message.timestamp.type")
_TIMEOUT: Final = 30.0  # s
_LOOK: Final = 0.05  # s
_PATIENCE: Final = 3.0  # s
_AGAIN: Final = 0.3  # s


class NotTold(KafkaError):  # type: ignore[misc] # noqa: N818 - the client ships no types; named for the fact
    """Brokers answer, and leave out what they were asked for: we may not know it, or they cannot tell now."""


class TopicState(NamedTuple):
    """A topic as it is, and what is wrong with it."""

    topic: str
    partitions: int
    replication_factor: int
    configuration: dict[str, str]
    problems: list[str]
    advice: list[str]


def check_topics(settings: Settings, timeout: float = _TIMEOUT) -> list[TopicState]:
    """The topics, as the settings promise them; brokers are looked for ``timeout`` seconds.

    A topic that was just made is unknown to some brokers for a moment: one of which they tell nothing is looked for again.

    Raises:
        TopicMismatch: they are not; it names all that is wrong.
        KafkaUnreachable: no broker answers, or it does not let us in.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        states = describe_topics(settings, timeout)
        if all(state.configuration for state in states) or time.monotonic() > deadline:
            break
        time.sleep(_AGAIN)
    problems = [problem for state in states for problem in state.problems]
    if problems:
        raise TopicMismatch(problems)
    return states


def describe_topics(settings: Settings, timeout: float = _TIMEOUT) -> list[TopicState]:
    """The topics, with what is wrong with each.

    Raises:
        KafkaUnreachable: no broker answers, or it does not let us in.
    """
    with _admin(settings.kafka, timeout) as admin:
        return [_describe(admin, topic, settings) for topic in needed_topics(settings)]


def create_topics(settings: Settings) -> list[str]:
    """Make the topics that are not there; the names of those that were made.

    Raises:
        KafkaUnreachable: no broker answers, it does not let us in, or it cannot make them.
    """
    kafka = settings.kafka
    made = []
    with _admin(kafka) as admin:
        for topic in needed_topics(settings):
            new = NewTopic(
                topic,
                settings.log.partitions,
                kafka.replication_factor,
                topic_configs=topic_configuration(kafka),
            )
            with contextlib.suppress(TopicAlreadyExistsError):
                admin.create_topics([new], timeout_ms=int(_TIMEOUT * 1000))
                made.append(topic)
        if made:
            _wait_known(admin, made)
    return made


def _wait_known(admin: KafkaAdminClient, topics: list[str]) -> None:
    """A broker may answer that a topic is made before it knows of it itself."""
    deadline = time.monotonic() + _TIMEOUT
    while any(not found["partitions"] for found in admin.describe_topics(topics)):
        if time.monotonic() > deadline:
            raise KafkaTimeoutError("the topics that were made are not known")
        time.sleep(_LOOK)


class _Admin(KafkaAdminClient):  # type: ignore[misc] # the client ships no types
    """Ends its thread, too, when it cannot connect: kafka-python's own leaves thread and descriptors behind."""

    def __init__(self, **options: Any) -> None:
        self._closed = False  # else `close` does nothing yet
        try:
            super().__init__(**options)
        except KafkaError:
            self.close()
            raise


@contextmanager
def _admin(kafka: KafkaSettings, timeout: float = _TIMEOUT) -> Iterator[KafkaAdminClient]:
    use_our_events()
    try:
        admin = _Admin(
            **client_options(kafka),
            bootstrap_timeout_ms=int(timeout * 1000),
            request_timeout_ms=int(timeout * 1000),
        )
    except KafkaError as error:
        raise KafkaUnreachable(kafka, error) from None
    try:
        yield admin
    except KafkaError as error:
        raise KafkaUnreachable(kafka, error) from None
    finally:
        admin.close()


def needed_topics(settings: Settings) -> list[str]:
    """Those that the settings make use of."""
    kafka = settings.kafka
    topics = [kafka.instance_topic, kafka.outcome_topic]
    return [*topics, kafka.commitment_topic] if settings.commitment.enabled else topics


def _describe(admin: KafkaAdminClient, topic: str, settings: Settings) -> TopicState:
    (found,) = admin.describe_topics([topic])
    partitions = found["partitions"]
    if found.get("error_code") or not partitions:
        advice = f"topic {topic} does not exist; `dicom-ingest topics create` makes it"
        return TopicState(topic, 0, 0, {}, [advice], [])
    replicas = min(len(partition["replica_nodes"]) for partition in partitions)
    wanted = topic_configuration(settings.kafka)
    try:
        told = told_configuration(admin, topic)
    except NotTold:
        problem = (
            f"topic {topic}: brokers do not tell how it is configured; it takes the right to DescribeConfigs"
        )
        return TopicState(topic, len(partitions), replicas, {}, [problem], [])
    configuration = {key: told[key] for key in wanted}
    state = TopicState(topic, len(partitions), replicas, configuration, [], [])
    state.problems.extend(_problems(state, settings))
    state.advice.extend(
        f"topic {topic}: {key} is {configuration[key]}, recommended is {value}"
        for key, value in wanted.items()
        if key not in _PROMISED and configuration.get(key, value) != value
    )
    return state


def _problems(state: TopicState, settings: Settings) -> Iterator[str]:
    kafka = settings.kafka
    topic, configuration = state.topic, state.configuration
    if state.partitions != settings.log.partitions:
        yield f"topic {topic} has {state.partitions} partitions, log.partitions is {settings.log.partitions}"
    if state.replication_factor < kafka.replication_factor:
        yield (
            f"topic {topic} has replication factor {state.replication_factor}, "
            f"kafka.replication_factor is {kafka.replication_factor}"
        )
    in_sync = int(configuration["min.insync.replicas"])
    if in_sync < kafka.min_insync_replicas:
        yield (
            f"topic {topic} has min.insync.replicas {in_sync}, "
            f"kafka.min_insync_replicas is {kafka.min_insync_replicas}"
        )
    for key, needed in (
        ("unclean.leader.election.enable", "false"),
        ("message.timestamp.type", "LogAppendTime"),
    ):
        if configuration[key] != needed:
            yield f"topic {topic} has {key} {configuration[key]}, it must be {needed}"
    if int(configuration["max.message.bytes"]) < MAXIMUM_MESSAGE:
        yield f"topic {topic} has max.message.bytes {configuration['max.message.bytes']}, at least {MAXIMUM_MESSAGE} are needed"
    if topic == kafka.commitment_topic and configuration["retention.bytes"] != "-1":
        yield (
            f"topic {topic} has retention.bytes {configuration['retention.bytes']}, which would drop open "
            "transactions; it must be -1"
        )
    if configuration["cleanup.policy"] != "delete":
        yield f"topic {topic} has cleanup.policy {configuration['cleanup.policy']}, which would drop records; it must be delete"


def told_configuration(admin: KafkaAdminClient, topic: str) -> dict[str, str]:
    """How a topic is configured, all of it.

    Raises:
        NotTold: the client passes over the error that the answer holds (3.0.12), and gives nothing.
        KafkaError: no broker answers.
    """
    found: Mapping[str, Mapping[str, Mapping[str, Any]]] = admin.describe_configs(
        [ConfigResource("TOPIC", topic)], config_filter="all"
    )
    (by_name,) = found.values()
    if not by_name[topic]:
        raise NotTold("a topic's configuration")
    return {key: str(entry["value"]) for key, entry in by_name[topic].items()}
