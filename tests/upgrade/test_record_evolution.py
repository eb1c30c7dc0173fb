"""During a rolling upgrade two releases read each other's records: the last one those of the next, and the other way round.

The next release is one with a field more, as the rule of evolution in `ingest.contract.records` lets it have. Golden bytes of past
releases are in ``tests/contract/``.
"""

from typing import Any

import msgspec
import pytest

from ingest.contract.records import (
    CorruptRecord,
    Instance,
    Kind,
    NewerRecord,
    Outcome,
    Place,
    decode,
    encode_header,
    instance_of,
    outcome_of,
)
from tests.support.next_release import NextInstance, NextOutcome, newer_record

UPLOAD = bytes(range(16))
INSTANCE = Instance(
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.3",
    "1.2.840.10008.1.2.1",
    2,
    bytes(16),
    "CT1",
    "ARCHIVE",
    "192.0.2.1",
    7,
    False,
    "19ac2f5e100-7",
)
OUTCOME = Outcome(
    "1.2.3", Place.STORED, "", "ab" * 32, "main", "0a/1/1.2.3.dcm", 7, 4096, "1.2", "1.2.9", "ct", "CT1", 6, 2
)
FIRST_OF_INSTANCE = 9  # fields of the first release; all others came later
FIRST_OF_OUTCOME = 7


def record_of(kind: Kind, metadata: msgspec.Struct, payload: bytes = b"") -> bytes:
    """A whole record."""
    return encode_header(kind, UPLOAD, 1, metadata, [memoryview(payload)]) + payload


def fields(value: msgspec.Struct) -> list[Any]:
    """In their order, as a record has them."""
    return [getattr(value, name) for name in value.__struct_fields__]


def test_this_release_reads_instances_of_the_next() -> None:
    """Receivers are upgraded before workers, or a worker is rolled back: what it knows is all there, and so is the data set."""
    record = decode(record_of(Kind.INSTANCE, NextInstance(*fields(INSTANCE)), b"AB"))
    assert instance_of(record) == INSTANCE
    assert bytes(record.payload) == b"AB"


def test_this_release_reads_outcomes_of_the_next() -> None:
    """As a ledger or `status` that is older than a worker."""
    assert outcome_of(decode(record_of(Kind.OUTCOME, NextOutcome(*fields(OUTCOME))))) == OUTCOME


def test_the_next_release_reads_instances_of_this() -> None:
    """Its new field has its default."""
    record = decode(record_of(Kind.INSTANCE, INSTANCE, b"AB"))
    assert msgspec.msgpack.decode(record.metadata, type=NextInstance) == NextInstance(*fields(INSTANCE))


def test_the_next_release_reads_outcomes_of_this() -> None:
    """Its new field has its default."""
    record = decode(record_of(Kind.OUTCOME, OUTCOME))
    assert msgspec.msgpack.decode(record.metadata, type=NextOutcome) == NextOutcome(*fields(OUTCOME))


@pytest.mark.parametrize("known", range(FIRST_OF_OUTCOME, len(Outcome.__struct_fields__)))
def test_an_outcome_of_each_release_before_is_read(known: int) -> None:
    """Whatever fields it did not have yet."""
    before = msgspec.defstruct("Before", list(Outcome.__struct_fields__[:known]), array_like=True)
    record = decode(record_of(Kind.OUTCOME, before(*fields(OUTCOME)[:known])))
    assert outcome_of(record) == Outcome(*fields(OUTCOME)[:known])


@pytest.mark.parametrize("known", range(FIRST_OF_INSTANCE, len(Instance.__struct_fields__)))
def test_an_instance_of_each_release_before_is_read(known: int) -> None:
    """It is of a known source, as others were refused at the door then, and names no association where it had no id of one."""
    before = msgspec.defstruct("Before", list(Instance.__struct_fields__[:known]), array_like=True)
    record = decode(record_of(Kind.INSTANCE, before(*fields(INSTANCE)[:known]), b"AB"))
    assert instance_of(record) == Instance(*fields(INSTANCE)[:known])
    assert not instance_of(record).unknown_source
    assert not instance_of(record).association_id


@pytest.mark.parametrize("kind", [0, 255])
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_whole_and_unknown_is_not_taken_for_damage(version: int, kind: int) -> None:
    """Another layout or another kind of record: whoever meets it upgrades, and does not set it aside."""
    with pytest.raises(NewerRecord, match="upgrade"):
        decode(newer_record(UPLOAD, version=version, kind=kind))


@pytest.mark.parametrize("place", [0, 1])
def test_a_flipped_bit_is_no_newer_release(place: int) -> None:
    """Of version or kind: the CRC says so."""
    data = bytearray(record_of(Kind.INSTANCE, INSTANCE))
    data[place] ^= 0x40
    with pytest.raises(CorruptRecord) as caught:
        decode(bytes(data))
    assert not isinstance(caught.value, NewerRecord)
