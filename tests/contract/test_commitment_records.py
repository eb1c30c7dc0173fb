"""Records of storage commitment: round trips, golden bytes, and refusal of what is none."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.commitments import (
    MAX_REFERENCES,
    CommitAccepted,
    CommitAsked,
    CommitAttempted,
    CommitClosed,
    CommitDecided,
    Commitment,
    CommitProved,
    CommitTaken,
    Finding,
    Found,
    Policy,
    Reference,
    commitment_of,
    digest_of,
    encode_references,
    found_of,
    kind_of,
    references_of,
)
from ingest.contract.identifiers import TransactionId, UploadId
from ingest.contract.records import MAX_PAYLOAD, CorruptRecord, Kind, decode, encode_header

TRANSACTION = TransactionId.of("CT", "1.2.3")
ASKED = CommitAsked(
    bytes(TRANSACTION), "CT", ("CT", "CT_WS"), Policy.READ, 0, 1, 2, 1_700_000_000_000_000_000
)
ALL: list[Commitment] = [
    ASKED,
    CommitAccepted("1.2.3", "CT", "DICOM-INGEST", "ct", 2, b"d" * 32, 2, 7, 9, 10.0, 5),
    CommitProved(0, 1, 2, 3, 5),
    CommitDecided(1, 5),
    CommitTaken(7, 9, 60.0),
    CommitAttempted(3, "no association", 40.0, 5),
    CommitClosed("reported", 1, 1, 5),
]
GOLDEN = (
    "0106310024000000eb727f01000000010000000000020000000000030000000098c4103d95690246739029c3db"
    "5d4501b424eaa2435492a24354a543545f5753a472656164000102cf17979cfe362a00009192b9312e322e3834"
    "302e31303030382e352e312e342e312e312e32a7312e322e332e34"
)
ONE = Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4")


@pytest.mark.parametrize("commitment", ALL, ids=lambda one: type(one).__name__)
def test_round_trip(commitment: Commitment) -> None:
    """What is encoded is read back."""
    record = decode(encode_header(kind_of(commitment), TRANSACTION, 0, commitment))
    assert record.kind is kind_of(commitment)
    assert bytes(record.upload_id) == TRANSACTION
    assert commitment_of(record) == commitment


def test_references_travel_as_payload() -> None:
    """A fence carries its instances, a proof the same with findings; the largest fits a record."""
    references = [Reference("1" * 64, f"2.{number:062d}") for number in range(MAX_REFERENCES)]
    payload = encode_references(references)
    assert len(payload) <= MAX_PAYLOAD
    header = encode_header(Kind.COMMIT_ASKED, UploadId.of(1, 2, 3), 0, ASKED, [payload])
    assert references_of(decode(header + payload)) == references
    found = [Found(one.sop_class_uid, one.sop_instance_uid, Finding.ABSENT) for one in references]
    payload = encode_references(found)
    assert len(payload) <= MAX_PAYLOAD
    header = encode_header(Kind.COMMIT_PROVED, TRANSACTION, 0, CommitProved(0, 0, 1, 3, 5), [payload])
    assert found_of(decode(header + payload)) == found


def test_golden_bytes() -> None:
    """The first version's bytes stay readable."""
    payload = encode_references([ONE])
    record = encode_header(Kind.COMMIT_ASKED, UploadId.of(1, 2, 3), 0, ASKED, [payload]) + payload
    assert record.hex() == GOLDEN


@given(st.binary(max_size=200))
def test_only_corrupt_record_escapes(data: bytes) -> None:
    """Whatever stands where metadata and references should."""
    for kind in (Kind.COMMIT_ASKED, Kind.COMMIT_PROVED, Kind.OUTCOME):
        header = encode_header(kind, TRANSACTION, 0, None, [memoryview(data)])
        record = decode(header + data)
        for read in (commitment_of, references_of, found_of):
            with contextlib.suppress(CorruptRecord):
                read(record)


def test_wrong_uid_is_no_reference() -> None:
    """A record is checked again where it is read: it becomes a key."""
    payload = encode_references([Reference("1.2", "../../x")])
    record = decode(encode_header(Kind.COMMIT_ASKED, UploadId.of(1, 2, 3), 0, ASKED, [payload]) + payload)
    with pytest.raises(CorruptRecord):
        references_of(record)


def test_digest_is_of_the_set() -> None:
    """Order and repetition do not matter, anything else does."""
    other = Reference(ONE.sop_class_uid, "1.2.3.5")
    assert digest_of([ONE, other]) == digest_of([other, ONE, other])
    assert digest_of([ONE]) != digest_of([other])


def test_transaction_is_of_its_requester() -> None:
    """The same Transaction UID of another AE title is another transaction, in a partition of its own choice."""
    assert TransactionId.of("CT", "1.2.3") == TRANSACTION != TransactionId.of("MR", "1.2.3")
    homes = {TransactionId.of("CT", f"1.{number}").home(16) for number in range(500)}
    assert homes == set(range(16))
