"""An idempotent producer for one topic, in the event loop's thread: a record is sent from where it was received.

Steps of a record: 1. it joins its partition's queue; 2. at the end of the loop's turn, what waits goes to the partitions'
leaders, a batch of each partition in a request, a few requests at a time; 3. the leader answers once all replicas in sync
have it (acks=all).

What may pass by itself (no leader, a lost connection, too few replicas) is tried again for as long as the owner waits: the
batch is the same, and brokers that have it know it. Whatever else is wrong ends the producer, and with it all that is under
way; its owner opens another.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import kafka.errors
import structlog
from kafka.errors import KafkaError
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest

from ingest.contract.kafka import MAXIMUM_MESSAGE, KafkaUnreachable
from ingest.contract.producer.broker import CLIENT_ID, Broker
from ingest.contract.producer.partition_queue import Batch, OutOfOrder, PartitionQueue, Sent
from ingest.contract.producer.produce import Malformed, Result, decode_response, encode_request
from ingest.contract.producer.record_batch import HEAD, MOST_OVERHEAD, ProducerId
from ingest.contract.settings import KafkaSettings
from ingest.contract.settings_base import host_and_port

logger = structlog.get_logger(__name__)

# Requests to a broker without a response: one that it works on, since it takes one at a time of a connection, and one on its way.
# What comes meanwhile shares the next, and brokers cost less for each byte of a larger one: with five, they received up to a
# tenth less from sixteen senders. More than five they do not know again (KIP-98).
_UNDER_WAY: Final = 2
# By TLS all of it is encrypted at once, into memory beside the receiver's budget.
_LARGEST_REQUEST: Final = 2 * MAXIMUM_MESSAGE
_LONGEST_REQUEST: Final = 10.0  # s; at most half of the delivery timeout, so that another broker can be asked
_CONNECT: Final = 3.0  # s for a broker to let us in, or to answer a question
_FIRST_PAUSE: Final = 0.05  # s before what has just been tried is tried again; then twice as long
_LONGEST_PAUSE: Final = 1.0  # s
_LOOK: Final = 0.25  # s between two looks at brokers that may not answer
_CLOSING: Final = 0.01  # s between two looks at the end
_UNKNOWN_TOPIC: Final = 3  # UNKNOWN_TOPIC_OR_PARTITION
_OUT_OF_ORDER: Final = 45  # OUT_OF_ORDER_SEQUENCE_NUMBER

Done = Callable[["Producer", Sent, Exception | None], None]


class Producer:
    """Sends records to a topic, of each partition in their order and once. Owned by one event loop.

    ``done`` is called for each record that was sent: with None when all replicas in sync have it, else with an error, after
    which the producer is of no more use.
    """

    def __init__(self, settings: KafkaSettings, topic: str, done: Done) -> None:
        self._settings = settings
        self._topic = topic
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._longest_request = min(_LONGEST_REQUEST, settings.delivery_timeout / 2)
        self._id = ProducerId(-1, -1)
        self._addresses: dict[int, tuple[str, int]] = {}  # of brokers
        self._leaders: dict[int, int] = {}  # by partition
        self._brokers: dict[int, Broker] = {}  # connected
        self._queues: dict[int, PartitionQueue] = {}
        self._under_way: Counter[int] = Counter()  # requests, by broker
        # Those that may have something to send; the first is who has waited longest.
        self._ready: dict[PartitionQueue, None] = {}
        self._stalled: dict[PartitionQueue, None] = {}  # those that wait for a leader
        self._flush_due = False
        self._recovery: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._pause = 0.0  # before the next try
        self._tried_at = 0.0
        self._failure: Exception | None = None
        self._closed = asyncio.Event()  # nothing is open any more
        self.sent: dict[Sent, None] = {}  # not answered, the oldest first

    async def open(self, timeout: float) -> None:  # noqa: ASYNC109 - the error names the brokers
        """Find the leaders and get a producer id within ``timeout`` seconds.

        Raises:
            KafkaUnreachable: no broker answers, or none lets us in.
        """
        problem: Exception = TimeoutError()
        try:
            async with asyncio.timeout(timeout):
                while self._id.id < 0:
                    try:
                        await self._start()
                    except (OSError, KafkaError) as error:
                        problem = error
                        await self._wait()
        except TimeoutError:
            raise KafkaUnreachable(self._settings, problem) from None
        finally:
            if self._id.id < 0:
                self.abort(problem)
        self._look()

    def silence(self, now: float) -> float:
        """Seconds that the oldest record has waited."""
        oldest = next(iter(self.sent), None)
        return 0.0 if oldest is None else now - oldest.at

    def send(self, partition: int, sent: Sent) -> None:
        """Take a record; its bytes must stay as they are until it is done.

        Raises:
            KafkaError: it cannot be taken.
        """
        queue = self._queues.get(partition)
        if self._failure is not None:
            raise kafka.errors.Cancelled("the producer has ended")
        if queue is None:
            raise kafka.errors.UnknownTopicOrPartitionError
        if HEAD + MOST_OVERHEAD + len(sent.value) > MAXIMUM_MESSAGE:
            raise kafka.errors.MessageSizeTooLargeError
        self.sent[sent] = None
        queue.add(sent)
        if queue in self._stalled:
            return
        self._ready[queue] = None
        if not self._flush_due:
            self._flush_due = True
            if self._settings.linger:
                self._loop.call_later(self._settings.linger, self._flush)
            else:
                self._loop.call_soon(self._flush)

    def abort(self, error: Exception) -> None:
        """End it: what no broker has acknowledged fails, as soon as nothing of it can be sent any more."""
        if self._failure is not None:
            return
        self._failure = error
        if self._watch is not None:
            self._watch.cancel()
        if self._recovery is not None:
            self._recovery.cancel()
        for broker in list(self._brokers.values()):
            broker.abort()
        self._end()

    async def close(self, patience: float) -> None:
        """Wait ``patience`` seconds for what is under way, then end it."""
        until = time.monotonic() + patience
        while self.sent and self._failure is None and time.monotonic() < until:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_CLOSING)
        self.abort(kafka.errors.Cancelled("the producer is closed"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT):
                await self._closed.wait()

    def _end(self) -> None:
        """Once no connection is left, nothing of what failed can be sent, and its bytes may change."""
        if self._brokers:
            return
        failed, self.sent = list(self.sent), {}
        self._queues.clear()
        for sent in failed:
            self._tell(sent, self._failure)
        self._closed.set()

    def _tell(self, sent: Sent, error: Exception | None) -> None:
        try:
            self._done(self, sent, error)
        except Exception:
            # A defect of the owner's must keep nobody else from being told, nor the connection from its next response.
            logger.exception("whoever published a record could not be told of it")

    # Sending

    def _look(self) -> None:
        """Give up brokers that do not answer, again and again."""
        self._watch = self._loop.call_later(_LOOK, self._look)
        now = time.monotonic()
        for broker in list(self._brokers.values()):
            if broker.silence(now) > self._longest_request:
                broker.abort()
        if self._ready:
            self._flush()

    def _flush(self) -> None:
        """Send what may be sent now."""
        self._flush_due = False
        if self._failure is not None:
            return
        by_node: dict[int, list[PartitionQueue]] = {}
        for queue in list(self._ready):
            node = self._leaders.get(queue.index, -1)
            if node in self._brokers:
                by_node.setdefault(node, []).append(queue)
            else:
                self._stall(queue)
        for node, queues in by_node.items():
            broker = self._brokers[node]
            if broker.is_spent:
                if not self._under_way[node]:
                    broker.abort()  # and another takes its place
                continue
            while self._under_way[node] < _UNDER_WAY and self._send_request(node, broker, queues):
                pass

    def _send_request(self, node: int, broker: Broker, queues: list[PartitionQueue]) -> bool:
        """Send a batch of each partition that has one; whether there was any."""
        now = int(time.time() * 1000)
        size = 0
        batches: list[tuple[PartitionQueue, Batch]] = []
        for _ in range(len(queues)):
            if size > _LARGEST_REQUEST - MAXIMUM_MESSAGE:
                break
            queue = queues.pop(0)
            batch = queue.take(node, self._id, now)
            if batch is not None:
                batches.append((queue, batch))
                size += batch.encoded.size
            # First in the next request is who found no room in this one.
            self._ready.pop(queue, None)
            if queue.has_more:
                queues.append(queue)
                self._ready[queue] = None
        if not batches:
            return False
        correlation_id = broker.next_id()
        pieces = encode_request(
            correlation_id,
            CLIENT_ID.encode(),
            self._topic.encode(),
            self._longest_request,
            [(queue.index, batch.encoded) for queue, batch in batches],
        )
        self._under_way[node] += 1
        broker.send(correlation_id, pieces, partial(self._answered, node, batches))
        return True

    def _answered(
        self, node: int, batches: list[tuple[PartitionQueue, Batch]], body: memoryview | None
    ) -> None:
        self._under_way[node] -= 1
        if self._failure is not None:
            return
        if body is None:
            for queue, _ in batches:
                self._try_again(queue)
            return
        try:
            results = {result.partition: result for result in decode_response(body)}
            for queue, batch in batches:
                result = results[queue.index]
                if result.error_code:
                    self._failed(queue, batch, result.error_code)
                else:
                    self._acknowledged(queue, batch, result)
        except (Malformed, KeyError, OutOfOrder):
            logger.exception("a response of a broker makes no sense")
            self.abort(kafka.errors.KafkaProtocolError())
        if self._ready:
            self._flush()

    def _acknowledged(self, queue: PartitionQueue, batch: Batch, result: Result) -> None:
        if not queue.acknowledged(batch):
            return
        for offset, sent in enumerate(batch.records, result.base_offset):
            sent.offset = offset
            sent.appended_at = result.appended_at if result.appended_at >= 0 else batch.timestamp
            self.sent.pop(sent, None)
            self._tell(sent, None)

    def _failed(self, queue: PartitionQueue, batch: Batch, error_code: int) -> None:
        error = kafka.errors.for_code(error_code)
        follows = error_code == _OUT_OF_ORDER and not queue.is_first(batch)
        if follows or issubclass(error, kafka.errors.RetriableError):
            self._try_again(queue)
        else:
            logger.error("a broker does not take a batch", error=error.__name__, partition=queue.index)
            self.abort(error())

    def _try_again(self, queue: PartitionQueue) -> None:
        queue.failed()
        self._stall(queue)

    # Finding leaders

    def _stall(self, queue: PartitionQueue) -> None:
        self._ready.pop(queue, None)
        self._stalled[queue] = None
        if self._recovery is None and self._failure is None:
            if time.monotonic() - self._tried_at > _LONGEST_PAUSE:
                self._pause = 0.0
            self._recovery = self._loop.create_task(self._recover())

    async def _recover(self) -> None:
        """Find a leader for each partition that has none, however long that takes."""
        problem = ""
        while self._stalled:
            await self._wait()
            try:
                await self._learn()
                await self._connect_leaders()
            except (OSError, KafkaError) as error:
                if type(error).__name__ != problem:
                    problem = type(error).__name__
                    logger.warning("no leader for a partition of the log", error=problem)
            except Exception:
                # A defect, of ours or in the client's messages: it is tried again all the same, as long as the owner waits.
                logger.exception("no leader for a partition of the log")
        self._recovery = None

    async def _wait(self) -> None:
        pause = self._pause
        self._pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that receivers do not come all at once
        self._tried_at = time.monotonic()

    async def _start(self) -> None:
        await self._learn()
        answer = await self._ask(InitProducerIdRequest[1](transactional_id=None, transaction_timeout_ms=-1))
        if answer.error_code:
            raise kafka.errors.for_code(answer.error_code)
        self._stalled = dict.fromkeys(self._queues.values())
        # One that cannot be reached is looked for again when there is something to send.
        with contextlib.suppress(OSError, KafkaError):
            await self._connect_leaders()
        self._stalled = {}
        self._id = ProducerId(answer.producer_id, answer.producer_epoch)

    async def _learn(self) -> None:
        """Ask who leads the partitions."""
        answer = await self._ask(
            MetadataRequest[5](
                topics=[MetadataRequest.MetadataRequestTopic(name=self._topic)],
                allow_auto_topic_creation=False,
            )
        )
        topic = next((one for one in answer.topics if one.name == self._topic), None)
        if topic is None or topic.error_code:
            raise kafka.errors.for_code(topic.error_code if topic else _UNKNOWN_TOPIC)
        self._addresses = {broker.node_id: (broker.host, broker.port) for broker in answer.brokers}
        self._leaders = {one.partition_index: one.leader_id for one in topic.partitions}
        for index in self._leaders:
            self._queues.setdefault(index, PartitionQueue(index))

    async def _ask(self, request: Any) -> Any:
        """Ask any broker."""
        problem: Exception = KafkaError()
        for broker in random.sample(list(self._brokers.values()), len(self._brokers)):
            try:
                async with asyncio.timeout(_CONNECT):
                    return await broker.ask(request)
            except (OSError, KafkaError) as error:
                problem = error
        addresses = {*self._addresses.values(), *map(host_and_port, self._settings.bootstrap_servers)}
        for host, port in random.sample(list(addresses), len(addresses)):
            try:
                async with asyncio.timeout(_CONNECT):
                    broker = await Broker.connect(host, port, self._settings, lambda _: None)
                    try:
                        return await broker.ask(request)
                    finally:
                        broker.abort()
            except (OSError, KafkaError) as error:
                problem = error
        raise problem

    async def _connect_leaders(self) -> None:
        """Connect to the leaders of those that wait; each goes on as soon as its leader is there."""
        self._unstall()
        nodes = {self._leaders.get(queue.index, -1) for queue in self._stalled} & self._addresses.keys()
        async with asyncio.TaskGroup() as tasks:
            connecting = [tasks.create_task(self._connect(node)) for node in nodes]
        for error in (one.result() for one in connecting):
            if error is not None:
                raise error

    async def _connect(self, node: int) -> Exception | None:
        host, port = self._addresses[node]
        try:
            async with asyncio.timeout(_CONNECT):
                broker = await Broker.connect(host, port, self._settings, partial(self._lost, node))
        except (OSError, KafkaError) as error:
            return error
        # `abort` may have been called when the connection was open, and our turn had not come.
        if self._failure is not None:
            broker.abort()
            return self._failure
        if not broker.is_open:  # lost by the time that our turn has come
            return ConnectionResetError()
        self._brokers[node] = broker
        self._unstall()
        return None

    def _unstall(self) -> None:
        for queue in list(self._stalled):
            if self._leaders.get(queue.index) in self._brokers:
                del self._stalled[queue]
                self._ready[queue] = None
        self._flush()

    def _lost(self, node: int, broker: Broker) -> None:
        """A connection is gone; what was under way on it is to be sent again already."""
        if self._brokers.get(node) is broker:
            del self._brokers[node]
        if self._failure is not None:
            self._end()
        elif self._ready:
            self._flush()
