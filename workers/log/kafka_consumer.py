"""Reads the partitions that the consumer group gives this worker, and commits their accounts; counterpart of `SpoolReader`.

reader = KafkaReader(settings, added=worker.add ..., dropped=worker.drop)
await reader.start()               # from now on partitions come and go, by calls of these two
entries = reader.read()            # LogRecord and DamagedRecord, in the order of each partition
await reader.wait(1.0)             # until there may be more, at most so long
await reader.write(checkpoints)    # commits
await reader.close()               # gives everything back

Three threads: the event loop's, the poller's (`KafkaPoller`), which alone calls the consumer, and the client's own.
"""

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.settings import Settings
from workers.errors import Unavailable
from workers.log.commit_metadata import OffsetCheckpoint
from workers.log.entries import Entry
from workers.log.kafka_poller import CLOSE, KafkaPoller
from workers.log.offset_progress import OffsetProgress
from workers.log.ownership import Batch, Ownership

MAXIMUM_READ: Final = 4 << 20  # bytes of records in one read
_RETRY_AFTER: Final = 1.0  # seconds

logger = structlog.get_logger(__name__)


class KafkaReader:
    """Entries of the partitions of the moment, each from where its commit says. Owned by one event loop."""

    def __init__(
        self,
        settings: Settings,
        added: Callable[[OffsetProgress], None],
        dropped: Callable[[int], None],
    ) -> None:
        """``added``: of a partition with its account; ``dropped``: it is another's, and no entry of it follows."""
        self._settings = settings
        self._added = added
        self._dropped = dropped
        self._owned: dict[int, tuple[Ownership, OffsetProgress]] = {}
        self._entries: deque[Batch] = deque()
        self._more = asyncio.Event()

    @property
    def failed(self) -> asyncio.Future[None]:
        """Fails when nothing can be read any more: the process must end."""
        return self._failed

    async def start(self) -> None:
        """Join the group.

        Raises:
            KafkaUnreachable, TopicMismatch: see `ingest.contract.kafka`.
        """
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        self._context = contextvars.copy_context()  # says in telemetry which process it is
        self._poller = KafkaPoller(self._settings, self._call, self)
        await asyncio.to_thread(self._poller.open)
        self._poller.start()

    def read(self) -> Sequence[Entry]:
        """What came next, up to about `MAXIMUM_READ` bytes of records."""
        entries: list[Entry] = []
        size = 0
        while self._entries and size < MAXIMUM_READ:
            batch = self._entries.popleft()
            entries += batch.entries
            size += batch.size
        self._poller.take(size)
        return entries

    def read_to(self, partition: int) -> int:
        """See `Reader.read_to`: entries say it themselves, as every position of a topic holds a record."""
        return self._owned[partition][1].read_to

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on idleness, not on an operation
        """Wait until something came, at most ``timeout`` seconds."""
        self._more.clear()
        if self._entries:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._more.wait()

    async def end_of(self, partition: int) -> int:
        """See `Reader.end_of`."""
        return await self._answer(self._poller.ask_end(partition))

    async def write(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Commit; see `CheckpointWriter`. What is not ours any more is passed over."""
        offers = []
        for checkpoint in checkpoints:
            assert isinstance(checkpoint, OffsetCheckpoint)
            owned = self._owned.get(checkpoint.partition)
            if owned is not None:
                ownership, _ = owned
                # What the client's thread commits should the partition be revoked.
                ownership.offered = checkpoint
                offers.append((ownership, checkpoint))
        if offers:
            await self._answer(self._poller.ask_commit(offers))

    async def close(self, *, in_vain: bool = False) -> None:
        """Commit what was offered, leave the group and let go, in a few seconds at most.

        ``in_vain``: an error ends the process. Then its partitions count as if it had been killed: one of their uploads
        may be what ends every owner.
        """
        self._poller.stop(in_vain=in_vain)
        if not await asyncio.to_thread(self._poller.join_within, CLOSE):
            logger.warning(
                "the consumer group was not left in time; it will miss this worker only after a while"
            )

    def on_taken(self, ownership: Ownership, checkpoint: OffsetCheckpoint, end: int) -> None:
        """A partition is ours from now on, and that is committed."""
        progress = OffsetProgress(checkpoint, end)
        self._owned[ownership.partition] = ownership, progress
        self._added(progress)
        self._more.set()

    def on_gone(self, ownership: Ownership) -> None:
        """A partition is ours no more; so are its entries that nobody has read."""
        owned = self._owned.get(ownership.partition)
        if owned is None or owned[0] is not ownership:
            return
        del self._owned[ownership.partition]
        gone = [batch for batch in self._entries if batch.ownership is ownership]
        for batch in gone:
            self._entries.remove(batch)
        self._poller.take(sum(batch.size for batch in gone))
        self._dropped(ownership.partition)

    def on_batch(self, batch: Batch) -> None:
        """Entries of a partition."""
        owned = self._owned.get(batch.ownership.partition)
        if owned is None or owned[0] is not batch.ownership:
            self._poller.take(batch.size)
            return
        owned[1].lost += batch.lost
        self._entries.append(batch)
        self._more.set()

    def on_failure(self, error: Exception) -> None:
        """The poller has ended."""
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _answer(self, future: asyncio.Future[int]) -> int:
        """What the poller answers, within a session: after that the group has given up on us anyway.

        Raises:
            Unavailable: it does not.
        """
        try:
            async with asyncio.timeout(self._settings.kafka.session_timeout):
                return await future
        except TimeoutError:
            raise Unavailable("Kafka does not answer", _RETRY_AFTER) from None

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        """From another thread; nothing when the loop is gone."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments, context=self._context)
