"""The brokers that the tests start are real ones: what is acknowledged survives SIGKILL, on one node and on three."""

import time
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from tests.support.kafka_servers import KafkaServers

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]


def values(servers: KafkaServers, topic: str, count: int) -> list[bytes]:
    """What a partition holds, at least ``count`` records."""
    with closing(KafkaConsumer(bootstrap_servers=servers.bootstrap_servers)) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        found: list[bytes] = []
        deadline = time.monotonic() + 60
        while len(found) < count:
            assert time.monotonic() < deadline, found
            for records in consumer.poll(timeout_ms=200).values():
                found += [record.value for record in records]
        return found


def make_topic(servers: KafkaServers, topic: str, replicas: int) -> None:
    with closing(servers.admin()) as admin:
        configs = {"min.insync.replicas": str(max(1, replicas - 1))}
        admin.create_topics([NewTopic(topic, 1, replicas, topic_configs=configs)])


def test_acknowledged_records_survive_sigkill(tmp_path: Path) -> None:
    with KafkaServers(tmp_path / "kafka") as servers:
        make_topic(servers, "one", 1)
        with closing(KafkaProducer(bootstrap_servers=servers.bootstrap_servers, acks="all")) as producer:
            producer.send("one", b"before", partition=0).get(30)
        servers.nodes[0].kill()
        servers.nodes[0].start()
        servers.wait_complete()
        assert values(servers, "one", 1) == [b"before"]


def test_three_nodes_go_on_without_a_leader_that_was_killed(kafka_three: KafkaServers) -> None:
    make_topic(kafka_three, "three", 3)
    with closing(KafkaProducer(bootstrap_servers=kafka_three.bootstrap_servers, acks="all")) as producer:
        producer.send("three", b"before", partition=0).get(30)
        with closing(kafka_three.admin()) as admin:
            leader = admin.describe_topics(["three"])[0]["partitions"][0]["leader_id"]
        node = kafka_three.nodes[leader - 1]
        node.kill()
        producer.send("three", b"after", partition=0).get(60)
    node.start()
    kafka_three.wait_complete()
    assert values(kafka_three, "three", 2) == [b"before", b"after"]
