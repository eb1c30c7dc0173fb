"""Sends few and small records to a topic, and waits until all replicas in sync have them.

What is not acknowledged in time may have arrived: if it is sent again it may come twice, and its readers know it again.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from kafka.errors import Cancelled, KafkaError

from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.producer.partition_queue import Sent
from ingest.contract.producer.producer import Producer
from ingest.contract.settings import KafkaSettings

_TRY: Final = 5.0  # s for brokers to let us in


class Outgoing(NamedTuple):
    """A record and where it goes."""

    partition: int
    value: bytes


class TopicProducer:
    """A producer that is opened when there is something to send, and again when one has lost a record. Owned by one event loop."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._producer: Producer | None = None
        self._opening = asyncio.Lock()

    async def start(self) -> None:
        """Connect; else the first `send` does.

        Raises:
            KafkaUnreachable: no broker answers, none lets us in, or there is no such topic.
        """
        await self._opened()

    async def send(self, records: Sequence[Outgoing]) -> list[int]:
        """Make records durable; their offsets, in the same order.

        Raises:
            KafkaUnreachable: brokers are not found, or do not acknowledge them, within ``kafka.delivery_timeout``.
        """
        try:
            async with asyncio.timeout(self._settings.delivery_timeout):
                producer = await self._opened()
        except TimeoutError as error:
            raise KafkaUnreachable(self._settings, error) from None
        delivery = _Delivery(len(records))
        now = time.monotonic()
        sent = [Sent(record.value, delivery.done, delivery, now) for record in records]
        try:
            for record, one in zip(records, sent, strict=True):
                producer.send(record.partition, one)
            async with asyncio.timeout(self._settings.delivery_timeout):
                await delivery.done
        except (KafkaError, TimeoutError) as error:
            delivery.done.cancel()
            self._let_go(producer)
            raise KafkaUnreachable(self._settings, error) from None
        return [one.offset for one in sent]

    async def close(self) -> None:
        """Let go of the brokers; whatever was sent is acknowledged, or is not waited for any more."""
        if self._producer is not None:
            await self._producer.close(0)

    async def _opened(self) -> Producer:
        async with self._opening:
            if self._producer is None:
                self._producer = await self._open()
            return self._producer

    async def _open(self) -> Producer:
        # Tries are counted, not seconds, and are two at least: a process that stood still has waited for nobody.
        for left in reversed(range(1 + math.ceil(self._settings.delivery_timeout / _TRY))):
            producer = Producer(self._settings, self._topic, self._told)
            try:
                await producer.open(_TRY)
            except KafkaUnreachable:
                if not left:
                    raise
            else:
                break
        return producer

    def _told(self, _producer: Producer, sent: Sent, error: Exception | None) -> None:
        delivery = sent.owner
        assert isinstance(delivery, _Delivery)
        delivery.settle(error)

    def _let_go(self, producer: Producer) -> None:
        """It has lost a record, and with it whatever else it was given."""
        if self._producer is producer:
            self._producer = None
        producer.abort(Cancelled("the producer has lost a record"))


class _Delivery:
    """Records that are waited for together; ``done`` with the first that fails, or the last."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not count:
            self.done.set_result(None)

    def settle(self, error: Exception | None) -> None:
        """One more is answered for."""
        self._left -= 1
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif not self._left:
            self.done.set_result(None)
