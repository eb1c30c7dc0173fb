"""`status` with log.kind = kafka: the group's commits and what lies above them, on a real broker."""

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from ingest.contract.identifiers import partition_of
from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.records import Place
from ingest.contract.settings import Settings
from tests.support.kafka_records import Publisher, kafka_settings
from tests.support.kafka_servers import KafkaServers
from tests.support.pipeline import assert_adds_up
from workers.cli import group_account
from workers.cli.status_report import read_report
from workers.log.commit_metadata import OffsetCheckpoint, Range, encode_metadata

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]
numbers = itertools.count()


@pytest.fixture
def log(kafka: KafkaServers, tmp_path: Path) -> tuple[Settings, Path]:
    return kafka_settings(kafka, tmp_path, f"status-{next(numbers)}")


def status(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingest", "status", "--config", str(config), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def commit(settings: Settings, partition: int, offset: int, metadata: str) -> None:
    kafka = settings.kafka
    with closing(
        KafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers, group_id=kafka.group, enable_auto_commit=False
        )
    ) as client:
        place = TopicPartition(kafka.instance_topic, partition)
        client.assign([place])
        client.commit({place: OffsetAndMetadata(offset, metadata, -1)})


def publish_ten(settings: Settings) -> int:
    """Ten uploads in one partition; its number."""
    publisher = Publisher(settings)
    for _ in range(10):
        publisher.upload("1.2.3", b"a")
    publisher.flush()
    publisher.close()
    return partition_of("1.2.3", settings.log.partitions)


def test_before_any_worker_all_is_backlog(log: tuple[Settings, Path]) -> None:
    """Complete uploads wait; orphans and parts are nothing yet; the text says that there is one copy."""
    settings, config = log
    publisher = Publisher(settings)
    for number in range(20):
        publisher.upload(f"1.2.{number}", bytes(1000), part=400)
        publisher.orphan(f"1.3.{number}")
    publisher.upload("1.2.1", bytes(7))
    publisher.flush()
    publisher.close()
    done = status(config, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert_adds_up(report)
    assert (report["received"], report["backlog"]) == (21, 21)
    assert report["spool"]["bytes"] == 20_007
    assert report["workers"] == []
    assert report["log"] == {"kind": "kafka", "single_copy": True, "lost": 0}
    text = status(config).stdout
    assert "kafka        21 instances" in text
    assert "single copy" in text


def test_what_is_done_above_the_mark_is_counted_once(log: tuple[Settings, Path]) -> None:
    """The account of a commit, and of the records above it only what it does not count."""
    settings, _ = log
    partition = publish_ten(settings)
    account = OffsetCheckpoint(
        partition=partition,
        low_water_mark=2,
        done_ranges=(Range(4, 4), Range(7, 9)),
        counters={Place.STORED: 1, Place.DUPLICATE: 5},
        reasons={"duplicate/why": 5},
        lost=3,
    )
    commit(settings, partition, 2, encode_metadata(account))
    report = read_report(settings)
    assert (report.received, report.stored, report.duplicates, report.backlog) == (10, 1, 5, 4)
    assert report.reasons == {"duplicate/why": 5}
    assert report.log.lost == 3


def test_offsets_tell_without_reading(log: tuple[Settings, Path]) -> None:
    """From the mark to the end, parts and orphans too, and the counters of the commit; nothing of it is fetched."""
    settings, config = log
    partition = publish_ten(settings)
    account = OffsetCheckpoint(
        partition=partition, low_water_mark=4, counters={Place.STORED: 1, Place.DUPLICATE: 3}, lost=2
    )
    commit(settings, partition, 4, encode_metadata(account))
    report = json.loads(status(config, "--offsets", "--json").stdout)
    waiting = {str(number): 0 for number in range(settings.log.partitions)} | {str(partition): 6}
    assert report == {
        "workers": [], "stored": 1, "duplicates": 3, "conflicts": 0, "quarantined": 0,
        "records_waiting": waiting, "lost": 2,
    }  # fmt: skip
    assert "records waiting 6, lost to retention 2" in status(config, "--offsets").stdout
    commit(settings, partition, 0, "")
    assert status(config, "--offsets").returncode == 1


def test_a_foreign_commit_is_one_line(log: tuple[Settings, Path]) -> None:
    """Never a wrong number: exit code 1, and the partition's number."""
    settings, config = log
    commit(settings, 1, 0, "")
    done = status(config)
    assert done.returncode == 1
    assert "partition 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_away_is_one_line(log: tuple[Settings, Path], tmp_path: Path) -> None:
    """No broker, no numbers."""
    settings, config = log
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace(settings.kafka.bootstrap_servers[0], "127.0.0.1:1"))
    done = status(other)
    assert done.returncode == 1
    assert "cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_stops_answering_is_said(
    kafka: KafkaServers, log: tuple[Settings, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for records that were there when the ends were told."""
    settings, _ = log
    publish_ten(settings)
    (broker,) = kafka.nodes
    tell = KafkaConsumer.end_offsets

    def and_stand_still(
        consumer: KafkaConsumer, places: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        ends: dict[TopicPartition, int] = tell(consumer, places)
        broker.pause()
        return ends

    monkeypatch.setattr(KafkaConsumer, "end_offsets", and_stand_still)
    monkeypatch.setattr(group_account, "_ANSWER", 1.0)
    try:
        with pytest.raises(KafkaUnreachable):
            read_report(settings)
    finally:
        broker.resume()
