"""The rights that `ingest/log/README.md` lists, on a broker that asks for them: they are enough, and a missing one is told."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ResourcePattern,
    ResourceType,
)
from kafka.errors import RetriableError
from structlog.testing import capture_logs

from ingest.contract.identifiers import TransactionId, UploadId
from ingest.contract.kafka import TopicMismatch
from ingest.contract.kafka_topics import check_topics, create_topics
from ingest.contract.producer import Outgoing
from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import Settings
from ingest.log.commitment_log import Request, Written, request_record
from ingest.log.commitment_topic import KafkaCommitmentLog
from ingest.log.kafka_retention import RetentionWatch
from ingest.log.kafka_writer import KafkaWriter
from tests.support.asynchronous import asynchronous
from tests.support.kafka_log import kafka_settings
from tests.support.kafka_servers import KafkaServers
from workers.log.kafka_consumer import KafkaReader
from workers.log.kafka_outcomes import KafkaOutcomes

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

PASSWORD = "correct-horse-battery"
PART = encode_header(Kind.PART, UploadId.of(1, 1, 1), 0, None)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """A broker on which the user ``receiver`` may do nothing that is not allowed to him."""
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    scram = [f"SCRAM-SHA-512=[name=receiver,password={PASSWORD}]"]
    folder = tmp_path_factory.mktemp("guarded")
    with KafkaServers(folder, secure="SASL_PLAINTEXT", properties=properties, scram=scram) as servers:
        yield servers


@pytest.fixture
def settings(guarded: KafkaServers) -> Settings:
    """Topics that only the administrator may see so far."""
    ours = kafka_settings(guarded)
    user = {
        "bootstrap_servers": guarded.secure_bootstrap_servers,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_username": "receiver",
        "sasl_password": PASSWORD,
    }
    kafka = ours.kafka.model_validate(ours.kafka.model_dump() | user)
    return ours.model_copy(update={"kafka": kafka})


def allow(servers: KafkaServers, kind: ResourceType, name: str, *operations: str) -> None:
    pattern = ResourcePattern(kind, name)
    with closing(servers.admin()) as admin:
        admin.create_acls(
            [
                ACL("User:receiver", "*", ACLOperation[one], ACLPermissionType.ALLOW, pattern)
                for one in operations
            ]
        )


def allow_receiver(servers: KafkaServers, settings: Settings) -> None:
    kafka = settings.kafka
    allow(servers, ResourceType.TOPIC, kafka.instance_topic, "DESCRIBE", "DESCRIBE_CONFIGS", "WRITE")
    allow(servers, ResourceType.TOPIC, kafka.outcome_topic, "DESCRIBE", "DESCRIBE_CONFIGS")
    allow(servers, ResourceType.GROUP, kafka.group, "DESCRIBE")


def look(watch: RetentionWatch) -> None:
    """Once the broker has a coordinator for groups."""
    while True:
        with contextlib.suppress(RetriableError):
            watch.look()
            return


@asynchronous
async def test_a_receiver_needs_no_more_than_is_listed(guarded: KafkaServers, settings: Settings) -> None:
    """Topics checked, a producer id given, a record taken, and what waits for workers counted."""
    await asyncio.to_thread(allow_receiver, guarded, settings)
    writer = KafkaWriter(settings)
    await writer.start()
    async with asyncio.timeout(60):
        await writer.publish(1, PART, ())
    await writer.close()
    with closing(RetentionWatch(settings)) as watch:
        await asyncio.to_thread(look, watch)
    assert watch.backlog.records == 1


@asynchronous
async def test_a_worker_needs_no_more_than_is_listed(guarded: KafkaServers, settings: Settings) -> None:
    """To read as one of the group, and to announce: idempotence takes no right of its own."""
    kafka = settings.kafka
    allow(guarded, ResourceType.TOPIC, kafka.instance_topic, "DESCRIBE", "DESCRIBE_CONFIGS", "READ")
    allow(guarded, ResourceType.TOPIC, kafka.outcome_topic, "DESCRIBE", "DESCRIBE_CONFIGS", "WRITE")
    allow(guarded, ResourceType.GROUP, kafka.group, "READ")
    with closing(KafkaProducer(bootstrap_servers=guarded.bootstrap_servers)) as administrator:
        administrator.send(kafka.instance_topic, PART, partition=1).get(60)
    reader = KafkaReader(settings, lambda _: None, lambda _: None)
    await reader.start()
    async with asyncio.timeout(120):
        while not reader.read():
            await reader.wait(1)
    await reader.close()
    outcomes = KafkaOutcomes(kafka)
    await outcomes.start()
    assert await outcomes.send([Outgoing(1, b"x")]) == [0]
    await outcomes.close()


@asynchronous
async def test_commitment_needs_no_more_than_is_listed(
    guarded: KafkaServers, settings: Settings, tmp_path: Path
) -> None:
    """A receiver writes to the topic, and reads what it wrote."""
    kafka, topic = settings.kafka, settings.kafka.instance_topic + "-commitments"
    enabled = settings.commitment.model_copy(update={"enabled": True})
    settings = settings.model_copy(
        update={
            "data": tmp_path,
            "commitment": enabled,
            "kafka": kafka.model_copy(update={"commitment_topic": topic}),
        }
    )
    plain = {"bootstrap_servers": guarded.bootstrap_servers, "security_protocol": "PLAINTEXT"}
    administrator = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=plain)})
    await asyncio.to_thread(create_topics, administrator)
    await asyncio.to_thread(allow_receiver, guarded, settings)
    allow(guarded, ResourceType.TOPIC, topic, "DESCRIBE", "DESCRIBE_CONFIGS", "READ", "WRITE")
    log = KafkaCommitmentLog(settings)
    await log.start()
    transaction = TransactionId.of("CT1", "1.2.3")
    location = await log.publish([Written(transaction, request_record(Request.RETRY, 1))])
    async with asyncio.timeout(120):
        while not log.passed(location):
            await log.read(1)
    await log.close()


def test_a_missing_right_to_the_configuration_is_told(guarded: KafkaServers, settings: Settings) -> None:
    """By topic and right: nothing of what is promised can be checked."""
    kafka = settings.kafka
    allow(guarded, ResourceType.TOPIC, kafka.instance_topic, "DESCRIBE", "WRITE")
    allow(guarded, ResourceType.TOPIC, kafka.outcome_topic, "DESCRIBE", "DESCRIBE_CONFIGS")
    with pytest.raises(TopicMismatch, match=rf"{kafka.instance_topic}.*DescribeConfigs"):
        check_topics(settings)


def test_a_missing_right_to_the_cluster_is_told_where_size_limits_retention(
    guarded: KafkaServers, settings: Settings
) -> None:
    """Else what waits would count as nothing, until it is gone. Its age is looked at all the same."""
    allow_receiver(guarded, settings)
    topic = settings.kafka.instance_topic
    with closing(guarded.admin()) as admin:
        admin.alter_configs([ConfigResource("TOPIC", topic, configs={"retention.bytes": "1000000"})])
    with closing(RetentionWatch(settings)) as watch, capture_logs() as lines:
        look(watch)
        look(watch)
        errors = [line for line in lines if line["log_level"] == "error"]
        assert len(errors) == 1
        assert "Describe the cluster" in errors[0]["event"]
        assert watch.backlog.bytes is None
        allow(guarded, ResourceType.CLUSTER, "kafka-cluster", "DESCRIBE")
        while watch.backlog.bytes is None:  # the broker has it in a moment
            look(watch)
