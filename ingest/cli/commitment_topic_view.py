"""The commitment topic as an administrator sees it."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import closing
from typing import Final

from kafka.errors import KafkaError

from ingest.contract.identifiers import TransactionId
from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.producer import Outgoing, TopicProducer
from ingest.contract.records import Record
from ingest.contract.settings import Settings
from ingest.log.commitment_log import Entry, Location, Request, Written, request_record
from ingest.log.commitment_reader import TopicFetcher, TopicReader

_TIMEOUT: Final = 30.0  # s
_POLL: Final = 0.2  # s


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
        header, _ = Written(transaction_id, request_record(request, time.time_ns())).encode()
        asyncio.run(self._send(Outgoing(transaction_id.home(self.partitions), header)))

    async def _send(self, outgoing: Outgoing) -> None:
        producer = TopicProducer(self._settings.kafka, self._settings.kafka.commitment_topic)
        try:
            await producer.send([outgoing])
        finally:
            await producer.close()

    def close(self) -> None:
        """See `Records`."""
        self._fetcher.close()
