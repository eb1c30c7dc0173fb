"""How near retention is to what nobody has read, on a real broker."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from structlog.testing import capture_logs

from ingest.contract.identifiers import UploadId
from ingest.contract.records import MAX_PAYLOAD, Kind, encode_header
from ingest.contract.settings import MiB, Settings
from ingest.log.kafka_backlog import Backlog
from ingest.log.kafka_retention import RetentionWatch
from ingest.log.kafka_writer import KafkaWriter
from ingest.log.measures import gauges_of
from tests.support.asynchronous import asynchronous, until
from tests.support.kafka_log import kafka_settings
from tests.support.kafka_servers import KafkaServers

if TYPE_CHECKING:
    from ingest.log.interface import Log

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

RECORD = bytes(100_000)
NEAR = "workers are so far behind that retention would delete what they have not read; nothing new is taken"
DAY = 24 * 3_600_000  # ms
BACKLOG = ("log_backlog_records", "log_oldest_seconds", "log_backlog_bytes")


class Telling:
    """What a log tells of its watch."""

    def __init__(self, watch: RetentionWatch) -> None:
        self._watch = watch

    @property
    def backlog(self) -> Backlog:
        return self._watch.backlog


@pytest.fixture
def settings(kafka: KafkaServers) -> Settings:
    return kafka_settings(kafka, group=f"retention-{time.time_ns()}", retention_limit=0.5)


@pytest.fixture
def watch(settings: Settings) -> Iterator[RetentionWatch]:
    with contextlib.closing(RetentionWatch(settings)) as watch:
        deadline = time.monotonic() + 240
        while True:  # a new broker makes the topic of commits when it is first asked for one
            try:
                watch.look()
            except KafkaError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            else:
                break
        yield watch


def keep(kafka: KafkaServers, settings: Settings, **limits: int) -> None:
    """Give the instance topic a retention. The broker looks at it every five minutes: nothing goes meanwhile."""
    configs = {f"retention.{name}": str(value) for name, value in limits.items()}
    topic = settings.kafka.instance_topic

    def applied(admin: KafkaAdminClient) -> bool:
        (found,) = admin.describe_configs([ConfigResource("TOPIC", topic)]).values()
        return all(found[topic].get(key, {}).get("value") == value for key, value in configs.items())

    with contextlib.closing(kafka.admin()) as admin:
        admin.alter_configs([ConfigResource("TOPIC", topic, configs=configs)])
        while not applied(admin):  # the controller has it, and the broker will
            time.sleep(0.05)


def publish(kafka: KafkaServers, settings: Settings, count: int) -> None:
    with contextlib.closing(KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)) as producer:
        for _ in range(count):
            producer.send(settings.kafka.instance_topic, RECORD, partition=1)
        producer.flush()


def commit(kafka: KafkaServers, settings: Settings, offset: int) -> None:
    with contextlib.closing(
        KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=settings.kafka.group)
    ) as client:
        place = TopicPartition(settings.kafka.instance_topic, 1)
        client.assign([place])
        client.commit({place: OffsetAndMetadata(offset, "", -1)})


def test_size_counts_what_is_not_read(kafka: KafkaServers, settings: Settings, watch: RetentionWatch) -> None:
    """All of it without a group; then in proportion; nothing once all is read."""
    keep(kafka, settings, bytes=4 * MiB)
    assert watch.look() == 0
    publish(kafka, settings, 20)
    whole = 20 * len(RECORD) / (4 * MiB)
    assert watch.look() == pytest.approx(whole, rel=0.02)
    assert watch.backlog.bytes == pytest.approx(20 * len(RECORD), rel=0.02)
    commit(kafka, settings, 15)
    assert watch.look() == pytest.approx(whole / 4, rel=0.02)
    assert watch.backlog.bytes == pytest.approx(5 * len(RECORD), rel=0.02)
    commit(kafka, settings, 20)
    assert watch.look() == watch.backlog.bytes == 0


def test_what_was_sent_since_counts_at_once(
    kafka: KafkaServers, settings: Settings, watch: RetentionWatch
) -> None:
    """A small retention may be full before brokers are asked again; what they have by then counts no more than once."""
    keep(kafka, settings, bytes=4 * MiB)
    watch.judge(watch.look())
    for _ in range(20):
        assert not watch.near
        watch.sent(1, len(RECORD))
    publish(kafka, settings, 20)
    watch.sent(0, 2 * MiB - 1)
    watch.sent(1, 2 * MiB - 20 * len(RECORD) - 1)
    assert not watch.near
    with capture_logs() as logs:
        watch.sent(1, 1)
    assert watch.near
    assert [line["event"] for line in logs] == [NEAR]
    commit(kafka, settings, 20)
    watch.judge(watch.look())
    assert watch.near  # it may be on its way
    watch.judge(watch.look())
    assert not watch.near
    watch.sent(0, 2 * MiB)
    assert watch.near


@asynchronous
async def test_a_writer_stops_by_what_it_has_sent_itself(kafka: KafkaServers, settings: Settings) -> None:
    """At once, whatever brokers have of it by then: nobody was asked in between."""
    keep(kafka, settings, bytes=4 * MiB)
    writer = KafkaWriter(settings)
    await writer.start()
    await until(lambda: writer.backlog.bytes is not None)
    assert writer.refusal() is None
    view = memoryview(bytes(MAX_PAYLOAD))
    header = encode_header(Kind.PART, UploadId.of(1, 1, 1), 0, None, [view])
    published = [writer.publish(0, header, [view]) for _ in range(2 * MiB // MAX_PAYLOAD + 1)]
    assert writer.refusal() == "workers are too far behind"
    await asyncio.gather(*published)
    await writer.close()


def test_age_counts_what_is_not_read(kafka: KafkaServers, settings: Settings, watch: RetentionWatch) -> None:
    """What waits for longer than the limit of the settings; a younger record beside it changes nothing."""
    keep(kafka, settings, ms=DAY)
    publish(kafka, settings, 1)
    assert watch.look() == 0
    keep(kafka, settings, ms=2000)
    while watch.look() == 0:
        time.sleep(0.1)
    assert watch.look() == 0.5
    publish(kafka, settings, 1)
    assert watch.look() == 0.5
    commit(kafka, settings, 1)
    keep(kafka, settings, ms=DAY)
    assert watch.look() == 0


def test_without_limits_nothing_is_near(
    kafka: KafkaServers, settings: Settings, watch: RetentionWatch
) -> None:
    """A topic that keeps everything."""
    keep(kafka, settings, ms=-1, bytes=-1)
    publish(kafka, settings, 20)
    assert watch.look() == 0


def test_the_backlog_is_told_from_the_same_look(
    kafka: KafkaServers, settings: Settings, watch: RetentionWatch
) -> None:
    """Its records, the age of the oldest, and bytes where they were asked for; also before any worker has come."""
    told = {gauge.description.name: gauge for gauge in gauges_of(settings, cast("Log", Telling(watch)))}

    def reading(name: str) -> float | None:
        watch.look()
        return dict(told[name].values()).get(())

    assert [reading(name) for name in BACKLOG] == [0, 0, None]
    publish(kafka, settings, 20)
    assert [reading(name) for name in BACKLOG] == [20, pytest.approx(0, abs=60), None]
    age = watch.backlog.age
    commit(kafka, settings, 15)
    publish(kafka, settings, 1)
    assert reading("log_backlog_records") == 6
    assert watch.backlog.age > age  # five of the twenty still wait
    keep(kafka, settings, bytes=4 * MiB)
    assert reading("log_backlog_bytes") == pytest.approx(6 * len(RECORD), rel=0.02)
    commit(kafka, settings, 21)
    assert [reading(name) for name in BACKLOG] == [0, 0, 0]


def test_a_defect_does_not_end_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a look meets is told of, and the next one counts: nothing else keeps retention from what waits."""
    monkeypatch.setattr("ingest.log.kafka_retention._INTERVAL", 0.01)
    watch = RetentionWatch(Settings(data=tmp_path))
    divisors = iter([0.0])
    monkeypatch.setattr(watch, "look", lambda: 0.9 / next(divisors, 1.0))
    with capture_logs() as lines:
        watch.start()
        deadline = time.monotonic() + 60
        while not watch.near:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        watch.stop()
        watch._thread.join()
    assert lines[0]["event"] == "what waits for workers was not compared with retention"
