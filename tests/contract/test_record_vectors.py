"""Records: yesterday's bytes still decode, and nothing but a record does."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.identifiers import UploadId
from ingest.contract.records import (
    MAX_PAYLOAD,
    MAX_RECORD,
    CorruptRecord,
    Instance,
    Kind,
    Outcome,
    Place,
    decode,
    encode_header,
    instance_of,
    outcome_of,
)
from workers.log.upload import instance_in

UPLOAD = UploadId.of(0x01020304, 0x05060708090A, 7)
INSTANCE = Instance(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.2.3.4",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    size=6,
    seal=bytes(range(16)),
    calling_ae_title="CT1",
    called_ae_title="DICOM-INGEST",
    peer_address="192.0.2.1",
    received_at=1_700_000_000_000_000_000,
)
UNKNOWN = msgspec.structs.replace(INSTANCE, unknown_source=True)
BROUGHT = msgspec.structs.replace(INSTANCE, association_id="19ac2f5e100-7")
OUTCOME = Outcome(
    sop_instance_uid="1.2.3.4",
    place=Place.DUPLICATE,
    reason="",
    source_digest="ab" * 32,
    store="main",
    key="0a1/1.2.3.4.dcm",
    at=1_700_000_000_000_000_001,
    end_position=4096,
)

FOR_THE_LEDGER = msgspec.structs.replace(
    OUTCOME,
    study_instance_uid="1.2.3",
    series_instance_uid="1.2.3.9",
    source="ct",
    calling_ae_title="CT1",
    received_at=1_700_000_000_000_000_000,
    size=6,
    findings=("patient-unidentified",),
    patient="0f" * 16,
    patient_scope="issuer",
    accession="f0" * 16,
)
# As the release before wrote it; see `test_an_older_outcome_still_decodes`.
BEFORE_THE_LEDGER = (
    "01107700000000004df090200102030405060708090a0000000000070000000098a7312e322e332e"
    "34a96475706c6963617465a0d9406162616261626162616261626162616261626162616261626162"
    "6162616261626162616261626162616261626162616261626162616261626162616261626162a46d"
    "61696eaf3061312f312e322e332e342e64636dcf17979cfe362a0001cd1000"
)

# Kind, index, metadata, payload, and the bytes: version and kind, metadata and payload length, CRC, upload id,
# index, metadata, payload. These never change; what they mean is in the module's docstring.
Vector = tuple[Kind, int, Instance | Outcome | None, bytes, str]
VECTORS: list[Vector] = [
    (Kind.PART, 3, None, b"PART", "0102000004000000754d57250102030405060708090a0000000000070300000050415254"),
    (Kind.ABORT, 0, None, b"", "0104000000000000fc28c4d90102030405060708090a00000000000700000000"),
    (Kind.EPOCH, 0, None, b"", "01050000000000005cbafa870102030405060708090a00000000000700000000"),
    (
        Kind.INSTANCE,
        1,
        INSTANCE,
        b"DICOM!",
        (
            "0101700006000000ab3e78f70102030405060708090a000000000007010000009bb9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000c2a04449434f4d21"
        ),
    ),
    (
        Kind.END,
        2,
        UNKNOWN,
        b"",
        (
            "01037000000000000708bc400102030405060708090a000000000007020000009bb9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000c3a0"
        ),
    ),
    (
        Kind.INSTANCE,
        1,
        BROUGHT,
        b"DICOM!",
        (
            "01017d00060000006b6b76850102030405060708090a000000000007010000009bb9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000c2ad31396163326635653130302d37444943"
            "4f4d21"
        ),
    ),
    (
        Kind.END,
        2,
        BROUGHT,
        b"",
        (
            "01037d00000000004e4e7fb30102030405060708090a000000000007020000009bb9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000c2ad31396163326635653130302d37"
        ),
    ),
    (
        Kind.OUTCOME,
        0,
        FOR_THE_LEDGER,
        b"",
        (
            "0110f90000000000f0a7287e0102030405060708090a00000000000700000000dc0012a7312e322e"
            "332e34a96475706c6963617465a0d940616261626162616261626162616261626162616261626162"
            "61626162616261626162616261626162616261626162616261626162616261626162616261626162"
            "a46d61696eaf3061312f312e322e332e342e64636dcf17979cfe362a0001cd1000a5312e322e33a7"
            "312e322e332e39a26374a3435431cf17979cfe362a00000691b470617469656e742d756e6964656e"
            "746966696564d9203066306630663066306630663066306630663066306630663066306630663066"
            "a6697373756572d92066306630663066306630663066306630663066306630663066306630663066"
            "30"
        ),
    ),
]

# As they were before an instance said which association had brought it, and before it said whether its source was known.
OLDER: list[Vector] = [
    (
        Kind.INSTANCE,
        1,
        INSTANCE,
        b"DICOM!",
        (
            "01016f00060000000cfc56bc0102030405060708090a000000000007010000009ab9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000c24449434f4d21"
        ),
    ),
    (
        Kind.END,
        2,
        INSTANCE,
        b"",
        (
            "01036f00000000006450de6f0102030405060708090a000000000007020000009ab9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000c2"
        ),
    ),
    (
        Kind.INSTANCE,
        1,
        UNKNOWN,
        b"DICOM!",
        (
            "01016f0006000000c4d055d40102030405060708090a000000000007010000009ab9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000c34449434f4d21"
        ),
    ),
    (
        Kind.END,
        2,
        UNKNOWN,
        b"",
        (
            "01036f000000000067d3b59d0102030405060708090a000000000007020000009ab9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000c3"
        ),
    ),
    (
        Kind.INSTANCE,
        1,
        INSTANCE,
        b"DICOM!",
        (
            "01016e000600000033995a730102030405060708090a0000000000070100000099b9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a00004449434f4d21"
        ),
    ),
    (
        Kind.END,
        2,
        INSTANCE,
        b"",
        (
            "01036e00000000005ce2d64d0102030405060708090a0000000000070200000099b9312e322e3834"
            "302e31303030382e352e312e342e312e312e32a7312e322e332e34b3312e322e3834302e31303030"
            "382e312e322e3106c410000102030405060708090a0b0c0d0e0fa3435431ac4449434f4d2d494e47"
            "455354a93139322e302e322e31cf17979cfe362a0000"
        ),
    ),
]


@pytest.mark.parametrize(("kind", "index", "metadata", "payload", "encoded"), VECTORS)
def test_golden_records_encode(
    kind: Kind, index: int, metadata: Instance | Outcome | None, payload: bytes, encoded: str
) -> None:
    """A record of these fields has these bytes."""
    pieces = [memoryview(payload)] if payload else []
    assert (encode_header(kind, UPLOAD, index, metadata, pieces) + payload).hex() == encoded


@pytest.mark.parametrize(("kind", "index", "metadata", "payload", "encoded"), VECTORS + OLDER)
def test_golden_records_decode(
    kind: Kind, index: int, metadata: Instance | Outcome | None, payload: bytes, encoded: str
) -> None:
    """Bytes that were written once are read for ever."""
    record = decode(bytes.fromhex(encoded))
    assert (record.kind, record.upload_id, record.index) == (kind, UPLOAD, index)
    assert record.payload == payload
    if isinstance(metadata, Instance):
        assert instance_of(record) == metadata
    elif isinstance(metadata, Outcome):
        assert outcome_of(record) == metadata
    else:
        assert not record.metadata


@pytest.mark.parametrize(
    "text", ["", "19ac2f5e100-7", "19ac2f5e100-", "Doe^Jane-1", "1-2\n", "a-" + "1" * 21]
)
def test_only_the_id_of_an_association_is_told(text: str) -> None:
    """What is none, as a damaged or foreign record may have it, does not come to a log line; the instance counts all the same."""
    instance = msgspec.structs.replace(INSTANCE, association_id=text)
    read = instance_in(decode(encode_header(Kind.INSTANCE, UPLOAD, 1, instance)))
    expected = text if text == "19ac2f5e100-7" else ""
    assert read == msgspec.structs.replace(INSTANCE, association_id=expected)


def test_an_older_outcome_still_decodes() -> None:
    """Fields added later have defaults: an outcome from before the ledger, or before its end position was kept."""
    record = decode(bytes.fromhex(BEFORE_THE_LEDGER))
    assert outcome_of(record) == OUTCOME
    fields = bytes.fromhex("97") + bytes(record.metadata)[1:-3]
    oldest = outcome_of(record._replace(metadata=memoryview(fields)))
    assert oldest == msgspec.structs.replace(OUTCOME, end_position=0)


@given(
    kind=st.sampled_from([Kind.PART, Kind.INSTANCE]),
    index=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=2000),
    cuts=st.lists(st.integers(0, 2000), max_size=4),
)
def test_decode_inverts_encode(kind: Kind, index: int, payload: bytes, cuts: list[int]) -> None:
    """However the payload is cut into pieces, the record is the same and reads back."""
    view = memoryview(payload)
    edges = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    pieces = [view[start:end] for start, end in itertools.pairwise(edges)]
    metadata = INSTANCE if kind is Kind.INSTANCE else None
    header = encode_header(kind, UPLOAD, index, metadata, pieces)
    assert header == encode_header(kind, UPLOAD, index, metadata, [view])
    record = decode(header + payload)
    assert (record.kind, record.index, bytes(record.payload)) == (kind, index, payload)


@given(st.binary(max_size=400))
def test_other_bytes_are_refused(data: bytes) -> None:
    """Random bytes raise CorruptRecord and nothing else."""
    with pytest.raises(CorruptRecord):
        decode(data)


@given(vector=st.sampled_from(VECTORS), bit=st.integers(0, 10_000))
def test_every_flipped_bit_is_found(vector: tuple[object, ...], bit: int) -> None:
    """One wrong bit anywhere makes a record corrupt."""
    data = bytearray(bytes.fromhex(str(vector[4])))
    bit %= len(data) * 8
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptRecord):
        decode(data)


@given(vector=st.sampled_from(VECTORS), data=st.data())
def test_a_cut_or_lengthened_record_is_refused(vector: tuple[object, ...], data: st.DataObject) -> None:
    """A record fills its bytes exactly."""
    encoded = bytes.fromhex(str(vector[4]))
    size = data.draw(st.integers(0, len(encoded) - 1))
    for wrong in (encoded[:size], encoded + b"\0"):
        with pytest.raises(CorruptRecord):
            decode(wrong)


def test_the_largest_record_fits_kafka() -> None:
    """The largest record stays below Kafka's default limit of 1 MiB, its own headers counted."""
    payload = [memoryview(bytes(MAX_PAYLOAD))]
    size = len(encode_header(Kind.INSTANCE, UPLOAD, 1, INSTANCE, payload)) + MAX_PAYLOAD
    assert size <= MAX_RECORD < 1024 * 1024 - 2048
