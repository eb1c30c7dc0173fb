"""The commitment topic as an administrator sees it."""

import time
from collections.abc import Iterable
from contextlib import closing
from typing import Final

from kafka.errors import KafkaError

from ingest.contract.identifiers import TransactionId
from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.records import Record
from ingest.contract.settings import Settings
from ingest.log.commitment_log import Entry, Location, Request, Written, request_record
from ingest.log.commitment_reader import TopicFetcher, TopicReader
from ingest.log.kafka_client import end_producer, open_producer

_TIMEOUT: Final = 30.0  # s
_POLL: Final = 0.2  # s
_CLOSE: Final = 2.0  # s


class TopicRecords:
    """See `commitment_view.Records`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fetcher = TopicFetcher(settings)
        self.partitions = settings.log.partitions

    def entries(self) -> Iterable[Entry]:
        """See `Records`."""
        reader = TopicReader(self._settings)
        reader.open(_TIMEOUT)
        with closing(reader):
            while not reader.caught_up:
                try:
                    yield from reader.poll(_POLL)
                except KafkaError as error:
                    raise KafkaUnreachable(self._settings.kafka, error) from None

    def fetch(self, location: Location) -> Record:
        """See `Records`."""
        try:
            return self._fetcher.fetch(location)
        except KafkaError as error:
            raise KafkaUnreachable(self._settings.kafka, error) from None

    def requests(self) -> Iterable[tuple[TransactionId, Request]]:
        """See `Records`: what is asked for is in the log at once."""
        return ()

    def request(self, transaction_id: TransactionId, request: Request) -> None:
        """See `Records`."""
        kafka = self._settings.kafka
        header, _ = Written(transaction_id, request_record(request, time.time_ns())).encode()
        producer = open_producer(kafka, _TIMEOUT)
        try:
            home = transaction_id.home(self.partitions)
            producer.send(kafka.commitment_topic, header, partition=home).get(_TIMEOUT)
        except KafkaError as error:
            raise KafkaUnreachable(kafka, error) from None
        finally:
            end_producer(producer, _CLOSE)

    def close(self) -> None:
        """See `Records`."""
        self._fetcher.close()
