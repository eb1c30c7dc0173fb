"""Leader epochs (KIP-320): whether a partition still holds what was read of it.

Each leader of a partition stamps what it appends with its epoch, and brokers know where every epoch ends in their log.
One that ends before what was read under it has lost records: by a power cut, or because a replica that lacked them
was made leader. Their positions go to other records, and who went on from where he was would pass these over.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, LeaderNotAvailableError, for_code
from kafka.protocol.consumer.offsets import OffsetForLeaderEpochRequest

UNKNOWN: Final = -1  # of a commit that tells none, and where brokers know of none


class EpochEnd(NamedTuple):
    """What a leader has of an epoch: the newest not newer than it, and the position behind its last record."""

    epoch: int
    position: int


class LeaderEpochs:
    """The epochs of what was read of one partition."""

    def __init__(self, epoch: int, end: int) -> None:
        """``epoch``: of the last record that the account speaks of; ``end``: the position behind it."""
        self.end = end
        self._first = [0]
        self._epochs = [epoch]

    @property
    def last(self) -> int:
        """The epoch of the last record before ``end``."""
        return self._epochs[-1]

    def add(self, position: int, epoch: int) -> None:
        """The record at ``position`` was read."""
        self.end = max(self.end, position + 1)
        if epoch > self.last:
            self._first.append(position)
            self._epochs.append(epoch)

    def before(self, position: int) -> int:
        """The epoch of the last record before ``position``."""
        return self._epochs[max(bisect_left(self._first, position) - 1, 0)]


def epoch_ends(
    consumer: KafkaConsumer, epochs: Mapping[TopicPartition, int], timeout: int
) -> dict[TopicPartition, EpochEnd]:
    """Where the leaders of these partitions end these epochs; ``timeout`` in milliseconds.

    Raises:
        KafkaError: one of them does not answer, or leads no more.
    """
    cluster = consumer._manager.cluster  # noqa: SLF001 - the client asks this for itself only (3.0.12)
    by_leader: dict[int, list[TopicPartition]] = defaultdict(list)
    for place in epochs:
        leader = cluster.leader_for_partition(place)
        if leader is None or leader == UNKNOWN:
            cluster.request_update()
            raise LeaderNotAvailableError
        by_leader[leader].append(place)
    found: dict[TopicPartition, EpochEnd] = {}
    for leader, places in by_leader.items():
        response = consumer._net.run(_ask, consumer, leader, _request(cluster, places, epochs), timeout)  # noqa: SLF001 - see above
        for topic in response.topics:
            for partition in topic.partitions:
                if partition.error_code:
                    cluster.request_update()
                    raise for_code(partition.error_code)
                place = TopicPartition(topic.topic, partition.partition)
                found[place] = EpochEnd(partition.leader_epoch, partition.end_offset)
    return found


def go_on(
    consumer: KafkaConsumer, place: TopicPartition, epochs: LeaderEpochs, records: Sequence[Any], timeout: int
) -> bool:
    """Whether these follow in a log that still has all that was read before; no, too, where its leader does not say.

    Then they are noted as read. Asked only at a record of another leader; ``timeout`` in milliseconds.
    """
    for record in records:
        if record.leader_epoch > epochs.last != UNKNOWN:
            try:
                found = epoch_ends(consumer, {place: epochs.last}, timeout)[place]
            except KafkaError:
                return False
            if found.position < epochs.end:
                return False
        epochs.add(record.offset, record.leader_epoch)
    return True


async def _ask(consumer: KafkaConsumer, leader: int, request: OffsetForLeaderEpochRequest, limit: int) -> Any:
    """On the client's own thread; ``limit`` in milliseconds."""
    manager = consumer._manager  # noqa: SLF001 - see above
    return await manager.wait_for(manager.send(request, node_id=leader), limit)


def _request(
    cluster: Any, places: list[TopicPartition], epochs: Mapping[TopicPartition, int]
) -> OffsetForLeaderEpochRequest:
    topics = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    by_topic: dict[str, list[Any]] = defaultdict(list)
    for place in places:
        known = cluster.leader_epoch_for_partition(place)
        by_topic[place.topic].append(
            topics.OffsetForLeaderPartition(
                partition=place.partition,
                # A leader that has been replaced, and does not know it yet, says so instead of answering.
                current_leader_epoch=UNKNOWN if known is None else known,
                leader_epoch=epochs[place],
            )
        )
    return OffsetForLeaderEpochRequest(replica_id=-1, topics=list(by_topic.items()))
