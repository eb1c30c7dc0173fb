"""`dicom-ingest topics`: made as the settings promise, compared with them, each difference named."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from kafka.admin import NewTopic

from tests.support.command import Done, run
from tests.support.kafka_servers import KafkaServers

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

SETTINGS = """
[log]
kind = "kafka"
partitions = {partitions}
allow_single_copy = {allowed}
[kafka]
bootstrap_servers = ["{server}"]
instance_topic = "{name}-instances"
outcome_topic = "{name}-outcomes"
replication_factor = {copies}
min_insync_replicas = {in_sync}
"""


def topics(
    folder: Path, kafka: KafkaServers, name: str, *arguments: str, copies: int = 1, partitions: int = 3
) -> Done:
    file = folder / "settings.toml"
    file.write_text(
        SETTINGS.format(
            server=kafka.bootstrap_servers[0],
            name=name,
            allowed=str(copies < 3).lower(),
            copies=copies,
            in_sync=min(copies, 2),
            partitions=partitions,
        )
    )
    return run(folder, "topics", *arguments, "--config", str(file))


def test_made_and_then_right(kafka: KafkaServers, tmp_path: Path) -> None:
    """What `create` makes, `check` finds right; a second `create` changes nothing."""
    before = topics(tmp_path, kafka, "made", "check")
    assert before.code == 1
    assert "topic made-instances does not exist" in before.out
    assert topics(tmp_path, kafka, "made", "create").out == "made-instances: made\nmade-outcomes: made\n"
    after = topics(tmp_path, kafka, "made", "check")
    assert after.code == 0
    assert after.out.startswith("single copy: ")
    assert after.out.endswith("the topics are as the settings promise\n")
    assert "is there already" in topics(tmp_path, kafka, "made", "create").out


def test_three_copies(kafka_three: KafkaServers, tmp_path: Path) -> None:
    """As recommended: replicated, no unclean leader, the brokers' time."""
    assert topics(tmp_path, kafka_three, "safe", "create", copies=3).code == 0
    done = topics(tmp_path, kafka_three, "safe", "check", "--json", copies=3)
    report = json.loads(done.out)
    assert (done.code, report["valid"], report["single_copy"]) == (0, True, False)
    for topic in report["topics"]:
        assert (topic["partitions"], topic["replication_factor"], topic["problems"]) == (3, 3, [])
        assert topic["configuration"]["min.insync.replicas"] == "2"
        assert topic["configuration"]["unclean.leader.election.enable"] == "false"
        assert topic["configuration"]["message.timestamp.type"] == "LogAppendTime"


def test_every_difference_is_named(kafka: KafkaServers, tmp_path: Path) -> None:
    """A topic that somebody made by hand."""
    with closing(kafka.admin()) as admin:
        configs = {"max.message.bytes": "1048588", "cleanup.policy": "compact", "retention.ms": "1000"}
        admin.create_topics(
            [NewTopic(f"hand-{name}", 2, 1, topic_configs=configs) for name in ("instances", "outcomes")]
        )
    done = topics(tmp_path, kafka, "hand", "check")
    assert done.code == 1
    for part in (
        "has 2 partitions, log.partitions is 3",
        "message.timestamp.type CreateTime, it must be LogAppendTime",
        "max.message.bytes 1048588, at least 2097152 are needed",
        "cleanup.policy compact",
        "retention.ms is 1000, recommended is 604800000",
    ):
        assert part in done.out


def test_not_with_the_spool(tmp_path: Path) -> None:
    """The spool has no topics."""
    for verb in ("check", "create"):
        done = run(tmp_path, "topics", verb)
        assert done.code == 2
        assert "log.kind is spool" in done.err
