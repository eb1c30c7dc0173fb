"""The commitment log as an administrator sees it, beside a receiver that runs or without one. Nothing is locked."""

import time
from collections.abc import Iterable
from typing import Protocol

from ingest.commitment.rounds import Findings
from ingest.commitment.transaction import Clock, Transaction
from ingest.commitment.transactions import watched
from ingest.contract.commitments import Found, found_of
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import Record
from ingest.contract.settings import Settings
from ingest.contract.spool import Layout, OsDisk, SpoolMissing, read_meta
from ingest.log.commitment_handover import leave_request, waiting_requests
from ingest.log.commitment_log import Entry, Place, Request
from ingest.log.commitment_segments import SegmentReader


class Source(Protocol):
    """Where the records are."""

    partitions: int

    def entries(self) -> Iterable[Entry]:
        """All that are there now."""

    def fetch(self, place: Place) -> Record:
        """One of them, with its payload."""

    def requests(self) -> Iterable[tuple[TransactionId, Request]]:
        """What was asked for and is not in the log yet."""

    def request(self, transaction_id: TransactionId, request: Request) -> None:
        """Ask for something; durable when this returns."""

    def close(self) -> None:
        """Let go."""


class View:
    """All transactions that are open, and what can be asked of them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        clock = Clock(time.monotonic(), time.time_ns())
        self.now = clock.now
        self.transactions = watched()
        for entry in source.entries():
            self.transactions.apply(entry, clock)
        # Of both, what ends it counts.
        self._requested = dict(sorted(source.requests(), key=lambda one: one[1] is Request.EXPIRE))

    def items(self, transaction: Transaction) -> list[Found]:
        """What is known of each instance; those that no worker has come to yet are not there.

        Raises:
            CorruptRecord: a proof is damaged.
        """
        decided = transaction.decided
        last = decided.round if decided is not None else transaction.base + transaction.round
        findings = Findings()
        for place in transaction.proof_places(last):
            findings.add(found_of(self._source.fetch(place)))
        return findings.all()

    def requested(self, transaction_id: TransactionId) -> str | None:
        """What was asked for and no receiver has seen yet."""
        request = self._requested.get(transaction_id)
        return None if request is None else f"{request} asked for"

    def request(self, transaction_id: TransactionId, request: Request) -> None:
        """Ask for something; durable when this returns."""
        self._source.request(transaction_id, request)

    def close(self) -> None:
        """Let go of the log."""
        self._source.close()


def opened_view(settings: Settings) -> View:
    """The view of the log that the settings choose.

    Raises:
        KafkaUnreachable: the log is Kafka, and no broker answers.
        SpoolMismatch: another release made the log.
        OSError: the disk's.
    """
    if settings.log.kind == "kafka":
        # The client is an extra that one machine does not need.
        from ingest.cli.commitment_topic_view import TopicSource  # noqa: PLC0415 - see above

        return View(TopicSource(settings))
    return View(SpoolSource(settings))


class SpoolSource:
    """The log of one machine."""

    partitions = 1

    def __init__(self, settings: Settings) -> None:
        self._data = settings.data
        self._disk = OsDisk()
        layout = Layout(settings.data / "commitments")
        self._reader: SegmentReader | None = None
        self._end = 0
        try:
            meta = read_meta(self._disk, layout)
        except SpoolMissing:
            return  # nothing was ever asked for
        counter = self._disk.counter(layout.durable_end)
        self._end = counter.load()
        counter.close()
        self._reader = SegmentReader(self._disk, layout, meta, self._end)

    def entries(self) -> Iterable[Entry]:
        """See `Source`."""
        if self._reader is not None:
            while self._reader.position < self._end:
                yield from self._reader.read(self._end)

    def fetch(self, place: Place) -> Record:
        """See `Source`."""
        assert self._reader is not None
        return self._reader.fetch(place)

    def requests(self) -> Iterable[tuple[TransactionId, Request]]:
        """See `Source`."""
        return waiting_requests(self._disk, self._data)

    def request(self, transaction_id: TransactionId, request: Request) -> None:
        """See `Source`."""
        leave_request(self._disk, self._data, transaction_id, request)

    def close(self) -> None:
        """See `Source`."""
        if self._reader is not None:
            self._reader.close()
