"""Batches and requests in pieces are, joined, what kafka-python makes and reads."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.producer import ProduceRequest, ProduceResponse
from kafka.record import MemoryRecords

from ingest.contract.producer.produce import Malformed, Result, decode_response, encode_request
from ingest.contract.producer.record_batch import HEAD, MOST_OVERHEAD, ProducerId, encode_batch

SIZES = st.sampled_from([0, 1, 55, 56, 57, 63, 64, 8183, 8184, 8192, 300_000])


def joined(pieces: Any) -> bytes:
    return b"".join(pieces)


@given(st.lists(SIZES, min_size=1, max_size=150), st.integers(0, 2**31 - 1))
def test_a_batch_is_read_as_it_was_written(sizes: list[int], sequence: int) -> None:
    """Each value, in order, under the producer's id and sequence number; the CRC is right, the size is what was said."""
    values = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    batch = encode_batch(
        [memoryview(value) for value in values], ProducerId(2**40, 7), sequence, 1_700_000_000_123
    )
    raw = joined(batch.pieces)
    assert len(raw) == batch.size <= HEAD + sum(MOST_OVERHEAD + size for size in sizes)
    found = MemoryRecords(raw).next_batch()
    assert found.validate_crc()
    assert (found.producer_id, found.producer_epoch, found.base_sequence) == (2**40, 7, sequence)
    records = list(found)
    assert [(record.key, record.value, record.headers) for record in records] == [
        (None, value, []) for value in values
    ]
    assert {record.timestamp for record in records} == {1_700_000_000_123}
    assert found.last_offset_delta == len(values) - 1


def test_values_are_not_copied() -> None:
    """What is sent is where it was."""
    value = memoryview(bytearray(100_000))
    assert any(piece is value for piece in encode_batch([value], ProducerId(1, 0), 0, 0).pieces)


def test_a_request_is_the_clients_own() -> None:
    """Byte for byte what kafka-python sends for the same batches."""
    batches = [
        (index, encode_batch([b"x" * 1000, b"y" * index], ProducerId(5, 1), index, 9)) for index in (3, 0, 12)
    ]
    topic = ProduceRequest.TopicProduceData
    data = [topic.PartitionProduceData(index=index, records=joined(batch.pieces)) for index, batch in batches]
    theirs = ProduceRequest[7](
        transactional_id=None,
        acks=-1,
        timeout_ms=10_500,
        topic_data=[topic(name="dicom-instances", partition_data=data)],
    )
    theirs.with_header(correlation_id=77, client_id="dicom-ingest")
    ours = joined(encode_request(77, b"dicom-ingest", b"dicom-instances", 10.5, batches))
    assert ours == theirs.encode(framed=True, header=True)


def response() -> bytes:
    topic = ProduceResponse.TopicProduceResponse
    answers = [
        topic.PartitionProduceResponse(
            index=index, error_code=code, base_offset=4, log_append_time_ms=when, log_start_offset=0
        )
        for index, code, when in ((3, 0, 1_700_000_000_000), (0, 6, -1))
    ]
    encoded: bytes = ProduceResponse[7](
        responses=[topic(name="dicom-instances", partition_responses=answers)], throttle_time_ms=0
    ).encode()
    return encoded


def test_a_response_is_read() -> None:
    """Of each partition its error and the time at which its batch was appended."""
    assert decode_response(memoryview(response())) == [
        Result(3, 0, 4, 1_700_000_000_000),
        Result(0, 6, 4, -1),
    ]


def test_a_response_is_read_once() -> None:
    """Lengths below zero lead back: two thousand million topics would be read from eight bytes."""
    with pytest.raises(Malformed):
        decode_response(memoryview(bytes.fromhex("7fffffff fffc fffa")))


def test_a_response_that_is_cut_short_is_said_to_be() -> None:
    """Wherever it ends."""
    whole = response()
    for end in range(len(whole) - 4):  # behind that is the time to wait, which nobody reads
        with pytest.raises(Malformed):
            decode_response(memoryview(whole)[:end])
