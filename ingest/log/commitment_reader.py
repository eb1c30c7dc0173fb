"""Reads the commitment topic: all of it in order, or a record again by its location. Blocks; one thread at a time."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from ingest.contract.kafka import KafkaUnreachable, LogRewound, reader_options
from ingest.contract.records import CorruptRecord, Record, decode
from ingest.contract.settings import Settings
from ingest.log.commitment_log import Entry, Location, entry_of

logger = structlog.get_logger(__name__)

_REQUEST: Final = 10.0  # s
_RECORDS: Final = 64  # of one poll
_POLL: Final = 0.1  # s


class TopicReader:
    """Entries from the start of each partition on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.kafka.commitment_topic
        self._partitions = [TopicPartition(self._topic, number) for number in range(settings.log.partitions)]
        self._consumer: KafkaConsumer | None = None
        self._next: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    def open(self, timeout: float) -> None:
        """Connect, and see where the partitions begin and end.

        Raises:
            KafkaUnreachable: no broker answers, or none lets us in.
        """
        limit = int(1000 * timeout)
        try:
            self._consumer = KafkaConsumer(**reader_options(self._settings.kafka, timeout, _RECORDS))
            self._consumer.assign(self._partitions)
            first = self._consumer.beginning_offsets(self._partitions, timeout_ms=limit)
            ends = self._consumer.end_offsets(self._partitions, timeout_ms=limit)
        except KafkaError as error:
            self.close()
            raise KafkaUnreachable(self._settings.kafka, error) from None
        for one in self._partitions:
            self._next[one.partition], self._ends[one.partition] = first[one], ends[one]
            self._consumer.seek(one, first[one])

    @property
    def caught_up(self) -> bool:
        """Whether all is read that was there when it was opened."""
        return all(self._next[partition] >= end for partition, end in self._ends.items())

    def poll(self, timeout: float) -> list[Entry]:
        """What comes within so many seconds.

        Raises:
            KafkaError: brokers do not answer.
            LogRewound: nothing that was read holds any more.
        """
        assert self._consumer is not None
        polled = self._consumer.poll(timeout_ms=int(1000 * timeout), max_records=_RECORDS)
        return [entry for records in polled.values() for record in records for entry in self._entry(record)]

    def close(self) -> None:
        """Let go of the brokers."""
        _let_go(self._consumer)

    def _entry(self, record: Any) -> Iterator[Entry]:
        expected = self._next[record.partition]
        if record.offset < expected:
            raise LogRewound(f"partition {record.partition} of {self._topic} has lost records")
        if record.offset > expected:
            logger.error(
                "the commitment log has lost records to retention",
                partition=record.partition,
                first=expected,
                records=record.offset - expected,
            )
        self._next[record.partition] = record.offset + 1
        value = record.value or b""
        try:
            yield entry_of(Location(record.partition, record.offset), len(value), decode(value))
        except CorruptRecord as error:
            where = {"partition": record.partition, "offset": record.offset}
            logger.warning("a record of the commitment log is damaged", **where, error=str(error))


class TopicFetcher:
    """Records again, one after the other, by a consumer that is opened when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.kafka.commitment_topic
        self._consumer: KafkaConsumer | None = None

    def fetch(self, location: Location) -> Record:
        """One record.

        Raises:
            CorruptRecord: it is damaged, or has left the log.
            KafkaError: brokers do not answer.
        """
        consumer = self._opened()
        where = TopicPartition(self._topic, location.partition)
        if consumer.assignment() != {where}:
            consumer.assign([where])
        if consumer.position(where, timeout_ms=int(1000 * _REQUEST)) != location.position:
            consumer.seek(where, location.position)
        deadline = time.monotonic() + _REQUEST
        while time.monotonic() < deadline:
            for record in consumer.poll(timeout_ms=int(1000 * _POLL), max_records=1).get(where, ()):
                if record.offset != location.position:
                    raise CorruptRecord("it has left the log")
                return decode(record.value or b"")
        raise KafkaTimeoutError("the record does not come")

    def offsets_at(self, milliseconds: int) -> dict[int, int]:
        """By partition: the first record that is not older than so many milliseconds since 1970; the end without one.

        Raises:
            KafkaError: brokers do not answer.
        """
        consumer = self._opened()
        partitions = [TopicPartition(self._topic, number) for number in range(self._settings.log.partitions)]
        limit = int(1000 * _REQUEST)
        found = consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds), timeout_ms=limit)
        ends = consumer.end_offsets(partitions, timeout_ms=limit)
        return {
            one.partition: found[one].offset if found.get(one) is not None else ends[one]
            for one in partitions
        }

    def close(self) -> None:
        """Let go of the brokers."""
        _let_go(self._consumer)

    def _opened(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = KafkaConsumer(**reader_options(self._settings.kafka, _REQUEST, 1))
        return self._consumer


def _let_go(consumer: KafkaConsumer | None) -> None:
    if consumer is not None:
        with contextlib.suppress(Exception):  # there is nothing to lose
            consumer.close(autocommit=False, timeout_ms=1000)
