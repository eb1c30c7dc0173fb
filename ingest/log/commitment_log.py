"""The commitment log as this side sees it: what was written of each transaction, in one order for all of its records.

::

    log = commitment_log_of(settings)
    await log.start()                          # recovered or connected; what it holds so far is handed out first
    for entry in await log.read(1.0): ...      # in order, own records included; `caught_up` once the start was reached
    location = await log.publish([Written(transaction_id, CommitDecided(...))])     # durable when it returns
    record = await log.fetch(entry.location)      # with its payload
    await log.close()
"""

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from crc32c import crc32c

from ingest.contract.commitments import (
    CommitAsked,
    CommitAttempted,
    CommitClosed,
    Commitment,
    CommitProved,
    CommitRequested,
    Finding,
    Found,
    Reference,
    commitment_of,
    encode_references,
    found_of,
    kind_of,
)
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import CorruptRecord, Record, encode_header
from ingest.log.commitment_claimant import Claimant


class Location(NamedTuple):
    """Where a record is; positions grow within a partition."""

    partition: int
    position: int


class Written(NamedTuple):
    """A record to write."""

    transaction_id: TransactionId
    commitment: Commitment
    found: Sequence[Reference] | Sequence[Found] = ()
    carried: bool = False

    def encode(self) -> tuple[bytes, memoryview]:
        """Header and payload."""
        has_instances = isinstance(self.commitment, CommitProved | CommitRequested)  # be there none
        payload = encode_references(self.found) if has_instances else memoryview(b"")
        kind = kind_of(self.commitment)
        index = int(self.carried)
        return encode_header(kind, self.transaction_id, index, self.commitment, [payload]), payload


class Entry(NamedTuple):
    """A record that was read, without its payload: ten thousand transactions must fit in memory."""

    location: Location
    size: int  # bytes
    transaction_id: TransactionId
    commitment: Commitment
    carried: bool = False  # written again, since it was about to leave the log
    stamp: int = 0  # the same for a record and what was carried forward of it, and hardly for another
    absent: int = 0  # of COMMIT_PROVED: findings of that kind
    unavailable: int = 0


class Request(enum.StrEnum):
    """What an administrator may ask for, of an open transaction."""

    RETRY = "retry"  # send the report now, and for as long as a new one
    EXPIRE = "expire"  # give it up


class CommitmentLog(Protocol):
    """Owned by one event loop."""

    partitions: int
    shared: bool  # other receivers write to it, too
    claimant: Claimant | None  # who we are among them, once it is started
    carry_every: tuple[float, float]  # s, from and to, between two looks at `threshold`, once it is started
    remembers: int  # closed transactions that there is room for
    expecting: bool  # set by its owner: transactions are open
    promised: int  # set by its owner: bytes that the records of all transactions may come to
    caught_up: bool  # all that was there at the start has been handed out

    async def start(self) -> None:
        """Recover or connect."""

    async def publish(self, records: Sequence[Written]) -> Location:
        """Make records durable, in their order; the location of the last.

        Raises:
            OutOfResources: there is no room.
            LogUnavailable: it is not known whether they are durable.
        """

    async def read(self, timeout: float) -> Sequence[Entry]:  # noqa: ASYNC109 - a bound on idleness, not on an operation
        """What comes next, own records included; nothing after ``timeout`` seconds.

        Raises:
            LogUnavailable: nothing can be read any more; the process must end.
        """

    def passed(self, location: Location) -> bool:
        """Whether all up to this location has been handed out."""

    async def fetch(self, location: Location) -> Record:
        """A record that was handed out, once more.

        Raises:
            LogUnavailable: not now.
            CorruptRecord: it is damaged, or has left the log.
        """

    async def make_room(self, size: int, promised: int) -> None:
        """See that ``size`` bytes can be written now, and all that is ``promised`` then be finished.

        Raises:
            OutOfResources: not now.
        """

    async def threshold(self) -> dict[int, int]:
        """By partition: what lies below this position will soon leave the log, and is to be carried forward.

        Empty where nothing needs to be.
        """

    def release(self, position: int) -> None:
        """Nothing below is needed any more, where the log has one partition; Kafka goes by time."""

    async def close(self) -> None:
        """Let go."""


def entry_of(location: Location, size: int, record: Record) -> Entry:
    """An entry of the log.

    Raises:
        CorruptRecord: it does not belong there.
    """
    commitment = commitment_of(record)
    if isinstance(commitment, CommitAsked):
        raise CorruptRecord("a fence is no record of the commitment log")
    absent = unavailable = 0
    if isinstance(commitment, CommitProved):
        for found in found_of(record):
            absent += found.finding is Finding.ABSENT
            unavailable += found.finding is Finding.UNAVAILABLE
    stamp = crc32c(record.payload, crc32c(record.metadata))
    identity = TransactionId(record.upload_id)
    return Entry(location, size, identity, commitment, bool(record.index), stamp, absent, unavailable)


def request_record(request: Request, wall: int) -> Commitment:
    """What an administrator's request is in the log."""
    if request is Request.EXPIRE:
        return CommitClosed("expired", 0, 0, wall)
    return CommitAttempted(0, "retry asked for", 0.0, wall)
