"""Sends records to one topic, and waits until all replicas in sync have them.

Whatever is sent may arrive twice: it is sent again where its fate is not known, and its readers know it again.
"""

import asyncio
import contextlib
import math
import threading
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError

from ingest.contract.kafka import KafkaUnreachable, client_options
from ingest.contract.settings import KafkaSettings
from workers.errors import Unavailable

_BATCH: Final = 256 * 1024  # bytes: a commit's outcomes of one partition
_LONGEST_SEND: Final = 1.0  # s
_PATIENCE: Final = 1.0  # s past the delivery timeout, within which the client itself reports it
_CLOSE: Final = 1.0  # s
_RETRY_AFTER: Final = 1.0  # s


class Outgoing(NamedTuple):
    """A record and where it goes."""

    partition: int
    value: bytes


class TopicProducer:
    """The producer of one topic. Owned by one event loop.

    A client that has lost a record is let go and another opened: kafka-python's may never send again (3.0.12),
    and while it looks for its brokers it keeps no deadline.
    """

    def __init__(self, settings: KafkaSettings, topic: str, name: str) -> None:
        """``name``: what messages call the topic."""
        self._settings = settings
        self._topic = topic
        self._name = name
        self._producer: KafkaProducer | None = None
        self._opening = asyncio.Lock()

    async def start(self) -> None:
        """Connect; else the first `send` does.

        Raises:
            KafkaUnreachable: no broker answers, or none lets us in.
        """
        self._producer = await asyncio.to_thread(self._open)

    async def send(self, records: Sequence[Outgoing]) -> None:
        """Make records durable.

        Raises:
            Unavailable: brokers do not acknowledge them now.
        """
        producer = await self._opened()
        waiting = _Acknowledgements(len(records))
        try:
            for partition, value in records:
                waiting.add(producer.send(self._topic, value, partition=partition))
            async with asyncio.timeout(self._settings.delivery_timeout + _PATIENCE):
                await waiting.done
        except (KafkaError, ValueError, TimeoutError) as error:
            waiting.done.cancel()
            self._let_go(producer)
            raise Unavailable(f"{self._name}: {type(error).__name__}", _RETRY_AFTER) from None

    async def close(self) -> None:
        """Let go of the client; whatever was sent is acknowledged, or is not waited for any more."""
        if self._producer is not None:
            await asyncio.to_thread(_close, self._producer)

    async def _opened(self) -> KafkaProducer:
        async with self._opening:
            if self._producer is None:
                opening = asyncio.ensure_future(asyncio.to_thread(self._open))
                try:
                    self._producer = await asyncio.shield(opening)
                except KafkaUnreachable as error:
                    raise Unavailable(f"{self._name}: {error}", _RETRY_AFTER) from None
                except asyncio.CancelledError:
                    opening.add_done_callback(self._discard)
                    raise
            return self._producer

    def _open(self) -> KafkaProducer:
        try:
            producer = KafkaProducer(**_options(self._settings))
        except KafkaError as error:
            raise KafkaUnreachable(self._settings, error) from None
        # Tries are counted, not seconds: a process that stood still has waited for nobody.
        for left in reversed(range(math.ceil(self._settings.delivery_timeout / _LONGEST_SEND))):
            try:
                producer.partitions_for(self._topic)
            except KafkaError as error:
                if left and error.retriable:
                    continue
                _close(producer)
                raise KafkaUnreachable(self._settings, error) from None
            break
        return producer

    def _let_go(self, producer: KafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            self._close_beside(producer)

    def _discard(self, opening: "asyncio.Future[KafkaProducer]") -> None:
        """Close what was opened for one who does not wait any more."""
        if not opening.cancelled() and opening.exception() is None:
            self._close_beside(opening.result())

    def _close_beside(self, producer: KafkaProducer) -> None:
        name = f"kafka-close-{self._topic}"
        threading.Thread(target=_close, args=(producer,), name=name, daemon=True).start()


class _Acknowledgements:
    """Waits for some records; told by the client's thread."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = count
        self.done: asyncio.Future[None] = self._loop.create_future()

    def add(self, sent: Any) -> None:
        """Another record that was sent."""
        sent.add_callback(lambda _: self._tell(None))
        sent.add_errback(self._tell)

    def _tell(self, error: Exception | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: Exception | None) -> None:
        self._left -= 1
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif not self._left:
            self.done.set_result(None)


def _close(producer: KafkaProducer) -> None:
    """`close` alone waits for all that was sent, and while a batch is lost never ends."""
    producer._sender.force_close()  # noqa: SLF001 - there is no other way
    with contextlib.suppress(KafkaError):
        producer.close(_CLOSE)


def _options(settings: KafkaSettings) -> dict[str, Any]:
    return client_options(settings) | {
        "acks": "all",
        "enable_idempotence": False,  # what comes twice is known again by its readers
        "batch_size": _BATCH,
        "delivery_timeout_ms": int(settings.delivery_timeout * 1000),
        "request_timeout_ms": int(settings.delivery_timeout * 500),
        "bootstrap_timeout_ms": int(settings.delivery_timeout * 1000),
        "max_block_ms": int(_LONGEST_SEND * 1000),
        "metrics_enabled": False,
        "allow_auto_create_topics": False,
    }
