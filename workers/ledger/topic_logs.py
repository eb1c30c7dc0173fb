"""The logs of many machines: the outcome topic and, with commitment, the commitment topic."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from ingest.contract.kafka import KafkaUnreachable, reader_options
from ingest.contract.records import CorruptRecord, NewerRecord, Record, decode
from ingest.contract.settings import Settings
from workers.ledger.logs import Batch

_BOOTSTRAP: Final = 10.0  # s
_ANSWER: Final = 30.0  # s without a record that is known to be there
_POLL: Final = 0.5  # s
_RECORDS: Final = 2000  # of one poll, and so of few transactions


class TopicLogs:
    """See `Logs`. No consumer group: how far each partition is read is in the database."""

    def __init__(self, settings: Settings) -> None:
        """Connect.

        Raises:
            KafkaUnreachable: no broker answers, or none lets us in.
        """
        self._settings = settings
        kafka = settings.kafka
        topics = [kafka.outcome_topic, *([kafka.commitment_topic] if settings.commitment.enabled else ())]
        self._places = [
            TopicPartition(topic, number) for topic in topics for number in range(settings.log.partitions)
        ]
        with self._clear_errors():
            self._consumer = KafkaConsumer(**reader_options(kafka, _BOOTSTRAP, _RECORDS))
            self._consumer.assign(self._places)

    def read(self, positions: Mapping[str, int]) -> Sequence[Batch]:
        """See `Logs.read`."""
        with self._clear_errors():
            limit = int(1000 * _ANSWER)
            first = self._consumer.beginning_offsets(self._places, timeout_ms=limit)
            ends = self._consumer.end_offsets(self._places, timeout_ms=limit)
            if rewound := list(_rewound(positions, first, ends)):
                return rewound
            starts = {place: max(positions.get(_name(place), 0), first[place]) for place in first}
            behind = [place for place in self._places if starts[place] < ends[place]]
            if not behind:
                return []
            for place, start in starts.items():
                if self._consumer.position(place, timeout_ms=limit) != start:
                    self._consumer.seek(place, start)
            deadline = time.monotonic() + _ANSWER
            while time.monotonic() < deadline:
                polled = self._consumer.poll(timeout_ms=int(1000 * _POLL), max_records=_RECORDS)
                if polled:
                    return [
                        _batch(place, positions.get(_name(place), 0), records)
                        for place, records in polled.items()
                        if records
                    ]
        raise KafkaUnreachable(self._settings.kafka, TimeoutError())

    def close(self) -> None:
        """See `Logs.close`."""
        with contextlib.suppress(Exception):  # there is nothing to lose
            self._consumer.close(autocommit=False, timeout_ms=1000)

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            raise KafkaUnreachable(self._settings.kafka, error) from None


def _name(place: TopicPartition) -> str:
    return f"{place.topic}/{place.partition}"


def _rewound(
    positions: Mapping[str, int], first: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> Iterator[Batch]:
    """Of what ends before what was read of it: from its start again, and a part of what it was may have been missed.

    The topic was made anew, or brokers have lost records. Told before there is anything to read, for what comes may
    soon reach beyond the old position; and what is entered already is not entered again.
    """
    for place, end in ends.items():
        position = positions.get(_name(place), 0)
        if position > end:
            yield Batch(_name(place), position, first[place], [], 1)


def _batch(place: TopicPartition, before: int, records: Sequence[Any]) -> Batch:
    # Offsets that are not there were taken by retention; those before a new ledger `rebuild` brings in.
    lost = int(before > 0 and records[0].offset != before)
    return Batch(_name(place), before, records[-1].offset + 1, list(_decoded(records)), lost)


def _decoded(records: Sequence[Any]) -> Iterator[Record]:
    for record in records:
        try:
            yield decode(record.value or b"")
        except NewerRecord:
            raise
        except CorruptRecord:
            continue  # announced again, or its writer has told of it
