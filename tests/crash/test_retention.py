"""Row 17 of the crash matrix: retention that would overtake the workers, and retention that does."""

import contextlib
import json
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource

from ingest.contract.settings import MiB
from tests.support.crash import Load, Run, Sent, committed, is_object, marks, seeds
from tests.support.distributed import Distributed
from tests.support.kafka_records import Publisher
from tests.support.kafka_servers import KafkaServers
from tests.support.s3_servers import S3Server

pytestmark = marks

SEGMENT = 4 * MiB
RETENTION = 24 * MiB  # of each partition


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServers]:
    """A broker that deletes at once what it may delete, and not every five minutes."""
    properties = {
        "log.retention.check.interval.ms": "500",
        "log.initial.task.delay.ms": "500",
        "log.segment.delete.delay.ms": "500",
    }
    with KafkaServers(tmp_path_factory.mktemp("hasty"), properties=properties) as servers:
        yield servers


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, hasty: KafkaServers, minio: S3Server
) -> Iterator[Distributed]:
    """Its instance topic keeps little."""
    folder = tmp_path_factory.mktemp("retention")
    with Distributed(
        folder,
        hasty.bootstrap_servers,
        [minio.url(folder.name)],
        name=folder.name,
        partitions=2,
        environment=minio.environment,
    ) as pipeline:
        little = {"retention.bytes": str(RETENTION), "segment.bytes": str(SEGMENT)}
        with contextlib.closing(hasty.admin()) as admin:
            admin.alter_configs([ConfigResource("TOPIC", f"{folder.name}-instances", configs=little)])
        yield pipeline


def starts(run: Run) -> dict[int, int]:
    """Where each partition begins by now."""
    places = [TopicPartition(run.settings.kafka.instance_topic, number) for number in range(2)]
    with contextlib.closing(
        KafkaConsumer(bootstrap_servers=list(run.settings.kafka.bootstrap_servers))
    ) as client:
        return {place.partition: first for place, first in client.beginning_offsets(places).items()}


def settled_starts(run: Run) -> dict[int, int]:
    """The same once the broker has deleted all that it may: it looks twice a second."""
    found: dict[int, int] = {}
    while (now := starts(run)) != found:
        found = now
        time.sleep(2)
    return found


def lost(pipeline: Distributed) -> int:
    """Records that `status` says were lost."""
    return int(json.loads(pipeline.run("status", "--quick", "--json").stdout)["log"]["lost"])


def without_workers(run: Run) -> None:
    """All that was sent is stored; from now on nobody reads."""
    run.heal()
    run.pipeline.settle()
    for host in run.workers():
        assert host.stop() == 0, host.tail()


@seeds
def test_admission_stops_before_retention_overtakes(pipeline: Distributed, seed: int) -> None:
    """With no worker the receiver refuses in time; when workers have caught up it goes on, and nothing was lost."""
    run = Run(pipeline, seed, 17, load=Load(senders=2, pause=0.6))
    without_workers(run)
    before = lost(pipeline)
    with run:
        run.acknowledged(1)
        run.until(lambda: run.ledger.rejected + run.ledger.refused > 0, "a refusal", 120)
        assert run.receivers()[0].said("workers are so far behind"), f"seed {run.seed}: another reason"
        time.sleep(3)  # the broker deletes now what it may delete
        marks = committed(run.settings)
        assert all(first <= marks[number] for number, first in starts(run).items()), (
            f"seed {run.seed}: too late"
        )
        run.heal()
        run.acknowledged(3)
    run.check(handmade=True)  # of what was read the broker has deleted some by now
    assert lost(pipeline) == before, f"seed {run.seed}"


@seeds
def test_loss_is_told(pipeline: Distributed, seed: int) -> None:
    """Where others fill the topic past its retention, the records that nobody read are counted and named."""
    run = Run(pipeline, seed, 170, load=Load(senders=0))
    without_workers(run)
    before = lost(pipeline)
    marks = committed(run.settings)
    publisher = Publisher(run.settings)
    with run:
        for number in range(run.random.randint(80, 100)):
            sent = Sent(f"{run.stem}1.{number}", 900_000)
            run.ledger.tried[sent.uid] = sent
            publisher.upload(sent.uid, sent.data_set())
        publisher.flush()
        run.until(lambda: sum(map(int, starts(run).values())) > sum(marks.values()), "the loss")
        first = settled_starts(run)
    publisher.close()
    gone = sum(max(0, first[number] - mark) for number, mark in marks.items())
    assert gone, f"seed {run.seed}: nothing was lost after all"
    run.heal()
    run.check(handmade=True)
    assert lost(pipeline) - before == gone, f"seed {run.seed}: lost records are not counted"
    said = [host for host in run.workers() if "retention has overtaken the workers" in host.log.read_text()]
    assert said, f"seed {run.seed}: nobody says so"
    stored = [key for key in run.watch.seen if is_object(key) and f"/{run.stem}" in key]
    assert len(stored) == len(run.ledger.tried) - gone, f"seed {run.seed}: {len(stored)} stored, {gone} lost"
