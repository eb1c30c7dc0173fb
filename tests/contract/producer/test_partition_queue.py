"""One partition's records against a broker that loses connections, refuses, and answers late: in order, and once."""

import random
from collections import deque

import pytest
from kafka.record import MemoryRecords

from ingest.contract.producer.partition_queue import Batch, OutOfOrder, PartitionQueue, Sent
from ingest.contract.producer.record_batch import ProducerId

ID = ProducerId(1, 0)
KNOWN = 5  # batches of a producer that a broker remembers


def record(number: int, size: int = 0) -> Sent:
    return Sent(b"%d," % number + bytes(size), future=None, owner=number, at=0.0)  # type: ignore[arg-type]


class Leader:
    """The log of a partition, as idempotent producers are promised it (KIP-98)."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.known: deque[tuple[int, int]] = deque(maxlen=KNOWN)  # first sequence and count of a batch
        self.next = 0

    def append(self, batch: Batch) -> str:
        found = MemoryRecords(b"".join(batch.encoded.pieces)).next_batch()
        assert found.validate_crc()
        values = [one.value for one in found]
        if (found.base_sequence, len(values)) in self.known:
            return "known"
        if not self.known:
            self.next = (
                found.base_sequence
            )  # of a producer that they know nothing of, brokers take any number
        if found.base_sequence != self.next:
            return "out of order"
        self.known.append((found.base_sequence, len(values)))
        self.next += len(values)
        self.values += values
        return "appended"


def known_queue() -> PartitionQueue:
    """Of a producer that brokers know already."""
    queue = PartitionQueue(0)
    queue._known_until = 1
    return queue


def run(seed: int, records: int = 60) -> None:
    rng = random.Random(seed)
    queue, leader = PartitionQueue(0), Leader()
    under_way: deque[Batch] = deque()
    node, added, acknowledged = 0, 0, 0
    while acknowledged < records:
        what = rng.random()
        if what < 0.35 and added < records:
            queue.add(record(added, rng.choice([0, 1000, 900_000])))
            added += 1
        elif what < 0.6 and len(under_way) < KNOWN:
            if rng.random() < 0.1:
                node = 1 - node  # another leads; what was sent to the first still has to come back
            batch = queue.take(node, ID, 0)
            if batch is not None:
                under_way.append(batch)
        elif what < 0.65:
            # The connection is lost: some of what was sent has come to the broker, no answer comes back.
            for batch in list(under_way)[: rng.randint(0, len(under_way))]:
                leader.append(batch)
            for _ in range(len(under_way)):
                queue.failed()
            under_way.clear()
        elif under_way:
            batch = under_way.popleft()
            answer = "refused" if rng.random() < 0.1 else leader.append(batch)
            assert answer != "out of order" or not queue.is_first(batch)
            if answer in ("refused", "out of order"):
                queue.failed()
            elif queue.acknowledged(batch):
                assert [one.owner for one in batch.records] == list(
                    range(acknowledged, acknowledged + len(batch.records))
                )
                acknowledged += len(batch.records)
    assert not queue.has_more
    assert [int(value.partition(b",")[0]) for value in leader.values] == list(range(records))


@pytest.mark.parametrize("seed", range(100))
def test_each_record_once_and_in_order(seed: int) -> None:
    """Whatever fails when: what is acknowledged is in the log, nothing stands there twice, and the order is that of `add`."""
    run(seed)


def test_records_that_wait_share_a_batch() -> None:
    """As many as a batch may hold; one that is sent is left as it is."""
    queue = known_queue()
    queue.add(record(0))
    first = queue.take(0, ID, 0)
    for number in range(1, 4):
        queue.add(record(number, 900_000))
    second, third = queue.take(0, ID, 0), queue.take(0, ID, 0)
    assert first is not None
    assert second is not None
    assert third is not None
    assert [[one.owner for one in batch.records] for batch in (first, second, third)] == [[0], [1, 2], [3]]
    assert queue.take(0, ID, 0) is None


def test_another_leader_waits_for_what_is_with_the_first() -> None:
    """Else both might append it."""
    queue = PartitionQueue(0)
    queue.add(record(0))
    first = queue.take(0, ID, 0)
    queue.add(record(1))
    assert queue.take(1, ID, 0) is None
    queue.failed()
    assert queue.take(1, ID, 0) is first


def test_until_brokers_know_us_one_batch_is_under_way() -> None:
    """They would take the second, where they refuse the first, and never the first again."""
    queue = PartitionQueue(0)
    queue.add(record(0))
    first = queue.take(0, ID, 1000)
    queue.add(record(1))
    assert first is not None
    assert queue.take(0, ID, 1000) is None
    assert queue.acknowledged(first)
    second = queue.take(0, ID, 1000)
    queue.add(record(2))
    assert second is not None
    assert queue.take(0, ID, 1000) is not None
    assert queue.acknowledged(second)
    queue.add(record(3))
    assert queue.take(0, ID, 1000 + 2 * 3600_000) is None, "they may have forgotten us"


def test_an_order_of_the_brokers_own_is_an_error() -> None:
    """A later batch is acknowledged before an earlier one: nothing may be said of either."""
    queue = known_queue()
    batches = []
    for number in range(2):
        queue.add(record(number))
        batches.append(queue.take(0, ID, 0))
    assert batches[1] is not None
    with pytest.raises(OutOfOrder):
        queue.acknowledged(batches[1])


def test_sequence_numbers_begin_anew() -> None:
    """Behind 2**31 - 1 comes 0."""
    queue = known_queue()
    queue._sequence = 2**31 - 1
    found = []
    for number in range(2):
        queue.add(record(number))
        batch = queue.take(0, ID, 0)
        assert batch is not None
        found.append(MemoryRecords(b"".join(batch.encoded.pieces)).next_batch().base_sequence)
    assert found == [2**31 - 1, 0]
