"""A worker's reader on a real broker without the worker, and what its group has committed."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from ingest.contract.settings import Settings
from workers.log.commit_metadata import OffsetCheckpoint, decode_metadata
from workers.log.kafka_consumer import KafkaReader
from workers.log.offset_progress import OffsetProgress

if TYPE_CHECKING:
    from workers.log.entries import Entry


class Member:
    """A reader of a consumer group whose partitions and entries are kept."""

    def __init__(self, settings: Settings) -> None:
        self.owned: dict[int, OffsetProgress] = {}
        self.dropped: list[int] = []
        self.entries: list[Entry] = []
        self.reader = KafkaReader(settings, self.add, self.drop)

    def add(self, progress: OffsetProgress) -> None:
        """See `KafkaReader`."""
        assert progress.partition not in self.owned
        self.owned[progress.partition] = progress

    def drop(self, partition: int) -> None:
        """See `KafkaReader`."""
        del self.owned[partition]
        self.dropped.append(partition)

    def read(self) -> None:
        """What has come."""
        for entry in self.reader.read():
            self.entries.append(entry)
            self.owned[entry.partition].advance(entry.next_position)

    async def commit(self) -> None:
        """All that was read."""
        checkpoints = [progress.checkpoint() for progress in self.owned.values()]
        await self.reader.write(checkpoints)

    def positions(self, partition: int) -> list[int]:
        """Of what was read of a partition, in that order."""
        return [entry.position for entry in self.entries if entry.partition == partition]


async def until(condition: Callable[[], bool], *members: Member) -> None:
    """Read until something is so."""
    async with asyncio.timeout(240):
        while not condition():
            for member in members:
                member.read()
                if member.reader.failed.done():
                    await member.reader.failed
            await asyncio.sleep(0.01)


def committed(settings: Settings, partition: int) -> OffsetCheckpoint:
    """What the group has committed of a partition."""
    kafka = settings.kafka
    with closing(KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=kafka.group)) as consumer:
        found = consumer.committed(TopicPartition(kafka.instance_topic, partition), metadata=True)
        return decode_metadata(partition, found.offset, found.metadata)


def commit_by_hand(settings: Settings, partition: int, offset: int, metadata: str) -> None:
    """What another program would commit."""
    kafka = settings.kafka
    with closing(
        KafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers, group_id=kafka.group, enable_auto_commit=False
        )
    ) as consumer:
        place = TopicPartition(kafka.instance_topic, partition)
        consumer.assign([place])
        consumer.commit({place: OffsetAndMetadata(offset, metadata, -1)})
