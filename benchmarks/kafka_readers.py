"""A process that reads a topic to its end and prints what that took, as JSON: our worker, or a bare client.

``python -m benchmarks.kafka_readers ours CONFIG COUNT`` or ``bare CONFIG COUNT``; both in a group of their own,
from the log's start. Time runs from the first record that comes to the last one done with.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from ingest.contract.commitments import CommitAsked, Found, Reference
from ingest.contract.kafka import client_options
from ingest.contract.records import Outcome, Place
from ingest.contract.settings import MiB, Settings
from ingest.contract.settings_sources import load_settings
from ingest.contract.telemetry import configure_telemetry
from workers.fences import Fences
from workers.log.kafka_consumer import KafkaReader
from workers.log.kafka_outcomes import KafkaOutcomes
from workers.log.kafka_proofs import KafkaProofs
from workers.log.offset_progress import CommittedMarks, OffsetProgress
from workers.log.scratch import ScratchFolder
from workers.log.upload import Upload
from workers.partition import OwnedPartition
from workers.pipeline import Tries
from workers.stages.seal import check_seal
from workers.threads import for_payload, take_short_turns
from workers.worker import Worker


class Watch:
    """Counts bytes and instances; time and CPU begin with the first."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.bytes = 0
        self._begun = 0.0
        self._cpu = 0.0

    def take(self, size: int) -> None:
        """One instance more, of so many bytes."""
        if not self._begun:
            self._begun, self._cpu = time.monotonic(), time.process_time()
        else:
            self.bytes += size  # the first one came before the time began
        self.left -= 1

    def report(self) -> dict[str, float]:
        """Bytes a second, CPU seconds a megabyte, resident MiB at most."""
        seconds = time.monotonic() - self._begun
        return {
            "rate": self.bytes / seconds,
            "cpu_ms_per_mb": 1e9 * (time.process_time() - self._cpu) / self.bytes,
            "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


class NoStore:
    """The pipeline with nothing in it but the check of what was received."""

    def __init__(self, watch: Watch, ended: asyncio.Event) -> None:
        self._watch = watch
        self._ended = ended

    async def place(self, upload: Upload, tries: Tries) -> Outcome:  # noqa: ARG002 - as `Placer` has it
        """Say that it is stored."""
        digest = await for_payload(upload.payload, check_seal, upload.payload, upload.instance)
        self._watch.take(upload.payload.size)
        if not self._watch.left:
            self._ended.set()
        uid = upload.instance.sop_instance_uid
        return Outcome(uid, Place.STORED, "", digest, "none", "none", time.time_ns(), upload.end_position)


class NoProver:
    """There is no question in the log."""

    async def prove(self, asked: CommitAsked, references: Sequence[Reference]) -> list[Found]:
        """See `workers.fences.Prover`."""
        raise AssertionError(asked, references)


async def ours(settings: Settings, count: int) -> dict[str, float]:
    """Everything that a worker does, commits and outcomes too, but for codec and store."""
    take_short_turns()
    watch, ended = Watch(count), asyncio.Event()
    outcomes = KafkaOutcomes(settings.kafka)
    await outcomes.start()
    with tempfile.TemporaryDirectory() as folder:
        scratch = ScratchFolder(Path(folder), range(settings.log.partitions))

        def add(progress: OffsetProgress) -> None:
            announcer = outcomes.of(progress.partition)
            worker.add(OwnedPartition(progress, CommittedMarks(progress), announcer))

        def drop(partition: int) -> None:
            worker.drop(partition)

        reader = KafkaReader(settings, add, drop)
        worker = Worker(
            settings.worker,
            (),
            checkpoints=reader,
            reader=reader,
            scratch=scratch,
            pipeline=NoStore(watch, ended),
            fences=Fences(NoProver(), KafkaProofs(settings)),
            expire_after=600,
        )
        await reader.start()
        running = asyncio.create_task(worker.run())
        await ended.wait()
        report = watch.report()
        worker.stop()
        await running
        await reader.close()
    await outcomes.close()
    return report


def bare(settings: Settings, count: int) -> dict[str, float]:
    """The client with the sizes that suit such records, which are looked at by nobody."""
    options: dict[str, Any] = client_options(settings.kafka) | {"group_id": settings.kafka.group}
    options |= {"fetch_max_bytes": 8 * MiB, "max_partition_fetch_bytes": 2 * MiB, "check_crcs": False}
    consumer = KafkaConsumer(auto_offset_reset="earliest", **options)
    topic = settings.kafka.instance_topic
    # Not by the group: a join that ends beside a poll is never heard of (3.0.12), see `workers.log.kafka_poller`.
    consumer.assign([TopicPartition(topic, partition) for partition in range(settings.log.partitions)])
    watch = Watch(count)
    while watch.left:
        for records in consumer.poll(timeout_ms=100).values():
            for record in records:
                watch.take(len(record.value))
    report = watch.report()
    consumer.close()
    return report


if __name__ == "__main__":
    _, what, config, number = sys.argv
    found = load_settings(Path(config)).settings
    configure_telemetry(found.telemetry, "reader")
    done = bare(found, int(number)) if what == "bare" else asyncio.run(ours(found, int(number)))
    json.dump(done, sys.stdout)
