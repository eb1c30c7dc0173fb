"""The log on many machines: Kafka.

Steps of a record: 1. copied by the client, 2. acknowledged by all replicas in sync, 3. its publisher told. An END is
sent only when every PART of its upload is acknowledged, so a gap before an END can only be loss. No record is sent
twice: what failed fails its instance, and the peer may send it again.

A record that is not acknowledged in time is answered for, whatever the client says. With it the client is given
up: another is opened, which also finds out when brokers are back, and until then nothing new is taken. So memory
stays within the receiver's budget, which counts an instance's bytes until its records are answered for.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Final

import structlog

from ingest.contract.kafka import KafkaUnreachable, TopicMismatch, is_single_copy
from ingest.contract.records import KIND_AT, UPLOAD_ID_AT, Kind
from ingest.contract.settings import Settings
from ingest.errors import IngestError, LogUnavailable
from ingest.instance import Header, joined
from ingest.log.kafka_backlog import Backlog
from ingest.log.kafka_client import KafkaClient, Sent, open_client
from ingest.log.kafka_retention import RetentionWatch

logger = structlog.get_logger(__name__)

_WATCH_INTERVAL: Final = 0.25  # s
_PATIENCE: Final = 0.5  # s past the delivery timeout, within which the client itself reports it
_SILENT: Final = 2.0  # s without an acknowledgement; a healthy cluster needs milliseconds
_GAP_SLACK: Final = 2.0  # s; what a pause within the limits takes until it is noticed, on a busy machine
_START: Final = 30.0  # s to reach brokers at the start
_AGAIN: Final = 5.0  # s to reach them each time later
_PAUSE: Final = 0.5  # s between such times
# The client's thread and the loop's hand the interpreter to each other all the time; Python's 5 ms would make one
# wait out the other's copying. Measured: a fifth more with one sender, a tenth with sixteen, at no cost.
_SWITCH: Final = 0.5e-3  # s
_CLOSE: Final = 2.0  # s; whoever waited is gone


class _Upload:
    """An instance of several records, from its first PART to its END or ABORT; all with one client, in order."""

    __slots__ = ("appended_at", "broken", "client", "end", "id", "published_at", "waiting")

    def __init__(self, upload_id: bytes, client: KafkaClient, at: float) -> None:
        self.id = upload_id
        self.client = client
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
        self._deadline = settings.kafka.delivery_timeout + _PATIENCE
        self._uploads: dict[bytes, _Upload] = {}
        self._retired: set[KafkaClient] = set()  # given up, while anybody waits for a record of theirs
        self._renewal: asyncio.Task[None] | None = None
        self._endings: set[asyncio.Task[None]] = set()
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
        return full and self._client.silence(time.monotonic()) > _SILENT

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
        self._client = await self._open(_START)
        sys.setswitchinterval(_SWITCH)
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
        not known in time. To be called from the event loop's thread; the payload is copied before it returns.
        """
        future = self._loop.create_future()
        made = header if isinstance(header, bytes) else header()
        kind, upload_id = made[KIND_AT], made[UPLOAD_ID_AT]
        now = time.monotonic()
        if kind in (Kind.PART, Kind.END):
            upload = self._uploads.get(upload_id)
            if upload is None:
                upload = self._uploads[upload_id] = _Upload(upload_id, self._client, now)
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
            self._send(self._client, partition, joined(made, payload), Sent(future, None, now))
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
        await asyncio.gather(*(self._end_client(client) for client in (self._client, *self._retired)))
        await asyncio.gather(*self._endings)

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
            self._send(upload.client, partition, value, Sent(future, upload, now))

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
        self._send(upload.client, partition, value, Sent(future, upload, now))

    def _publish_abort(
        self, upload: _Upload | None, partition: int, value: bytes, future: asyncio.Future[None], now: float
    ) -> None:
        """Best effort: workers give the upload up by time as well."""
        if upload is not None:
            self._break(upload, LogUnavailable("the upload was aborted"))
        if upload is None or self._away() is not None:
            future.set_exception(LogUnavailable("nobody can be told"))
            return
        self._send(self._client, partition, value, Sent(future, None, now))

    def _may_go_on(self, upload: _Upload, future: asyncio.Future[None], now: float) -> bool:
        """Whether a record may follow; after a longer gap, workers may have given the upload up."""
        if not upload.broken and now - upload.published_at > self._longest_gap:
            logger.warning("an upload paused too long", seconds=round(now - upload.published_at))
            upload.broken = True
        if upload.broken:
            future.set_exception(LogUnavailable("the log has lost a part of the instance"))
        return not upload.broken

    def _send(self, client: KafkaClient, partition: int, value: bytes | memoryview, sent: Sent) -> None:
        try:
            client.send(partition, value, sent)
        except LogUnavailable as error:
            self._lost(sent, error)
            self._give_up(client, str(error))

    def _done(self, client: KafkaClient, sent: Sent, error: Exception | None) -> None:
        """The client has done with a record."""
        if error is not None:
            self._lost(sent, LogUnavailable("no broker has acknowledged the record"))
            self._give_up(client, type(error).__name__)
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
        sent.answered = True
        _settle(sent.future, error)

    def _break(self, upload: _Upload, error: IngestError) -> None:
        """Nothing more of it may follow, least of all an END that waits for its turn."""
        upload.broken = True
        if upload.end is not None:
            _, _, waiter = upload.end
            upload.end = None
            _settle(waiter, error)

    def _look(self) -> None:
        """Answer for what is overdue, again and again; end the clients that nobody waits for."""
        self._watch = self._loop.call_later(_WATCH_INTERVAL, self._look)
        limit = time.monotonic() - self._deadline
        for client in (self._client, *self._retired):
            for sent in client.sent:
                if sent.at > limit:
                    break
                if not sent.answered:
                    self._lost(sent, LogUnavailable("no broker acknowledges"))
                    self._give_up(client, "the client is silent")
        for client in [client for client in self._retired if not client.waited_for]:
            self._retired.discard(client)
            ending = self._loop.create_task(self._end_client(client))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    def _give_up(self, client: KafkaClient, why: str) -> None:
        if client is self._client and self._renewal is None and self._refusal is None:
            logger.warning("a record was not acknowledged; nothing new is taken", error=why)
            self._renewal = self._loop.create_task(self._renew())
            self._renewal.add_done_callback(self._renewed)

    async def _renew(self) -> None:
        """Open another client, however long that takes."""
        problem = ""
        while True:
            try:
                client = await self._open(_AGAIN)
            except (KafkaUnreachable, TopicMismatch) as error:
                if str(error) != problem:
                    problem = str(error)
                    logger.warning("the log cannot be used", error=problem)
                await asyncio.sleep(_PAUSE)
            else:
                break
        self._retired.add(self._client)
        self._client = client
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

    async def _open(self, patience: float) -> KafkaClient:
        return await asyncio.to_thread(open_client, self._settings, patience, self._loop, self._done)

    async def _end_client(self, client: KafkaClient) -> None:
        await asyncio.to_thread(client.let_go, _CLOSE if client.waited_for else 0)
        await asyncio.sleep(0)  # the last completions are told by a callback of this loop
        for sent in list(client.sent):
            self._lost(sent, LogUnavailable("the log is closed"))


def _settle(future: asyncio.Future[None], error: IngestError | None) -> None:
    if future.done():  # answered for already, or cancelled by its waiter
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
