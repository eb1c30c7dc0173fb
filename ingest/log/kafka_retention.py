"""Watches how near Kafka's retention is to what workers have not read: it deletes by age and size, read or not.

What has been acknowledged must not be lost to it, so nothing new is taken once too much of it waits. The measure is
the group's low-water mark. By age it is exact; by size it counts records of the mean size, which is exact where it
matters, when all that is left of a partition waits. What this receiver has sent since brokers were last asked counts
at once: a small retention may be full before they are asked again.
"""

import contextlib
import contextvars
import math
import threading
import time
from collections import Counter
from functools import partial
from typing import Final

import structlog
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, for_code
from kafka.protocol.consumer import OffsetSpec

from ingest.contract.kafka import client_options
from ingest.contract.kafka_topics import told_configuration
from ingest.contract.settings import Settings
from ingest.log.kafka_backlog import Backlog, Oldest

logger = structlog.get_logger(__name__)

_INTERVAL: Final = 2.0  # s between two looks; half a dozen small requests each
_TIMEOUT: Final = 5.0  # s of each request
_PATIENCE: Final = 5  # failures in a row
_KEYS: Final = ("retention.ms", "retention.bytes")


class RetentionWatch:
    """A thread that looks again and again; while brokers do not answer, what it saw last holds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.kafka.instance_topic
        self._partitions = [TopicPartition(self._topic, number) for number in range(settings.log.partitions)]
        self._admin: KafkaAdminClient | None = None
        self._stopping = threading.Event()
        self._failures = 0  # one after the other
        self._sizes_told = True
        self._sent: Counter[int] = Counter()  # bytes that each partition has had from us
        self._sent_before: dict[int, int] = {}  # the same when the last look began
        # The same when it will be too much; empty without a limit by size.
        self._full_at: dict[int, float] = {}
        self.near: bool = False  # more waits than the settings allow
        self.used = 0.0  # of retention, as seen last
        self.backlog = Backlog()
        self._oldest = Oldest()
        run = partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="kafka-retention", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a look that is under way ends by itself."""
        self._stopping.set()

    def sent(self, partition: int, size: int) -> None:
        """So many bytes more are on their way to a partition; from the event loop's thread."""
        self._sent[partition] += size
        if not self.near and self._is_full(partition):
            self._come_near(self._settings.kafka.retention_limit)

    def look(self) -> float:
        """The share of retention that the partition next to loss has used up; blocks. `backlog` is told from it, too.

        Raises:
            KafkaError: brokers do not answer, or not us.
        """
        if self._admin is None:
            self._admin = KafkaAdminClient(
                **client_options(self._settings.kafka),
                bootstrap_timeout_ms=int(1000 * _TIMEOUT),
                request_timeout_ms=int(1000 * _TIMEOUT),
            )
        age, size = self._retention(self._admin)
        sent = dict(self._sent)
        first = self._offsets(self._admin, OffsetSpec.EARLIEST)
        ends = self._offsets(self._admin, OffsetSpec.LATEST)
        marks = {**first, **self._marks(self._admin)}
        waiting = {one: max(0, ends[one] - max(marks[one], first[one])) for one in self._partitions}
        sizes = self._sizes(self._admin) if size >= 0 else None
        used, backlog_size, full_at = 0.0, None, {}
        if sizes is not None:
            shares = {one: count / (ends[one] - first[one]) for one, count in waiting.items() if count}
            found = {one.partition: sizes[one.partition] * share for one, share in shares.items()}
            used, backlog_size = max(found.values(), default=0) / max(size, 1), sum(found.values())
            full_at = self._filled_at(size, {number: found.get(number, 0) for number in sizes})
        self._full_at, self._sent_before = full_at, sent
        if age >= 0:
            used = max(used, self._used_of_age(self._admin, age, marks, ends))
        settled = [ends[one] - waiting[one] for one in self._partitions]
        oldest = self._oldest.age(settled, [ends[one] for one in self._partitions])
        self.backlog = Backlog(sum(waiting.values()), oldest, backlog_size)
        return used

    def _filled_at(self, size: int, waiting: dict[int, float]) -> dict[int, float]:
        """How much each partition will have had from us when too much of it waits; ``size``: the limit in bytes."""
        limit = self._settings.kafka.retention_limit * size
        # What was sent since the look before this one may not have been there yet, and counts once more.
        return {number: self._sent_before.get(number, 0) + limit - found for number, found in waiting.items()}

    def close(self) -> None:
        """Let go of the client."""
        if self._admin is not None:
            with contextlib.suppress(KafkaError):
                self._admin.close()
            self._admin = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.judge(self.look())
            except KafkaError as error:
                self._report(type(error).__name__)  # the client finds brokers again by itself
            except Exception:
                # Without this thread nothing would keep retention from what has been acknowledged.
                logger.exception("what waits for workers was not compared with retention")
            self._stopping.wait(_INTERVAL)
        self.close()

    def judge(self, used: float) -> None:
        """Say whether so much, as `look` has found it, is too much."""
        self.used = used
        self._failures = 0
        if used >= self._settings.kafka.retention_limit or any(map(self._is_full, self._full_at)):
            self._come_near(used)
        elif self.near:
            logger.info("workers have caught up with retention", used=round(used, 3))
            self.near = False

    def _is_full(self, partition: int) -> bool:
        return self._sent[partition] >= self._full_at.get(partition, math.inf)

    def _come_near(self, used: float) -> None:
        if not self.near:
            logger.error(
                "workers are so far behind that retention would delete what they have not read; nothing new is taken",
                used=round(used, 3),
            )
        self.near = True

    def _report(self, problem: str) -> None:
        """Only what lasts: a coordinator that moves, or is chosen for the first time, is away for a moment."""
        self._failures += 1
        if self._failures == _PATIENCE:
            logger.warning("what waits for workers cannot be compared with retention", error=problem)

    def _retention(self, admin: KafkaAdminClient) -> tuple[int, int]:
        """Of the topic: milliseconds, and bytes of a partition; -1 where it has no such limit."""
        configuration = told_configuration(admin, self._topic)
        age, size = (int(configuration[key]) for key in _KEYS)
        return age, size

    def _used_of_age(
        self,
        admin: KafkaAdminClient,
        retention: int,
        marks: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
    ) -> float:
        """The limit where something that waits is older than it, else 0: Kafka finds offsets by time, not times."""
        limit = self._settings.kafka.retention_limit
        oldest = int(1000 * time.time() - limit * retention)
        younger = self._offsets(admin, oldest)
        for one in self._partitions:
            at = younger[one] if younger[one] >= 0 else ends[one]  # none is younger
            if marks[one] < at:
                return limit
        return 0.0

    def _offsets(self, admin: KafkaAdminClient, of: object) -> dict[TopicPartition, int]:
        found = admin.list_partition_offsets(dict.fromkeys(self._partitions, of))
        return {one: at.offset for one, at in found.items()}

    def _marks(self, admin: KafkaAdminClient) -> dict[TopicPartition, int]:
        group = self._settings.kafka.group
        found = admin.list_group_offsets(group)[group]
        return {one: at.offset for one, at in found.items() if one in self._partitions and at.offset >= 0}

    def _sizes(self, admin: KafkaAdminClient) -> dict[int, int] | None:
        """Bytes of each partition, by its largest replica; None where brokers do not tell them all.

        The client passes over the error when we may not describe the cluster (3.0.12), and gives nothing.
        """
        sizes: dict[int, int] = {}
        for broker in admin.describe_log_dirs([self._topic]):
            for folder in broker["log_dirs"]:
                if folder["error_code"]:
                    raise for_code(folder["error_code"])
                for topic in folder["topics"]:
                    for found in topic["partitions"]:
                        number = found["partition_index"]
                        sizes[number] = max(sizes.get(number, 0), found["partition_size"])
        told = len(sizes) >= len(self._partitions)
        if not told and self._sizes_told:
            logger.error(
                "what waits for workers cannot be compared with retention.bytes, which may delete it: brokers do not tell "
                "the sizes of partitions; it takes the right to Describe the cluster"
            )
        self._sizes_told = told
        return sizes if told else None
