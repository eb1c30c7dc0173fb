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
from ingest.contract.spool import OsDisk
from ingest.log.commitment_handover import leave_request, waiting_requests
from ingest.log.commitment_log import Entry, Location, Request
from ingest.log.commitment_segments import opened_beside


class Records(Protocol):
    """Where the records are."""

    partitions: int

    def entries(self) -> Iterable[Entry]:
        """All that are there now."""

    def fetch(self, location: Location) -> Record:
        """One of them, with its payload."""

    def requests(self) -> Iterable[tuple[TransactionId, Request]]:
        """What was asked for and is not in the log yet."""

    def request(self, transaction_id: TransactionId, request: Request) -> None:
        """Ask for something; durable when this returns."""

    def close(self) -> None:
        """Let go."""


class View:
    """All transactions that are open, and what can be asked of them."""

    def __init__(self, records: Records) -> None:
        self._records = records
        clock = Clock(time.monotonic(), time.time_ns())
        self.now = clock.now
        self.transactions = watched()
        for entry in records.entries():
            self.transactions.apply(entry, clock)
        # Of both, what ends it counts.
        self._requested = dict(sorted(records.requests(), key=lambda one: one[1] is Request.EXPIRE))

    def items(self, transaction: Transaction) -> list[Found]:
        """What is known of each instance; those that no worker has come to yet are not there.

        Raises:
            CorruptRecord: a proof is damaged.
        """
        decided = transaction.decided
        last = decided.round if decided is not None else transaction.base + transaction.round
        findings = Findings()
        for location in transaction.proof_locations(last):
            findings.add(found_of(self._records.fetch(location)))
        return findings.all()

    def requested(self, transaction_id: TransactionId) -> str | None:
        """What was asked for and no receiver has seen yet."""
        request = self._requested.get(transaction_id)
        return None if request is None else f"{request} asked for"

    def request(self, transaction_id: TransactionId, request: Request) -> None:
        """Ask for something; durable when this returns."""
        self._records.request(transaction_id, request)

    def close(self) -> None:
        """Let go of the log."""
        self._records.close()


def opened_view(settings: Settings) -> View:
    """The view of the log that the settings choose.

    Raises:
        KafkaUnreachable: the log is Kafka, and no broker answers.
        SpoolMismatch: another release made the log.
        OSError: the disk's.
    """
    if settings.log.kind == "kafka":
        # The client is an extra that one machine does not need.
        from ingest.cli.commitment_topic_view import TopicRecords  # noqa: PLC0415 - see above

        return View(TopicRecords(settings))
    return View(SpoolRecords(settings))


class SpoolRecords:
    """The log of one machine."""

    partitions = 1

    def __init__(self, settings: Settings) -> None:
        self._data = settings.data
        self._disk = OsDisk()
        self._beside = opened_beside(self._disk, settings.data)

    def entries(self) -> Iterable[Entry]:
        """See `Records`."""
        return () if self._beside is None else self._beside.reader.read_all(self._beside.durable_end)

    def fetch(self, location: Location) -> Record:
        """See `Records`."""
        assert self._beside is not None
        return self._beside.reader.fetch(location)

    def requests(self) -> Iterable[tuple[TransactionId, Request]]:
        """See `Records`."""
        return waiting_requests(self._disk, self._data)

    def request(self, transaction_id: TransactionId, request: Request) -> None:
        """See `Records`."""
        leave_request(self._disk, self._data, transaction_id, request)

    def close(self) -> None:
        """See `Records`."""
        if self._beside is not None:
            self._beside.reader.close()
