"""What is to be sent to one partition, in its order, each batch until brokers have it. Pure.

A batch has its sequence numbers and its bytes once and for all, so that brokers know one that they have (KIP-98), however often
it is sent. Where one fails, those sent behind it fail with it: all of them are sent again, once none is under way.
"""

import asyncio
from collections import deque
from typing import Final

from ingest.contract.kafka import MAXIMUM_MESSAGE
from ingest.contract.producer.record_batch import (
    HEAD,
    MOST_OVERHEAD,
    Piece,
    ProducerId,
    RecordBatch,
    encode_batch,
)

_SEQUENCES: Final = 1 << 31  # the number behind the last is 0
# Brokers that know nothing of a producer, or no more (producer.id.expiration.ms, a day), take any number from it: the second of
# two batches, where they refuse the first. So until one is acknowledged, and after so long without, there is one under way.
_KNOWN_FOR: Final = 3600_000  # ms


class OutOfOrder(Exception):  # noqa: N818 - named for the fact
    """A batch was acknowledged while one sent before it was not: brokers have another order than we do."""


class Sent:
    """A record on its way: its bytes, whose it is, and since when (s, monotonic).

    ``offset``: where it stands in its partition; ``appended_at``: ms, by the clock of the broker that has appended it; both 0 until
    then.
    """

    __slots__ = ("appended_at", "at", "future", "offset", "owner", "value")

    def __init__(self, value: Piece, future: asyncio.Future[None], owner: object, at: float) -> None:
        self.value = value
        self.future = future
        self.owner = owner
        self.at = at
        self.offset = 0
        self.appended_at = 0


class Batch:
    """Records that are sent together."""

    __slots__ = ("encoded", "records", "timestamp")

    def __init__(self, records: list[Sent], encoded: RecordBatch, timestamp: int) -> None:
        self.records = records
        self.encoded = encoded
        self.timestamp = timestamp  # ms since 1970


class PartitionQueue:
    """One partition's records, from `add` until they are acknowledged."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._waiting: deque[Sent] = deque()  # in no batch yet
        self._batches: deque[Batch] = deque()  # not acknowledged; the first ``_taken`` were sent
        self._taken = 0
        self._under_way = 0
        self._again = False  # one has failed
        self._node = -1  # to which those under way were sent
        self._sequence = 0  # of the next record
        self._known_until = 0  # ms since 1970: brokers know us

    def add(self, sent: Sent) -> None:
        """One more record, behind all others."""
        self._waiting.append(sent)

    @property
    def has_more(self) -> bool:
        """Whether there is something that was not sent yet, or is to be sent again."""
        return self._again or bool(self._waiting) or self._taken < len(self._batches)

    def take(self, node: int, producer: ProducerId, timestamp: int) -> Batch | None:
        """The batch to be sent next, to the broker ``node``; None while there is none, or others must come back first."""
        if self._under_way and (self._again or node != self._node or timestamp >= self._known_until):
            return None
        if self._again:
            self._again, self._taken = False, 0
        if self._taken == len(self._batches):
            if not self._waiting:
                return None
            self._batches.append(self._encode(producer, timestamp))
        batch = self._batches[self._taken]
        self._taken += 1
        self._under_way += 1
        self._node = node
        return batch

    def _encode(self, producer: ProducerId, timestamp: int) -> Batch:
        records = [self._waiting.popleft()]
        size = HEAD + MOST_OVERHEAD + len(records[0].value)
        while self._waiting:
            size += MOST_OVERHEAD + len(self._waiting[0].value)
            if size > MAXIMUM_MESSAGE:
                break
            records.append(self._waiting.popleft())
        encoded = encode_batch([one.value for one in records], producer, self._sequence, timestamp)
        self._sequence = (self._sequence + len(records)) % _SEQUENCES
        return Batch(records, encoded, timestamp)

    def is_first(self, batch: Batch) -> bool:
        """Whether all before it are acknowledged."""
        return self._batches[0] is batch

    def acknowledged(self, batch: Batch) -> bool:
        """Brokers have it; whether that counts: behind one that failed it is sent again with it, and known by then.

        Raises:
            OutOfOrder: see there.
        """
        if not self.is_first(batch) and not self._again:
            raise OutOfOrder
        self._under_way -= 1
        if not self.is_first(batch):
            return False
        self._batches.popleft()
        self._taken -= 1
        self._known_until = batch.timestamp + _KNOWN_FOR
        return True

    def failed(self) -> None:
        """It may be that brokers have one of them not: all are sent again."""
        self._under_way -= 1
        self._again = True
