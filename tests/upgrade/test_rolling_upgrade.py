"""A rolling upgrade under load, and the way back: two releases at once on one log, each with records of its own."""

from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from ingest.contract.records import Instance, Outcome, decode
from tests.support.crash import Run, marks
from tests.support.distributed import Distributed, Host
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import S3Server

pytestmark = marks

THIS, NEXT = "ingest", "tests.support.next_release"


@pytest.fixture
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServers, minio: S3Server, s3_credentials: None
) -> Iterator[Distributed]:
    folder = tmp_path_factory.mktemp("upgrade")
    url = minio.url(f"upgrade-{folder.name}")
    with Distributed(
        folder, kafka.bootstrap_servers, [url], name=folder.name, environment=minio.environment, s3=minio
    ) as pipeline:
        yield pipeline
        codes = pipeline.stop()
        assert not any(codes.values()), codes


def roll(run: Run, hosts: list[Host], start: Callable[[], Host]) -> None:
    """One after the other: the new one is there before the old one is told to stop."""
    for host in hosts:
        start()
        run.acknowledged(3)
        assert host.stop() == 0, host.tail()
        run.acknowledged(3)


def lengths(run: Run, topic: str) -> set[int]:
    """How many fields the records of a topic have: which releases wrote them."""
    found = set()
    servers = list(run.settings.kafka.bootstrap_servers)
    with closing(KafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")) as consumer:
        places = [TopicPartition(topic, number) for number in range(run.settings.log.partitions)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < end for place, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                metadata = [decode(record.value).metadata for record in records]
                found |= {len(msgspec.msgpack.decode(data)) for data in metadata if data}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers_first", [True, False])
def test_two_releases_share_the_work(pipeline: Distributed, *, workers_first: bool) -> None:
    """There and back under load: what either wrote, either placed; exact accounts, and each process ended with 0."""
    run = Run(pipeline, int(workers_first), 120)
    run.heal()
    pipeline.start_receiver()
    with run:
        for release in (NEXT, THIS):
            pipeline.release = release
            order = [(run.workers, pipeline.start_worker), (run.receivers, pipeline.start_receiver)]
            for hosts, start in order if workers_first else reversed(order):
                roll(run, hosts(), start)
    run.check()
    kafka = run.settings.kafka
    for topic, written in (kafka.instance_topic, Instance), (kafka.outcome_topic, Outcome):
        fields = len(written.__struct_fields__)
        assert lengths(run, topic) == {fields, fields + 1}
