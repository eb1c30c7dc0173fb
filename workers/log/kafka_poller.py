"""The thread that owns the Kafka consumer: it polls always, so that the group keeps us, whatever the workers wait for.

What it hears goes to the event loop by `Listening`; what is asked of it comes by a queue. Rebalances are told on the
client's own thread, while ours waits in `poll`: revoked partitions are committed there as last offered, an
account that is whole in itself, and work in progress is never waited for.
"""

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import CommitFailedError, KafkaError, RebalanceInProgressError
from kafka.structs import OffsetAndMetadata

from ingest.contract.failpoints import Failpoint, reach
from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.kafka_topics import check_topics
from ingest.contract.records import CorruptRecord, NewerRecord, decode
from ingest.contract.settings import Settings
from workers.errors import Unavailable
from workers.log.commit_metadata import OffsetCheckpoint
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.kafka_account import account_of, commit_of, end_of, report_loss
from workers.log.kafka_options import RECORDS, consumer_options
from workers.log.leader_epochs import UNKNOWN, LeaderEpochs, epoch_ends, go_on
from workers.log.offset_progress import given_back, started
from workers.log.ownership import Batch, Listening, Ownership

CLOSE: Final = 3.0  # s; without a broker the group is not left, and misses us by itself
_POLL: Final = 100  # ms; what a question waits for at most while nothing comes
_OVERDUE: Final = 0.01  # s between two looks while a heartbeat is unanswered
_QUESTION: Final = 10.0  # s; of what is asked of a broker at once
_RETRY: Final = 0.5  # s
_RETRY_AFTER: Final = 1.0  # s

logger = structlog.get_logger(__name__)


class KafkaPoller:
    """The thread and the consumer."""

    def __init__(self, settings: Settings, call: Callable[..., None], listening: Listening) -> None:
        """``call``: calls a function with arguments in the event loop's thread."""
        self._settings = settings
        self._topic = settings.kafka.instance_topic
        self._call = call
        self._listening = listening
        self._owned: dict[int, Ownership] = {}
        self._new: set[int] = set()  # given to us, not yet taken over
        self._questions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = False
        self._is_in_vain = False  # this process ends by an error
        self._pushed = 0  # bytes handed to the event loop
        self._taken = 0  # bytes of them that it has passed on
        self._is_paused = False
        run = partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="kafka-poller", daemon=True)

    def open(self) -> None:
        """Check the topics and connect; blocks.

        Raises:
            KafkaUnreachable, TopicMismatch: see `ingest.contract.kafka`.
        """
        check_topics(self._settings)
        try:
            self._consumer = KafkaConsumer(**consumer_options(self._settings))
        except KafkaError as error:
            raise KafkaUnreachable(self._settings.kafka, error) from None
        try:
            self._consumer.subscribe([self._topic], listener=_Listener(self))
            # A member that leads the group without knowing the topic shares out nothing, for minutes (3.0.12).
            self._consumer.partitions_for_topic(self._topic)
        except KafkaError as error:
            self._close()
            raise KafkaUnreachable(self._settings.kafka, error) from None

    def start(self) -> None:
        """Join the group."""
        self._thread.start()

    def stop(self, *, in_vain: bool) -> None:
        """Give everything back and end. See `KafkaReader.close`."""
        self._is_in_vain = self._is_in_vain or in_vain
        self._stopping = True

    def join_within(self, seconds: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def take(self, size: int) -> None:
        """The event loop has passed on so many bytes more."""
        self._taken += size

    def ask_commit(self, offers: Sequence[tuple[Ownership, OffsetCheckpoint]]) -> asyncio.Future[int]:
        """Commit those that are still ours; from the event loop, like the next."""
        future = asyncio.get_running_loop().create_future()
        self._questions.put(lambda: self._commit(offers, future))
        return future

    def ask_end(self, partition: int) -> asyncio.Future[int]:
        """Where a partition ends."""
        future = asyncio.get_running_loop().create_future()
        self._questions.put(lambda: self._end_of(partition, future))
        return future

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            self._answer_questions()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must hear of it
            self._call(self._listening.on_failure, error)
        finally:
            self._close()

    def _turn(self) -> None:
        """Hear what has come, then do what is to be done."""
        try:
            self._keep_the_budget()
            reach(Failpoint.POLLING)
            polled = self._poll()
            self._drop_what_others_had()
            for place, records in polled.items():
                # One that is not taken over yet will be read again from where its account says.
                if ownership := self._owned.get(place.partition):
                    self._hand_out(ownership, place, records)
            self._take_over_all()
        except KafkaError as error:
            if not _passes(error):
                raise
            logger.warning("Kafka does not answer", error=type(error).__name__)
            time.sleep(_RETRY)
        self._answer_questions()

    def _poll(self) -> dict[TopicPartition, list[Any]]:
        """What has come; waits a moment for it.

        While a heartbeat is due and unanswered the client's own wait ends at once and is begun again, thousands of
        times a second, and each leaves something behind at the fetch that is under way (3.0.12). A member that has
        no coordinator, or must join anew, does so within that wait, and needs it.

        A leader that joins because the topic has changed forgets that it must, once it has shared out: when its wait
        ends just then, nobody asks for what the join gave, and the member stands still for good (3.0.12; KAFKA-9815).
        """
        group = self._membership
        if group.rejoining:
            group.request_rejoin()
        overdue = (
            group.heartbeat.should_heartbeat()
            and group.stable()
            and not group.coordinator_unknown()
            and not group.need_rejoin()
        )
        polled: dict[TopicPartition, list[Any]] = self._consumer.poll(
            timeout_ms=0 if overdue else _POLL, max_records=RECORDS
        )
        if overdue and not polled:
            time.sleep(_OVERDUE)
        return polled

    def _close(self) -> None:
        try:
            # Its listener commits what was offered last.
            self._consumer.close(autocommit=False, timeout_ms=int(1000 * CLOSE))
        except Exception as error:  # noqa: BLE001 - there is nothing more to lose
            logger.warning("the consumer did not close cleanly", error=type(error).__name__)

    def _keep_the_budget(self) -> None:
        held = self._pushed - self._taken
        limit = self._settings.kafka.fetch_maximum
        if held >= limit:
            self._is_paused = True
            self._consumer.pause(*self._consumer.assignment())  # each time: new ones come unpaused
        elif self._is_paused and held <= limit // 2:
            self._is_paused = False
            self._consumer.resume(*self._consumer.paused())

    @property
    def _membership(self) -> Any:
        """The client's side of the group, which it shows nobody."""
        return self._consumer._coordinator  # noqa: SLF001 - there is no other way

    @property
    def _member(self) -> str:
        """Who we are in the group; empty while it does not know us."""
        member: str = self._consumer.group_metadata().member_id
        return member

    def _drop_what_others_had(self) -> None:
        """Take over anew what we kept or were given while the group had put us out: it was another's meanwhile.

        A member that learns so from its join alone is not told that it has lost anything (3.0.12). Until the join is over
        the client still shows what was ours before.
        """
        if not self._membership.stable():
            return
        member = self._member
        stale = [number for number, ownership in self._owned.items() if ownership.member != member]
        if stale:
            self.taken(stale)
            self._new |= {place.partition for place in self._consumer.assignment()} & set(stale)

    def _take_over_all(self) -> None:
        """Read the accounts of what is new to us, commit that we have started on them, and tell.

        Nothing that was fetched of these before counts, so an error means only: again.

        Raises:
            ForeignCommit, LogRewound: an administrator must decide what follows.
        """
        places = [TopicPartition(self._topic, partition) for partition in sorted(self._new)]
        if not places:
            return
        timeout = int(1000 * _QUESTION)
        taken = self._accounts(places, timeout)
        commits = {place: commit_of(found.offered, found.epochs) for place, (found, _) in taken.items()}
        self._consumer.commit(commits, timeout_ms=timeout)
        for place, (ownership, end) in taken.items():
            self._consumer.seek(place, ownership.next_position)
            self._new.discard(place.partition)
            self._owned[place.partition] = ownership
            self._call(self._listening.on_taken, ownership, ownership.offered, end)

    def _accounts(
        self, places: Sequence[TopicPartition], timeout: int
    ) -> dict[TopicPartition, tuple[Ownership, int]]:
        """What we shall own, held against the log of this moment, and where that ends; ``timeout`` in milliseconds."""
        member = self._member
        # Before the ends: one who does not know yet that he has lost it may read on meanwhile.
        committed = {
            place: self._consumer.committed(place, metadata=True, timeout_ms=timeout) for place in places
        }
        first = self._consumer.beginning_offsets(places, timeout_ms=timeout)
        ends = self._consumer.end_offsets(places, timeout_ms=timeout)
        known = {place: found.leader_epoch for place, found in committed.items() if found is not None}
        asked = {place: epoch for place, epoch in known.items() if epoch != UNKNOWN}
        epochs = epoch_ends(self._consumer, asked, timeout)
        taken = {}
        for place in places:
            held = epochs.get(place)
            found = account_of(place, committed[place], first[place], ends[place], held)
            end = end_of(found)
            # Of what retention took unread the epochs are unknown.
            epoch = held.epoch if held is not None and held.position >= end else UNKNOWN
            read, mark = LeaderEpochs(epoch, end), found.low_water_mark
            taken[place] = Ownership(place.partition, started(found), mark, member, read), ends[place]
        return taken

    def _hand_out(self, ownership: Ownership, place: TopicPartition, records: Sequence[Any]) -> None:
        is_on = records[0].offset >= ownership.next_position
        if not (is_on and go_on(self._consumer, place, ownership.epochs, records, int(1000 * _QUESTION))):
            self.taken([place.partition])
            self._new.add(place.partition)
            return
        entries: list[Entry] = []
        size = lost = 0
        for record in records:
            if record.offset > ownership.next_position:
                lost += report_loss(ownership.partition, ownership.next_position, record.offset)
            ownership.next_position = record.offset + 1
            entries.append(_entry(record))
            size += len(record.value or b"")
        self._pushed += size
        self._call(self._listening.on_batch, Batch(ownership, entries, size, lost))

    def _answer_questions(self) -> None:
        while True:
            try:
                question = self._questions.get_nowait()
            except queue.Empty:
                return
            question()

    def _commit(
        self, offers: Sequence[tuple[Ownership, OffsetCheckpoint]], future: asyncio.Future[int]
    ) -> None:
        offsets = {
            TopicPartition(self._topic, ownership.partition): commit_of(checkpoint, ownership.epochs)
            for ownership, checkpoint in offers
            if not ownership.gone
        }
        if not offsets:
            self._call(_settle, future, 0, None)
            return
        try:
            # `commit_async` of a member without coordinator answers that it has found one, whatever becomes of the commit
            # (3.0.12): what is settled would be told as committed, and wait for the next instance to be.
            sent = self._membership._do_commit_offsets_async(offsets)  # noqa: SLF001 - there is no other way
        except KafkaError as error:
            if not _passes(error):
                raise
            self._call(_settle, future, 0, error)
            return
        sent.add_callback(lambda _: self._call(_settle, future, len(offsets), None))
        sent.add_errback(lambda error: self._call(_settle, future, 0, error))

    def _end_of(self, partition: int, future: asyncio.Future[int]) -> None:
        place = TopicPartition(self._topic, partition)
        try:
            end = self._consumer.end_offsets([place], timeout_ms=int(1000 * _QUESTION))[place]
        except KafkaError as error:
            self._call(_settle, future, 0, error)
        else:
            self._call(_settle, future, end, None)

    # From here on: called on the client's own thread, while ours waits for it.

    def given(self, partitions: Iterable[int]) -> None:
        """The group has given us partitions."""
        self._new.update(partitions)

    def taken(self, partitions: Iterable[int]) -> dict[TopicPartition, OffsetAndMetadata]:
        """It has taken some; returns what may still be committed of them: not over what another has meanwhile."""
        offsets = {}
        member = self._member
        for partition in partitions:
            self._new.discard(partition)
            ownership = self._owned.pop(partition, None)
            if ownership is not None:
                ownership.gone = True
                self._call(self._listening.on_gone, ownership)
                if ownership.member == member:
                    place = TopicPartition(self._topic, partition)
                    offered = ownership.offered if self._is_in_vain else given_back(ownership.offered)
                    offsets[place] = commit_of(offered, ownership.epochs)
        return offsets

    def lost(self, partitions: Iterable[int]) -> None:
        """The group has taken all while we were away.

        The assignor would go on to claim them with our next join (3.0.12). The leader then waits for us to give up
        what we do not have, gives it to nobody meanwhile, and nothing ever ends that.
        """
        self.taken(partitions)
        for assignor in self._membership._assignors.values():  # noqa: SLF001 - there is no other way
            assignor.member_assignment = None

    async def commit_taken(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit these before the partitions are another's; if it cannot be, he repeats some work."""
        if not offsets:
            return
        try:
            await self._consumer.commit_async(offsets)
        except Exception as error:  # noqa: BLE001 - the rebalance must go on
            logger.warning("partitions were given back without a last commit", error=type(error).__name__)


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    """Rebalances, on the client's thread: only its own awaitables may be awaited here."""

    def __init__(self, poller: KafkaPoller) -> None:
        self._poller = poller

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """New ones, beside those that we have."""
        self._poller.given(place.partition for place in assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Commit and drop."""
        await self._poller.commit_taken(self._poller.taken([place.partition for place in revoked]))

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Only drop: they are another's already."""
        self._poller.lost([place.partition for place in lost])


def _passes(error: KafkaError) -> bool:
    """Whether this may be over by itself."""
    return bool(error.retriable) or isinstance(error, (CommitFailedError, RebalanceInProgressError))


def _entry(record: Any) -> Entry:
    value = record.value or b""
    position, partition, appended_at = record.offset, record.partition, record.timestamp
    try:
        return LogRecord(position, position + 1, partition, decode(value), appended_at)
    except NewerRecord:
        raise
    except CorruptRecord:
        return DamagedRecord(position, position + 1, partition, memoryview(value), appended_at)


def _settle(future: asyncio.Future[int], value: int, error: Exception | None) -> None:
    """In the event loop's thread."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(Unavailable(f"Kafka: {type(error).__name__}", _RETRY_AFTER))
