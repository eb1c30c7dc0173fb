"""The log on many machines: Kafka.

Steps of a record: 1. sent by the `producer`, 2. acknowledged by all replicas in sync, 3. its publisher told. An END is
sent only when every PART of its upload is acknowledged, so a gap before an END can only be loss. No record is published
twice: what failed fails its instance, and the peer may send it again.

With a record that is not acknowledged in time the producer is given up, and all that is under way in it fails: another is
opened, which also finds out when brokers are back, and until then nothing new is taken. So memory stays within the
receiver's budget, which counts an instance's bytes until its records are answered for: they are sent from where they are.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Final

import structlog
from kafka.errors import KafkaError

from ingest.contract.kafka import KafkaUnreachable, TopicMismatch, is_single_copy
from ingest.contract.kafka_topics import check_topics
from ingest.contract.producer import Producer, Sent
from ingest.contract.records import KIND_AT, UPLOAD_ID_AT, Kind
from ingest.contract.settings import Settings
from ingest.errors import IngestError, LogUnavailable
from ingest.instance import Header, joined
from ingest.log.kafka_backlog import Backlog
from ingest.log.kafka_retention import RetentionWatch

logger = structlog.get_logger(__name__)

_WATCH_INTERVAL: Final = 0.25  # s
_SILENT: Final = 2.0  # s without an acknowledgement; a healthy cluster needs milliseconds
_GAP_SLACK: Final = 2.0  # s; what a pause within the limits takes until it is noticed, on a busy machine
_START: Final = 30.0  # s to reach brokers at the start
_AGAIN: Final = 5.0  # s to reach them each time later
_PAUSE: Final = 0.5  # s between such times
_CLOSE: Final = 2.0  # s; whoever waited is gone


class _Upload:
    """An instance of several records, from its first PART to its END or ABORT; all with one producer, in order."""

    __slots__ = ("appended_at", "broken", "end", "id", "producer", "published_at", "waiting")

    def __init__(self, upload_id: bytes, producer: Producer, at: float) -> None:
        self.id = upload_id
        self.producer = producer
        self.published_at = at
        self.appended_at = 0  # ms, of the last PART that is acknowledged
        self.waiting = 0  # PARTs that are not acknowledged
        self.broken = False  # lost one: nothing more may follow, least of all an END
        self.end: tuple[int, bytes, asyncio.Future[None]] | None = None  # until the last PART is acknowledged


class KafkaWriter:
    """Publishes records to the instance topic. Owned by one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._longest_gap = settings.receiver.stall_timeout + _GAP_SLACK
        self._longest_pause = 1000 * (settings.receiver.stall_timeout + settings.kafka.delivery_timeout)  # ms
        self._uploads: dict[bytes, _Upload] = {}
        self._renewal: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._refusal: str | None = "the log is not open"
        self._retention = RetentionWatch(settings)
        self.publishers = 2
        self.epoch = 0
        self.receiver_id = 0

    @property
    def partitions(self) -> int:
        """How many partitions the topic has; checked at the start."""
        return self._settings.log.partitions

    @property
    def failed(self) -> asyncio.Future[Exception]:
        """Done after a defect of ours: the process must end. A broker's absence is none."""
        return self._failed

    def congested(self, *, full: bool) -> bool:
        """Whether a new association would only wait: brokers are away, or ``full`` of what they do not acknowledge.

        Or workers are: what they have not read must not grow into retention's reach.
        """
        if self._renewal is not None or self._retention.near:
            return True
        return full and self._producer.silence(time.monotonic()) > _SILENT

    @property
    def retention_used(self) -> float:
        """The share of retention that the partition next to loss has used up, as seen last; any thread may ask."""
        return self._retention.used

    @property
    def backlog(self) -> Backlog:
        """What waits for workers, as seen last; any thread may ask."""
        return self._retention.backlog

    def refusal(self) -> str | None:
        """Why no new instance should be taken now."""
        if self._retention.near:
            return self._refusal or "workers are too far behind"
        return self._away()

    def _away(self) -> str | None:
        """Why nothing at all can be published now."""
        return self._refusal or ("no broker acknowledges" if self._renewal is not None else None)

    async def start(self) -> None:
        """Check the topics and connect.

        Raises:
            KafkaUnreachable, TopicMismatch: see `ingest.contract.kafka`.
        """
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        self._producer = await self._open(_START)
        # A name for this start alone: a container has no stable one, and no start ends another's uploads.
        self.receiver_id = secrets.randbits(32)
        self.epoch = time.time_ns() // 1_000_000
        self._refusal = None
        if is_single_copy(self._settings):
            logger.warning("single copy: the loss of one broker may lose acknowledged instances")
        self._retention.start()
        self._look()

    def publish(self, partition: int, header: Header, payload: Sequence[memoryview]) -> asyncio.Future[None]:
        """Send one record: ``header`` of `records.encode_header`, or what makes it, and the payload it is for.

        The future is done when every replica in sync has the record. It fails with LogUnavailable when that is
        not known in time. To be called from the event loop's thread; until then the payload must stay as it is.
        """
        future = self._loop.create_future()
        made = header if isinstance(header, bytes) else header()
        kind, upload_id = made[KIND_AT], made[UPLOAD_ID_AT]
        now = time.monotonic()
        if kind in (Kind.PART, Kind.END):
            upload = self._uploads.get(upload_id)
            if upload is None:
                upload = self._uploads[upload_id] = _Upload(upload_id, self._producer, now)
                upload.broken = self._away() is not None
            if kind == Kind.PART:
                self._publish_part(upload, partition, joined(made, payload), future, now)
            else:
                self._publish_end(upload, partition, made, future, now)
        elif kind == Kind.ABORT:
            self._publish_abort(self._uploads.pop(upload_id, None), partition, made, future, now)
        elif (refusal := self._away()) is not None:
            future.set_exception(LogUnavailable(refusal))
        else:
            self._send(self._producer, partition, Sent(joined(made, payload), future, None, now))
        return future

    async def close(self) -> None:
        """Let go of the brokers: what they have not acknowledged by now fails."""
        self._refusal = self._refusal or "the log is closed"
        if self._watch is None:
            return
        self._watch.cancel()
        self._retention.stop()
        if self._renewal is not None:
            self._renewal.cancel()
        await self._producer.close(_CLOSE)

    def _publish_part(
        self,
        upload: _Upload,
        partition: int,
        value: bytes | memoryview,
        future: asyncio.Future[None],
        now: float,
    ) -> None:
        if self._may_go_on(upload, future, now):
            upload.published_at = now
            upload.waiting += 1
            self._send(upload.producer, partition, Sent(value, future, upload, now))

    def _publish_end(
        self, upload: _Upload, partition: int, value: bytes, future: asyncio.Future[None], now: float
    ) -> None:
        if not self._may_go_on(upload, future, now):
            return
        if upload.waiting:
            upload.end = partition, value, future
        else:
            self._send_end(upload, partition, value, future, now)

    def _send_end(
        self, upload: _Upload, partition: int, value: bytes, future: asyncio.Future[None], now: float
    ) -> None:
        """From here on the instance may be in the log, whatever is heard of it: nothing aborts it any more."""
        del self._uploads[upload.id]
        upload.waiting += 1
        self._send(upload.producer, partition, Sent(value, future, upload, now))

    def _publish_abort(
        self, upload: _Upload | None, partition: int, value: bytes, future: asyncio.Future[None], now: float
    ) -> None:
        """Best effort: workers give the upload up by time as well."""
        if upload is not None:
            self._break(upload, LogUnavailable("the upload was aborted"))
        if upload is None or self._away() is not None:
            future.set_exception(LogUnavailable("nobody can be told"))
            return
        self._send(self._producer, partition, Sent(value, future, None, now))

    def _may_go_on(self, upload: _Upload, future: asyncio.Future[None], now: float) -> bool:
        """Whether a record may follow; after a longer gap, workers may have given the upload up."""
        if not upload.broken and now - upload.published_at > self._longest_gap:
            logger.warning("an upload paused too long", seconds=round(now - upload.published_at))
            upload.broken = True
        if upload.broken:
            future.set_exception(LogUnavailable("the log has lost a part of the instance"))
        return not upload.broken

    def _send(self, producer: Producer, partition: int, sent: Sent) -> None:
        self._retention.sent(partition, len(sent.value))
        try:
            producer.send(partition, sent)
        except KafkaError as error:
            self._lost(sent, LogUnavailable("the log cannot take the record"))
            self._give_up(producer, type(error).__name__)

    def _done(self, producer: Producer, sent: Sent, error: Exception | None) -> None:
        """The producer has done with a record."""
        if error is not None:
            self._lost(sent, LogUnavailable("no broker has acknowledged the record"))
            self._give_up(producer, type(error).__name__)
            return
        upload = sent.owner
        if isinstance(upload, _Upload):
            upload.waiting -= 1
            if self._has_paused(upload, sent.appended_at):
                self._lost(sent, LogUnavailable("the upload paused too long"))
                return
            if upload.end is not None and not upload.waiting and not upload.broken:
                partition, value, waiter = upload.end
                upload.end = None
                now = time.monotonic()
                if self._may_go_on(upload, waiter, now):
                    self._send_end(upload, partition, value, waiter, now)
        _settle(sent.future, None)

    def _has_paused(self, upload: _Upload, appended_at: int) -> bool:
        """Whether workers may have given the upload up before this record, by the time that they go by as well.

        Our own clock does not tell: it stands still with a virtual machine that is paused or moved to another host.
        """
        before, upload.appended_at = upload.appended_at, appended_at
        return bool(before) and appended_at - before > self._longest_pause

    def _lost(self, sent: Sent, error: IngestError) -> None:
        if isinstance(sent.owner, _Upload):
            self._break(sent.owner, error)
        _settle(sent.future, error)

    def _break(self, upload: _Upload, error: IngestError) -> None:
        """Nothing more of it may follow, least of all an END that waits for its turn."""
        upload.broken = True
        if upload.end is not None:
            _, _, waiter = upload.end
            upload.end = None
            _settle(waiter, error)

    def _look(self) -> None:
        """Give up a producer that does not answer in time, again and again."""
        self._watch = self._loop.call_later(_WATCH_INTERVAL, self._look)
        if self._producer.silence(time.monotonic()) > self._settings.kafka.delivery_timeout:
            self._give_up(self._producer, "no acknowledgement in time")

    def _give_up(self, producer: Producer, why: str) -> None:
        if producer is self._producer and self._renewal is None and self._refusal is None:
            logger.warning("a record was not acknowledged; nothing new is taken", error=why)
            self._renewal = self._loop.create_task(self._renew())
            self._renewal.add_done_callback(self._renewed)
            producer.abort(LogUnavailable("no broker acknowledges"))

    async def _renew(self) -> None:
        """Open another producer, however long that takes."""
        problem = ""
        while True:
            try:
                self._producer = await self._open(_AGAIN)
            except (KafkaUnreachable, TopicMismatch) as error:
                if str(error) != problem:
                    problem = str(error)
                    logger.warning("the log cannot be used", error=problem)
                await asyncio.sleep(_PAUSE)
            else:
                break
        logger.info("the log takes instances again")

    def _renewed(self, renewal: asyncio.Task[None]) -> None:
        if renewal.cancelled():
            return
        error = renewal.exception()
        if error is None:
            self._renewal = None
        elif not self._failed.done():
            self._refusal = "the log has failed"
            self._failed.set_result(Exception(str(error)))

    async def _open(self, patience: float) -> Producer:
        await asyncio.to_thread(check_topics, self._settings, patience)
        producer = Producer(self._settings.kafka, self._settings.kafka.instance_topic, self._done)
        await producer.open(patience)
        return producer


def _settle(future: asyncio.Future[None], error: IngestError | None) -> None:
    if future.done():  # answered for already, or cancelled by its waiter
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
