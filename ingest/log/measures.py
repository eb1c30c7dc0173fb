"""What can be read off a log while it runs; for metrics."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from ingest.contract.checkpoint import checkpoint_path, read_checkpoint
from ingest.contract.monitoring.instruments import Gauge, Labels
from ingest.contract.settings import Settings
from ingest.log.interface import Log
from ingest.log.kafka_backlog import Backlog
from ingest.log.spool_backlog import SpoolBacklog
from ingest.log.spool_writer import SpoolWriter


class _Spool(Protocol):
    durable_end: int


class _Kafka(Protocol):
    retention_used: float
    backlog: Backlog


def gauges_of(settings: Settings, log: Log) -> list[Gauge]:
    """Those that this kind of log has; all are cheap."""
    match settings.log.kind:
        case "spool":
            return _gauges_of_spool(settings, cast("_Spool", log))
        case "kafka":
            return _gauges_of_kafka(cast("_Kafka", log))


def _gauges_of_spool(settings: Settings, spool: _Spool) -> list[Gauge]:
    folder = settings.data / "checkpoints"
    return [
        Gauge(
            "log_backlog_bytes",
            "From the oldest record that a worker still needs to the log's end.",
            lambda: max(0, spool.durable_end - low_water_mark(folder, settings.log.partitions)),
        ),
        Gauge(
            "log_maximum_bytes", "log.maximum_size; a full log refuses.", lambda: settings.log.maximum_size
        ),
    ]


def _gauges_of_kafka(kafka: _Kafka) -> list[Gauge]:
    def size() -> dict[Labels, float]:
        found = kafka.backlog.bytes
        return {} if found is None else {(): found}

    return [
        Gauge(
            "log_retention_used_ratio",
            "Of Kafka's retention, by what workers have not read; at kafka.retention_limit nothing new is taken.",
            lambda: kafka.retention_used,
        ),
        Gauge(
            "log_backlog_records",
            "Records of the instance topic that workers have not settled; a large instance is several records.",
            lambda: kafka.backlog.records,
        ),
        Gauge("log_backlog_bytes", "Of them, by their mean size; only where retention.bytes is set.", size),
        Gauge("log_oldest_seconds", "Age of the oldest of them; 0 without any.", lambda: kafka.backlog.age),
    ]


def spool_backlog_of(
    settings: Settings, log: object, acknowledged: Callable[[], float]
) -> SpoolBacklog | None:
    """What tells how many wait in the spool; None for another log."""
    if not isinstance(log, SpoolWriter):
        return None
    mark = partial(low_water_mark, settings.data / "checkpoints", settings.log.partitions)
    return SpoolBacklog(lambda: log.durable_end, mark, acknowledged)


def low_water_mark(folder: Path, partitions: int) -> int:
    """Below it everything is settled.

    Raises:
        OSError, CorruptCheckpoint: a checkpoint cannot be read.
    """
    marks = []
    for partition in range(partitions):
        checkpoint = read_checkpoint(checkpoint_path(folder, partition))
        marks.append(0 if checkpoint is None else checkpoint.low_water_mark)
    return min(marks)
