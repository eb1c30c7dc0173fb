"""Our worker without codec and store, against a bare kafka-python consumer of the same records, on a real broker.

Both with the allocator's settings that `ingest.contract.allocator` gives to worker processes; in the full form without,
too.
"""

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import xxhash
from kafka import KafkaProducer

from benchmarks.arms import Arm, Comparison, Sample, alternate
from benchmarks.data import KINDS, UidSeries, template
from benchmarks.processes import python
from benchmarks.scenarios.scale import Scale
from ingest.contract.allocator import VARIABLES
from ingest.contract.identifiers import UploadId, partition_of
from ingest.contract.kafka import MAXIMUM_MESSAGE, client_options
from ingest.contract.kafka_topics import create_topics
from ingest.contract.records import MAX_PAYLOAD, Instance, Kind, encode_header
from ingest.contract.settings import Settings
from ingest.contract.settings_sources import load_settings
from tests.support.kafka_servers import KafkaServers

OURS: Final = "ours, without codec and store"
BARE: Final = "bare kafka-python consumer"
TUNED: Final = ", allocator set"
AIM: Final = 0.75
_PARTITIONS: Final = 4
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_AHEAD: Final = 32  # instances
_run_numbers = itertools.count()


def run(scale: Scale) -> list[Comparison]:
    """Instances of one record each; in the full form of several, too."""
    with KafkaServers(scale.scratch / "kafka", measured=True) as servers:
        kinds = ["ct"] if scale.quick else ["ct", "mr", "dx"]
        return [_compare(scale, servers, kind) for kind in kinds]


def _compare(scale: Scale, servers: KafkaServers, kind: str) -> Comparison:
    count = max(16, scale.instances(kind, 1))
    config, settings = _log(scale.scratch, servers, kind)
    size = _fill(settings, kind, count)

    def arm(name: str, what: str, environment: Mapping[str, str]) -> Arm:
        def run() -> Sample:
            return _read(what, config, kind, count, environment)

        return Arm(name, run)

    title = f"Worker without codec and store from Kafka, {KINDS[kind].label}"
    scale.progress(title)
    arms = [arm(OURS + TUNED, "ours", VARIABLES), arm(BARE + TUNED, "bare", VARIABLES)]
    if not scale.quick:
        arms += [arm(OURS, "ours", {}), arm(BARE, "bare", {})]
    comparison = Comparison(title, "MB/s", alternate(arms, scale.rounds, scale.progress))
    comparison.add_ratio(OURS + TUNED, BARE + TUNED, AIM)
    if not scale.quick:
        comparison.add_ratio(OURS, BARE, AIM)
        comparison.add_ratio(OURS + TUNED, OURS)
    for name in comparison.samples:
        cpu = sorted(sample["cpu_ms_per_mb"] for sample in comparison.samples[name])
        resident = max(sample["resident"] for sample in comparison.samples[name])
        comparison.notes.append(
            f"{name}: {cpu[len(cpu) // 2]:.2f} ms CPU a megabyte, at most {resident:.0f} MiB resident."
        )
    comparison.notes.append(f"{count} instances, {size / 1e6:.0f} MB, {_PARTITIONS} partitions, one broker.")
    return comparison


def _log(folder: Path, servers: KafkaServers, kind: str) -> tuple[Path, Settings]:
    """Topics of its own, and the settings file of whoever reads them."""
    config = folder / f"{kind}.toml"
    config.write_text(
        f'data = "{folder}"\n[log]\nkind = "kafka"\nallow_single_copy = true\npartitions = {_PARTITIONS}\n'
        f"[kafka]\nbootstrap_servers = {json.dumps(list(servers.bootstrap_servers))}\n"
        f'instance_topic = "{kind}-instances"\noutcome_topic = "{kind}-outcomes"\n'
        'replication_factor = 1\nmin_insync_replicas = 1\n[telemetry]\nlevel = "error"\n'
    )
    settings = load_settings(config).settings
    create_topics(settings)
    return config, settings


def _fill(settings: Settings, kind: str, count: int) -> int:
    """Put the instances into the topic; returns their bytes."""
    found = template(KINDS[kind])
    uids = UidSeries(1, 1)
    options = client_options(settings.kafka) | {"batch_size": MAXIMUM_MESSAGE // 2}
    total = 0
    with closing(
        KafkaProducer(acks="all", enable_idempotence=True, max_request_size=4 * MAXIMUM_MESSAGE, **options)
    ) as producer:
        for number in range(count):
            uid = uids.next()
            data = found.head_with(uid) + b"".join(found.frames())
            total += len(data)
            name = uid.rstrip(b"\0").decode()
            partition = partition_of(name, _PARTITIONS)
            for record in _records(number, kind, name, data):
                sent = producer.send(settings.kafka.instance_topic, record, partition=partition)
            if number % _AHEAD == 0:
                sent.get(60)  # the client has no bound of its own
        producer.flush(60)
    return total


def _records(number: int, kind: str, uid: str, data: bytes) -> Iterator[bytes]:
    upload_id = UploadId.of(1, 1, number)
    seal = xxhash.xxh3_128_digest(data)
    instance = Instance(
        KINDS[kind].sop_class_uid, uid, _EXPLICIT, len(data), seal, "A", "B", "127.0.0.1", time.time_ns()
    )
    if len(data) <= MAX_PAYLOAD:
        yield encode_header(Kind.INSTANCE, upload_id, 1, instance, [memoryview(data)]) + data
        return
    parts = [data[at : at + MAX_PAYLOAD] for at in range(0, len(data), MAX_PAYLOAD)]
    for index, part in enumerate(parts):
        yield encode_header(Kind.PART, upload_id, index, None, [memoryview(part)]) + part
    yield encode_header(Kind.END, upload_id, len(parts), instance)


def _read(what: str, config: Path, kind: str, count: int, environment: Mapping[str, str]) -> Sample:
    """One reader, in a group of its own, from the log's start."""
    group = {"DICOM_INGEST_KAFKA__GROUP": f"{kind}-{what}-{next(_run_numbers)}"}
    if what == "bare":  # it counts records
        count = _record_count(kind, count)
    done = subprocess.run(
        python("-m", "benchmarks.kafka_readers", what, str(config), str(count)),
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment, **group},
        timeout=600,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the {what} reader failed: {done.stderr[-2000:]}")
    sample: dict[str, float] = json.loads(done.stdout)
    return sample


def _record_count(kind: str, count: int) -> int:
    parts = -(-template(KINDS[kind]).size // MAX_PAYLOAD)
    return count if parts == 1 else count * (parts + 1)
