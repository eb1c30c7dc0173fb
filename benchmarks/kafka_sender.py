"""The bare client: `python -m benchmarks.kafka_sender`, a job as JSON on standard input, what came of it on the output.

Records as the receiver makes them, encoded beforehand, go to the same topic by kafka-python at its best settings;
as many are on their way at once as the receiver has senders. What is missing is DICOM.
"""

import itertools
import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from kafka import KafkaProducer

from benchmarks.data import KINDS, UidSeries, template
from benchmarks.processes import python
from ingest.contract.allocator import keep_freed_memory
from ingest.contract.identifiers import UploadId
from ingest.contract.kafka import MAXIMUM_MESSAGE, client_options
from ingest.contract.records import MAX_PAYLOAD, Instance, Kind, encode_header
from ingest.contract.settings import KafkaSettings

# Acknowledged as the receiver's records are. A request carries a batch of each partition, and a batch as many records as the
# topic takes at once: a record that finds no room is copied in vain, and brokers cost less for each byte of a larger batch.
_BEST: Final = {
    "acks": "all",
    "enable_idempotence": True,
    "max_in_flight_requests_per_connection": 5,
    "max_request_size": 4 * MAXIMUM_MESSAGE,
    "batch_size": MAXIMUM_MESSAGE - 4096,
    "linger_ms": 0,
    "request_timeout_ms": 10_000,
    "delivery_timeout_ms": 20_000,
    "max_block_ms": 1000,
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}


@dataclass(frozen=True)
class Job:
    """What is sent: ``instances`` of ``kind``, ``window`` records on their way at once."""

    server: str
    topic: str
    partitions: int
    kind: str
    instances: int
    window: int


@dataclass(frozen=True)
class Done:
    """What came of it."""

    seconds: float
    cpu_seconds: float


def send_bare(job: Job) -> Done:
    """Run the job in a process of its own."""
    done = subprocess.run(
        python("-m", "benchmarks.kafka_sender"),
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=True,
    )
    return Done(**json.loads(done.stdout))


def _records(kind: str) -> list[bytes]:
    """The records of one instance."""
    found = template(KINDS[kind])
    data_set = found.head_with(UidSeries(1, 1).next()) + b"".join(found.frames())
    uid = "1.2.3"
    instance = Instance(uid, uid, uid, len(data_set), bytes(16), "MODALITY", "DICOM-INGEST", "127.0.0.1", 1)
    upload_id = UploadId.of(1, 1, 1)
    pieces = [memoryview(data_set)[at : at + MAX_PAYLOAD] for at in range(0, len(data_set), MAX_PAYLOAD)]
    if len(pieces) == 1:
        return [encode_header(Kind.INSTANCE, upload_id, 1, instance, pieces) + data_set]
    parts = [
        encode_header(Kind.PART, upload_id, index, None, [piece]) + bytes(piece)
        for index, piece in enumerate(pieces)
    ]
    return [*parts, encode_header(Kind.END, upload_id, len(pieces), instance)]


def _send(job: Job) -> Done:
    producer = KafkaProducer(**client_options(KafkaSettings(bootstrap_servers=(job.server,))), **_BEST)
    producer.partitions_for(job.topic)
    records = _records(job.kind)
    room = threading.Semaphore(job.window)
    failures: list[Exception] = []

    def acknowledged(_metadata: Any) -> None:
        room.release()

    def failed(error: Exception) -> None:
        failures.append(error)
        room.release()

    cpu, begun = time.process_time(), time.monotonic()
    partitions = itertools.cycle(range(job.partitions))
    for _ in range(job.instances):
        partition = next(partitions)
        for record in records:
            room.acquire()
            producer.send(job.topic, record, partition=partition).add_callback(acknowledged).add_errback(
                failed
            )
    for _ in range(job.window):
        room.acquire()
    done = Done(time.monotonic() - begun, time.process_time() - cpu)
    if failures:
        raise failures[0]
    producer.close(10)
    return done


if __name__ == "__main__":
    keep_freed_memory()
    print(json.dumps(asdict(_send(Job(**json.load(sys.stdin))))))
