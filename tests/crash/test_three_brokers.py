"""Three brokers, replication 3, `min.insync.replicas` 2: leaders killed under load lose nothing (row 9, for real)."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.crash.conftest import stop_all
from tests.support.crash import Load, Run, marks, seeds
from tests.support.distributed import Distributed
from tests.support.kafka_servers import KafkaNode, KafkaServers
from tests.support.s3_servers import S3Server

pytestmark = marks

_KILLS = 2  # a seed


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, kafka_three: KafkaServers, minio: S3Server
) -> Iterator[Distributed]:
    """On three brokers."""
    folder = tmp_path_factory.mktemp("three-brokers")
    with Distributed(
        folder, kafka_three.bootstrap_servers, [minio.url(folder.name)], name=folder.name, replicas=3,
        environment=minio.environment, s3=minio, delivery=8,
    ) as pipeline:  # fmt: skip
        yield pipeline
        stop_all(pipeline)


@seeds
def test_leaders_killed(pipeline: Distributed, kafka_three: KafkaServers, seed: int) -> None:
    """The leader of a partition dies, another goes on, and it comes back; again and again."""
    run = Run(pipeline, seed, 9)
    run.heal()
    with run:
        for _ in range(_KILLS):
            run.acknowledged(run.random.randint(1, 15))
            leader = _leader(kafka_three, run)
            leader.kill()
            run.acknowledged(3)
            run.sleep(0, 2)
            leader.start()
            kafka_three.wait_complete()
            run.until(lambda: _in_sync(kafka_three, run), "replicas in sync")
        run.acknowledged(3)
    run.check()


@pytest.mark.slow
@seeds
def test_leader_killed_ahead_of_its_followers(
    pipeline: Distributed, kafka_three: KafkaServers, seed: int
) -> None:
    """What only it has dies with it, and was never acknowledged: with acks=1 this loses instances (seen once)."""
    run = Run(pipeline, seed, 109, load=Load(senders=6, pause=0))
    run.heal()
    with run:
        run.acknowledged(run.random.randint(5, 15))
        leader = _leader(kafka_three, run)
        followers = [node for node in kafka_three.nodes if node is not leader]
        for node in followers:
            node.pause()
        run.sleep(0.5, 1.5)
        leader.kill()
        for node in followers:
            node.resume()
        run.acknowledged(3)
        leader.start()
        kafka_three.wait_complete()
        run.until(lambda: _in_sync(kafka_three, run), "replicas in sync")
        run.acknowledged(3)
    run.check()


def _partitions(servers: KafkaServers, run: Run) -> list[dict[str, list[int] | int]]:
    with contextlib.closing(servers.admin()) as admin:
        (topic,) = admin.describe_topics([run.settings.kafka.instance_topic])
    found: list[dict[str, list[int] | int]] = topic["partitions"]
    return found


def _leader(servers: KafkaServers, run: Run) -> KafkaNode:
    number = run.random.choice(_partitions(servers, run))["leader_id"]
    return next(node for node in servers.nodes if node.number == number)


def _in_sync(servers: KafkaServers, run: Run) -> bool:
    return all(set(found["isr_nodes"]) == {1, 2, 3} for found in _partitions(servers, run))  # type: ignore[arg-type]
