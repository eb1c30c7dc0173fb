"""Receive into Kafka: an instance is answered when the brokers have it (acks=all); beside it, the bare client.

One broker; in the full form three, too, each record on all of them and acknowledged by two at least.
"""

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.data import KINDS, template
from benchmarks.kafka_sender import Job, send_bare
from benchmarks.load import Load, send
from benchmarks.peers import OURS_WITHOUT_LOG, Peer, Running, running
from benchmarks.processes import cpu_seconds, python
from benchmarks.scenarios.network import ceiling_arm, load_of, next_run, peer_arm, sample_of
from benchmarks.scenarios.scale import Scale
from ingest.contract.kafka import client_options
from ingest.contract.kafka_topics import create_topics
from ingest.contract.settings import Settings
from tests.support.kafka_servers import KafkaServers

OURS: Final = "ours into Kafka"
BARE: Final = "bare kafka-python"
SERIAL_LIMIT: Final = "serial limit: without log, then bare kafka-python"
_AIM: Final = 0.85
_PARTITIONS: Final = 4
# What one arm wrote is deleted soon, so that no arm pays for another's pages.
_RETENTION: Final = 10.0  # s
_SETTLED_EVERY: Final = 1.0  # s
_BROKER: Final = {
    "log.segment.bytes": str(64 * 1024 * 1024),
    "log.retention.check.interval.ms": "2000",
    "log.segment.delete.delay.ms": "1000",
}


def run(scale: Scale) -> list[Comparison]:
    """One comparison for each kind of image and number of senders."""
    if scale.quick:
        return _on_brokers(scale, 1, [("ct", 1), ("ct", 16)])
    one = _on_brokers(scale, 1, [("ct", 1), ("ct", 16), ("mr", 16), ("dx", 1), ("dx", 16)])
    return one + _on_brokers(scale, 3, [("ct", 1), ("ct", 16)])


def _on_brokers(scale: Scale, brokers: int, cases: Sequence[tuple[str, int]]) -> list[Comparison]:
    with (
        started(scale.scratch, brokers) as (receiver, settings),
        running(OURS_WITHOUT_LOG, scale.scratch) as protocol,
    ):
        send(receiver.address, Load("ct", 16, 16, run=next_run()))
        return [_compare(scale, (receiver, protocol), settings, kind, senders) for kind, senders in cases]


@contextmanager
def started(scratch: Path, brokers: int = 1) -> Iterator[tuple[Running, Settings]]:
    """So many brokers with our topics, and the receiver on them."""
    folder = scratch / f"kafka-{brokers}"
    with KafkaServers(folder, nodes=brokers, properties=_BROKER, measured=True) as servers:
        settings = Settings.model_validate(
            {
                "log": {"kind": "kafka", "partitions": _PARTITIONS, "allow_single_copy": True},
                "kafka": {
                    "bootstrap_servers": servers.bootstrap_servers,
                    "replication_factor": brokers,
                    "min_insync_replicas": (brokers + 1) // 2,
                    "retention": _RETENTION,
                },
            }
        )
        create_topics(settings)
        with _settled(settings), running(_peer(settings), scratch) as receiver:
            yield receiver, settings
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _settled(settings: Settings) -> Iterator[None]:
    """Stand in for workers that keep up: else the receiver takes nothing more, since retention would overtake them."""
    ended = threading.Event()
    thread = threading.Thread(target=_settle, args=(settings, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _settle(settings: Settings, ended: threading.Event) -> None:
    places = [TopicPartition(settings.kafka.instance_topic, number) for number in range(_PARTITIONS)]
    with closing(
        KafkaConsumer(
            **client_options(settings.kafka), group_id=settings.kafka.group, enable_auto_commit=False
        )
    ) as consumer:
        consumer.assign(places)
        while not ended.wait(_SETTLED_EVERY):
            ends = consumer.end_offsets(places)
            consumer.commit({place: OffsetAndMetadata(end, "", -1) for place, end in ends.items()})


def _peer(settings: Settings) -> Peer:
    return Peer(
        OURS,
        tuple(python("-m", "ingest", "receiver", "--data", "{folder}", "--listen", "127.0.0.1:{port}")),
        {
            "DICOM_INGEST_LOG__KIND": "kafka",
            "DICOM_INGEST_LOG__PARTITIONS": str(_PARTITIONS),
            "DICOM_INGEST_LOG__ALLOW_SINGLE_COPY": "true",
            "DICOM_INGEST_KAFKA__BOOTSTRAP_SERVERS": ",".join(settings.kafka.bootstrap_servers),
            "DICOM_INGEST_KAFKA__REPLICATION_FACTOR": str(settings.kafka.replication_factor),
            "DICOM_INGEST_KAFKA__MIN_INSYNC_REPLICAS": str(settings.kafka.min_insync_replicas),
            "DICOM_INGEST_TELEMETRY__LEVEL": "warning",
        },
    )


def _ours_arm(scale: Scale, receiver: Running, kind: str, senders: int) -> Arm:
    def run() -> Sample:
        before = cpu_seconds(receiver.process.pid)
        sent = send(receiver.address, load_of(scale, kind, senders))
        receiver.process.check()
        return sample_of(sent, cpu_seconds(receiver.process.pid) - before)

    return Arm(OURS, run)


def _bare_arm(scale: Scale, settings: Settings, kind: str, senders: int) -> Arm:
    def run() -> Sample:
        count = scale.instances(kind, senders)
        kafka = settings.kafka
        job = Job(
            kafka.bootstrap_servers[0], kafka.instance_topic, _PARTITIONS, kind, count, window=max(senders, 1)
        )
        done = send_bare(job)
        size = count * template(KINDS[kind]).size
        return {RATE: size / done.seconds, "receiver_cpu_per_byte": done.cpu_seconds / size}

    return Arm(BARE, run)


def _compare(
    scale: Scale, receivers: tuple[Running, Running], settings: Settings, kind: str, senders: int
) -> Comparison:
    receiver, protocol = receivers
    arms = [
        _ours_arm(scale, receiver, kind, senders),
        _bare_arm(scale, settings, kind, senders),
        ceiling_arm(scale, kind, senders),
    ]
    if senders == 1:
        arms.append(peer_arm(scale, protocol, kind, senders))
    brokers = len(settings.kafka.bootstrap_servers)
    many = f" of {brokers} brokers" if brokers > 1 else ""
    title = f"Receive into Kafka{many}, {senders} sender{'s' * (senders > 1)}, {KINDS[kind].label}"
    scale.progress(title)
    comparison = Comparison(title, "MB/s", alternate(arms, scale.rounds, scale.progress))
    comparison.add_ratio(OURS, BARE, _AIM)
    if senders == 1:
        comparison.add_serial_limit(SERIAL_LIMIT, OURS_WITHOUT_LOG.name, BARE)
        comparison.add_ratio(OURS, SERIAL_LIMIT, guarded=False)
    comparison.family, comparison.senders = f"Receive into Kafka{many}, {KINDS[kind].label}", senders
    comparison.notes.append(
        f"Brokers: {brokers}, acks=all, {_PARTITIONS} partitions; the bare client has as many records on their way as there "
        "are senders, encoded beforehand. The senders' processes take their share of the same cores from ours alone."
    )
    return comparison
