"""One kafka-python producer with its thread: records in, each answered once in the event loop's thread.

kafka-python 3.0.12 has no bound on what it takes, blocks or waits without regard to deadlines while it looks for
its brokers, and once a batch that it had retried has expired it never sends anything again (it drops its producer
id and asks for no other). So a client that has lost a record is good for nothing more: `kafka_writer` opens
another, and lets go of this one.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.future import RecordMetadata

from ingest.contract.kafka import MAXIMUM_MESSAGE, KafkaUnreachable, client_options
from ingest.contract.kafka_selector import QuickSelector
from ingest.contract.kafka_topics import check_topics
from ingest.contract.settings import KafkaSettings, Settings
from ingest.errors import LogUnavailable

logger = structlog.get_logger(__name__)

# A request carries a batch of each partition, and a batch as many records as the topic takes at once: a record that
# finds no room is copied in vain, and brokers cost less for each byte of a larger batch.
_BATCH: Final = MAXIMUM_MESSAGE - 4096
_REQUEST: Final = 4 * MAXIMUM_MESSAGE
_IN_FLIGHT: Final = 5  # the most that idempotence allows
_REQUEST_TIMEOUT: Final = 10.0  # s; at most half of the delivery timeout, so that another broker can be asked
_LONGEST_SEND: Final = 1.0  # s; `send` waits for nothing but the metadata of a topic that has vanished


class Sent:
    """A record with the client. ``owner`` is whose it is; ``answered`` tells that nobody waits any more.

    ``appended_at``: ms, by the clock of the broker that has appended it; 0 until then.
    """

    __slots__ = ("answered", "appended_at", "at", "future", "owner")

    def __init__(self, future: asyncio.Future[None], owner: object, at: float) -> None:
        self.future = future
        self.owner = owner
        self.at = at
        self.appended_at = 0
        self.answered = False


Done = Callable[["KafkaClient", Sent, Exception | None], None]


class KafkaClient:
    """Sends to the instance topic. ``done`` is called in the loop's thread for each record that was sent."""

    def __init__(
        self, producer: KafkaProducer, topic: str, loop: asyncio.AbstractEventLoop, done: Done
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._loop = loop
        self._done = done
        self._completions: deque[tuple[Sent, Exception | None]] = deque()  # filled by the producer's thread
        self._draining = False  # a drain is on its way to the loop
        self.sent: dict[Sent, None] = {}  # oldest first

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for a record of it."""
        return any(not sent.answered for sent in self.sent)

    def silence(self, now: float) -> float:
        """Seconds that the oldest record has waited."""
        oldest = next(iter(self.sent), None)
        return 0.0 if oldest is None else now - oldest.at

    def send(self, partition: int, value: bytes | memoryview, sent: Sent) -> None:
        """Hand a record over; it is copied before this returns.

        Raises:
            LogUnavailable: it cannot be taken; the client is of no more use.
        """
        try:
            result = self._producer.send(self._topic, value, partition=partition)
        except (KafkaError, ValueError) as error:
            # The topic has vanished or lost partitions, or a record is too long for it.
            raise LogUnavailable(f"the log cannot take the record: {type(error).__name__}") from None
        self.sent[sent] = None
        result.add_callback(partial(self._completed, sent, None))
        result.add_errback(partial(self._completed, sent))

    def let_go(self, patience: float) -> None:
        """End it; what no broker has acknowledged within ``patience`` seconds fails. Blocks."""
        with contextlib.suppress(KafkaError):
            self._producer.flush(patience)
        end_producer(self._producer, patience)

    def _completed(self, sent: Sent, error: Exception | None, metadata: RecordMetadata | None = None) -> None:
        """In the producer's thread: one wake-up of the loop for all that is done by the time it looks."""
        if metadata is not None:
            sent.appended_at = metadata.timestamp
        self._completions.append((sent, error))
        if not self._draining:
            self._draining = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._draining = False  # before the look: what comes behind it asks for another
        while self._completions:
            sent, error = self._completions.popleft()
            del self.sent[sent]
            self._done(self, sent, error)


def open_client(
    settings: Settings, timeout: float, loop: asyncio.AbstractEventLoop, done: Done
) -> KafkaClient:
    """Check the topics and connect, each in ``timeout`` seconds. Blocks.

    Raises:
        KafkaUnreachable, TopicMismatch: see `ingest.contract.kafka`.
    """
    check_topics(settings, timeout)
    kafka = settings.kafka
    producer = open_producer(kafka, timeout)
    client = KafkaClient(producer, kafka.instance_topic, loop, done)
    deadline = time.monotonic() + timeout
    while True:  # in the loop's thread `send` must find the metadata there
        try:
            producer.partitions_for(kafka.instance_topic)
        except KafkaError as error:
            if time.monotonic() > deadline:
                client.let_go(0)
                raise KafkaUnreachable(kafka, error) from None
        else:
            return client


def open_producer(settings: KafkaSettings, timeout: float) -> KafkaProducer:
    """A producer of ours that has found a broker within ``timeout`` seconds; `end_producer` ends it. Blocks.

    Raises:
        KafkaUnreachable: no broker answers, or none lets us in.
    """
    bootstrap = int(timeout * 1000)
    try:
        return KafkaProducer(
            **producer_options(settings), bootstrap_timeout_ms=bootstrap, metrics_enabled=False
        )
    except KafkaError as error:
        raise KafkaUnreachable(settings, error) from None


def end_producer(producer: KafkaProducer, patience: float) -> None:
    """Let go of the brokers in about ``patience`` seconds; what they have not acknowledged by now fails. Blocks.

    `close` alone waits for all that was sent, and while a batch is lost may never end.
    """
    producer._sender.force_close()  # noqa: SLF001 - there is no other way
    with contextlib.suppress(KafkaError):
        producer.close(patience)
    producer._closed = True  # noqa: SLF001 - else its destructor waits for them once more, wherever it runs, and raises


def producer_options(settings: KafkaSettings) -> dict[str, object]:
    """A producer's keywords: every replica in sync acknowledges, no record twice, batches of our records' size."""
    timeout = min(_REQUEST_TIMEOUT, settings.delivery_timeout / 2 - settings.linger)
    return client_options(settings) | {
        "acks": "all",
        "enable_idempotence": True,  # said, so that a setting against it is refused and not obeyed
        "max_in_flight_requests_per_connection": _IN_FLIGHT,
        "max_request_size": _REQUEST,
        "batch_size": _BATCH,
        "linger_ms": settings.linger * 1000,
        "request_timeout_ms": int(timeout * 1000),
        "delivery_timeout_ms": int(settings.delivery_timeout * 1000),
        "max_block_ms": int(_LONGEST_SEND * 1000),
        "allow_auto_create_topics": False,
        "selector": QuickSelector,
    }
