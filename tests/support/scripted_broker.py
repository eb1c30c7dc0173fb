"""A broker whose every answer a test decides: when, and what. For what a real one cannot be made to do at a moment."""

import asyncio
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from kafka.protocol.metadata import MetadataResponse
from kafka.protocol.producer import InitProducerIdResponse, ProduceResponse

PRODUCE, METADATA, INIT_PRODUCER_ID = 0, 3, 22
_HEAD = struct.Struct(">hhi")  # API key, version, correlation id
_NODE, _TOPIC = MetadataResponse.MetadataResponseBroker, MetadataResponse.MetadataResponseTopic
_PRODUCED = ProduceResponse.TopicProduceResponse


@dataclass
class ScriptedBroker:
    """Node 0 of a cluster with one topic; ``addresses`` are those of all nodes."""

    topic: str = "dicom-instances"
    partitions: int = 4
    addresses: dict[int, int] = field(default_factory=dict)  # node: port
    leader: Callable[[int], int] = lambda _: 0  # of a partition
    error: Callable[[int], int] = lambda _: 0  # of a Produce request, by partition
    delay: float = 0.0  # s that a Produce request takes; one of a connection at a time
    silent: bool = False  # answers are kept until `speak`
    connections: int = 0  # ever made
    open: int = 0
    produced: list[list[int]] = field(default_factory=list)  # partitions of each Produce request

    async def __aenter__(self) -> Self:
        self._kept: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.addresses.setdefault(0, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def speak(self) -> None:
        """Give the answers that were kept."""
        self.silent = False
        for writer, answer in self._kept:
            writer.write(answer)
        self._kept.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                key, _, correlation_id = _HEAD.unpack_from(request)
                if key == PRODUCE:
                    await asyncio.sleep(self.delay)
                body = {
                    PRODUCE: self._produce, METADATA: self._metadata, INIT_PRODUCER_ID: _init_producer_id,
                }[key](request)  # fmt: skip
                answer = struct.pack(">ii", 4 + len(body), correlation_id) + body
                if self.silent:
                    self._kept.append((writer, answer))
                else:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def _metadata(self, _request: bytes) -> bytes:
        nodes = [_NODE(node_id=node, host="127.0.0.1", port=port) for node, port in self.addresses.items()]
        partitions = [
            _TOPIC.MetadataResponsePartition(partition_index=index, leader_id=self.leader(index))
            for index in range(self.partitions)
        ]
        topic = _TOPIC(name=self.topic, partitions=partitions)
        return bytes(MetadataResponse[5](brokers=nodes, controller_id=0, topics=[topic]).encode())

    def _produce(self, request: bytes) -> bytes:
        at = request.index(self.topic.encode()) + len(self.topic)
        (count,) = struct.unpack_from(">i", request, at)
        at += 4
        found = []
        for _ in range(count):
            index, size = struct.unpack_from(">ii", request, at)
            found.append(index)
            at += 8 + size
        self.produced.append(found)
        results = [
            _PRODUCED.PartitionProduceResponse(
                index=index, error_code=self.error(index), base_offset=0, log_append_time_ms=int(time.time() * 1000)
            )
            for index in found
        ]  # fmt: skip
        return bytes(
            ProduceResponse[7](responses=[_PRODUCED(name=self.topic, partition_responses=results)]).encode()
        )


def _init_producer_id(_request: bytes) -> bytes:
    return bytes(InitProducerIdResponse[1](producer_id=77, producer_epoch=0).encode())
