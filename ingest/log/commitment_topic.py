"""The commitment log on many machines: a topic that every receiver reads whole, from its start, without a group.

A thread beside the event loop's is the reader's, which alone calls its consumer.
"""

import asyncio
import contextlib
import contextvars
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

import structlog
from kafka.errors import KafkaError

from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.kafka_topics import check_topics
from ingest.contract.producer import Outgoing, TopicProducer
from ingest.contract.records import Record
from ingest.contract.settings import Settings
from ingest.contract.spool import OsDisk
from ingest.errors import LogUnavailable
from ingest.log.commitment_claimant import Claimant, claimant
from ingest.log.commitment_log import Entry, Location, Written
from ingest.log.commitment_reader import TopicFetcher, TopicReader

logger = structlog.get_logger(__name__)

_START: Final = 30.0  # s to reach brokers at the start
_POLL: Final = 0.1  # s
_RETRY: Final = 0.5  # s after brokers did not answer
_AHEAD: Final = 20_000  # entries that were read and nobody has taken
_CLOSE: Final = 2.0  # s
_HALF: Final = 0.5  # of retention, after which what is needed is written again
_LOOKS: Final = 16  # at least, in a retention: one that comes late, or fails, costs nothing
_LONGEST_LOOK: Final = 600.0  # s; more would only save what costs nothing
_SPREAD: Final = 10  # the shortest time between two looks is this part of the longest


class KafkaCommitmentLog:
    """See `CommitmentLog`."""

    shared = True
    remembers = sys.maxsize

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.kafka.commitment_topic
        self.partitions = settings.log.partitions
        self.expecting = False
        self.promised = 0
        self.caught_up = False
        self.claimant: Claimant | None = None
        self._resources = ExitStack()
        self._producer = TopicProducer(settings.kafka, self._topic)
        self._reader = TopicReader(settings)
        self._fetcher = TopicFetcher(settings)
        run = partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="kafka-commitments", daemon=True)
        self._fetching = asyncio.Lock()
        self._more = asyncio.Event()
        self._entries: deque[Entry] = deque()
        self._taken = [0] * self.partitions  # by partition: all below was handed out
        self._all_heard = False  # what was there at the start has come to the event loop
        self._failure: LogUnavailable | None = None
        self._stopping = False
        self._retention = -1  # ms
        self.carry_every = _looks(self._retention)

    async def start(self) -> None:
        """See `CommitmentLog`.

        Raises:
            KafkaUnreachable, TopicMismatch: see `ingest.contract.kafka`.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._take_name)
        states = await asyncio.to_thread(check_topics, self._settings)
        (state,) = (state for state in states if state.topic == self._topic)
        self._retention = int(state.configuration["retention.ms"])
        self.carry_every = _looks(self._retention)
        await asyncio.to_thread(self._reader.open, _START)
        await self._producer.start()
        self._thread.start()

    async def publish(self, records: Sequence[Written]) -> Location:
        """See `CommitmentLog`."""
        outgoing = [
            Outgoing(record.transaction_id.home(self.partitions), b"".join(record.encode()))
            for record in records
        ]
        try:
            offsets = await self._producer.send(outgoing)
        except KafkaUnreachable as error:
            raise LogUnavailable(f"the commitment log: {error}") from None
        # Of one transaction, as a rule, and so of one partition.
        return max(Location(one.partition, offset) for one, offset in zip(outgoing, offsets, strict=True))

    async def read(self, timeout: float) -> Sequence[Entry]:  # noqa: ASYNC109 - see `CommitmentLog`
        """See `CommitmentLog`."""
        self._more.clear()
        if not self._entries and self._failure is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._more.wait()
        if self._failure is not None:
            raise self._failure
        taken = []
        while self._entries:
            entry = self._entries.popleft()
            self._taken[entry.location.partition] = entry.location.position + 1
            taken.append(entry)
        self.caught_up = self._all_heard
        return taken

    def passed(self, location: Location) -> bool:
        """See `CommitmentLog`."""
        return self._taken[location.partition] > location.position

    async def fetch(self, location: Location) -> Record:
        """See `CommitmentLog`."""
        async with self._fetching:
            try:
                return await asyncio.to_thread(self._fetcher.fetch, location)
            except KafkaError as error:
                raise LogUnavailable(f"the commitment log: {type(error).__name__}") from None

    async def make_room(self, size: int, promised: int) -> None:
        """See `CommitmentLog`: Kafka keeps by age, and refuses by itself."""

    async def threshold(self) -> dict[int, int]:
        """See `CommitmentLog`."""
        if self._retention < 0:
            return {}
        since = int(time.time() * 1000 - self._retention * _HALF)
        async with self._fetching:
            try:
                return await asyncio.to_thread(self._fetcher.offsets_at, since)
            except KafkaError as error:
                raise LogUnavailable(f"the commitment log: {type(error).__name__}") from None

    def release(self, position: int) -> None:
        """See `CommitmentLog`."""

    async def close(self) -> None:
        """Let go of the brokers."""
        self._stopping = True
        self._failure = self._failure or LogUnavailable("the log is closed")
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, _CLOSE)
        else:
            self._reader.close()
        await self._producer.close()
        async with self._fetching:
            await asyncio.to_thread(self._fetcher.close)
        await asyncio.to_thread(self._resources.close)

    def _take_name(self) -> None:
        """Who we are, until we close."""
        now = time.time_ns() // 1_000_000
        self.claimant = self._resources.enter_context(claimant(OsDisk(), self._settings.data, now))

    # The reader's thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except Exception as error:
            logger.exception("the commitment log cannot be read any more")
            self._call(self._fail, LogUnavailable(f"the commitment log: {error}"))
        finally:
            self._reader.close()

    def _turn(self) -> None:
        if len(self._entries) > _AHEAD:
            time.sleep(_POLL)
            return
        try:
            entries = self._reader.poll(_POLL)
        except KafkaError as error:
            logger.warning("Kafka does not answer", error=type(error).__name__)
            time.sleep(_RETRY)
            return
        if entries or self._reader.caught_up != self._all_heard:
            self._call(self._add, entries, self._reader.caught_up)

    # In the event loop's thread

    def _add(self, entries: list[Entry], all_heard: bool) -> None:
        self._entries.extend(entries)
        self._all_heard = all_heard
        self._more.set()

    def _fail(self, error: LogUnavailable) -> None:
        self._failure = self._failure or error
        self._more.set()

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _looks(retention: int) -> tuple[float, float]:
    """See `CommitmentLog.carry_every`; ``retention`` in milliseconds, negative for none."""
    longest = _LONGEST_LOOK if retention < 0 else min(_LONGEST_LOOK, retention / 1000 / _LOOKS)
    return longest / _SPREAD, longest
