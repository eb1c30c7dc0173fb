"""Produce, request and response, version 7: what brokers since 2.1 speak, before compact fields.

Made by hand, because a request of the client's own classes is one copy of all that it holds.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ingest.contract.producer.record_batch import Piece, RecordBatch

_API_KEY: Final = 0
_VERSION: Final = 7
_ALL_IN_SYNC: Final = -1  # acks
_SIZE: Final = struct.Struct(">i")
_HEAD: Final = struct.Struct(">hhi")  # API key, version, correlation id
_BODY: Final = struct.Struct(">hhii")  # no transactional id, acks, timeout, number of topics
_PARTITION: Final = struct.Struct(">ii")  # index, bytes of the batch
_RESULT: Final = struct.Struct(">ihqqq")  # index, error code, base offset, log append time, log start offset
_SHORT: Final = struct.Struct(">h")


class Result(NamedTuple):
    """What became of a partition's batch.

    ``base_offset`` is its first record's; ``appended_at`` is in milliseconds since 1970, -1 where the topic has no such time.
    """

    partition: int
    error_code: int
    base_offset: int
    appended_at: int


class Malformed(Exception):  # noqa: N818 - named for the fact
    """A response is not in its form."""


def encode_request(
    correlation_id: int,
    client_id: bytes,
    topic: bytes,
    timeout: float,
    batches: Sequence[tuple[int, RecordBatch]],
) -> list[Piece]:
    """A request of a batch for each of some partitions, acknowledged by all replicas in sync within ``timeout`` seconds."""
    head = b"".join((
        _HEAD.pack(_API_KEY, _VERSION, correlation_id), _SHORT.pack(len(client_id)), client_id,
        _BODY.pack(-1, _ALL_IN_SYNC, int(1000 * timeout), 1),
        _SHORT.pack(len(topic)), topic, _SIZE.pack(len(batches)),
    ))  # fmt: skip
    size = len(head) + sum(_PARTITION.size + batch.size for _, batch in batches)
    before = _SIZE.pack(size) + head
    pieces: list[Piece] = []
    for index, batch in batches:
        first, *others = batch.pieces
        pieces += (b"".join((before, _PARTITION.pack(index, batch.size), first)), *others)
        before = b""
    return pieces


def decode_response(body: memoryview) -> list[Result]:
    """The results of a response, behind its correlation id.

    Raises:
        Malformed: it cannot be read.
    """
    try:
        return list(_results(body))
    except struct.error:
        raise Malformed("the response to a Produce request is cut short") from None


def _results(body: memoryview) -> Iterator[Result]:
    (topics,) = _SIZE.unpack_from(body, 0)
    at = _SIZE.size
    for _ in range(topics):
        (length,) = _SHORT.unpack_from(body, at)
        if length < 0:  # else the same bytes would be read again and again
            raise Malformed("a topic of a Produce response has no name")
        at += _SHORT.size + length
        (partitions,) = _SIZE.unpack_from(body, at)
        at += _SIZE.size
        for _ in range(partitions):
            index, error_code, base_offset, appended_at, _ = _RESULT.unpack_from(body, at)
            at += _RESULT.size
            yield Result(index, error_code, base_offset, appended_at)
