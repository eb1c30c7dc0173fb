"""The data sets of storage commitment (PS3.4 Tables J.3-1 and J.3-2), against pydicom and against the hostile."""

import struct
from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as PydicomSequence

from ingest.contract.commitments import Finding, Found, Reference
from ingest.dimse.commitment_report import Failed, Report, encode_report, parse_report, report_of
from ingest.dimse.commitment_request import encode_request, parse_request
from ingest.dimse.data_set import MAX_DEPTH, encode_element, encode_item
from ingest.errors import Refused

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOTS = st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){1,5}", fullmatch=True)
REFERENCES = st.builds(Reference, ROOTS, ROOTS)
TITLES = st.from_regex(r"|[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?", fullmatch=True)
FAILED = st.builds(Failed, ROOTS, ROOTS, st.integers(0, 0xFFFF))
REPORTS = st.builds(Report, ROOTS, st.lists(REFERENCES, max_size=8), st.lists(FAILED, max_size=8), TITLES)
EXPLICIT = pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "implicit"])


def parsed(data: bytes, *, explicit: bool = True, maximum: int = 1000) -> tuple[str, list[Reference]]:
    request = parse_request(data, explicit=explicit, maximum=maximum)
    return request.transaction_uid, list(request.references)


def refusal(data: bytes, *, explicit: bool = True, maximum: int = 1000) -> int:
    """The status of a request that is refused."""
    with pytest.raises(Refused) as caught:
        parse_request(data, explicit=explicit, maximum=maximum)
    assert len(caught.value.comment) <= 64
    return caught.value.status


def outcome(parse: Callable[..., object], data: bytes | bytearray, *, explicit: bool) -> int:
    try:
        parse(data, explicit=explicit, maximum=10)
    except Refused as refused:
        return refused.status
    return 0


def by_pydicom(data_set: Dataset, *, explicit: bool) -> bytes:
    written = DicomBytesIO()
    written.is_implicit_VR = not explicit
    written.is_little_endian = True
    write_dataset(written, data_set)
    return written.getvalue()


def read_by_pydicom(data: bytes, *, explicit: bool) -> Dataset:
    return read_dataset(BytesIO(data), not explicit, True)


def request_of(
    transaction_uid: str, references: list[Reference], *, undefined: bool, foreign: bool
) -> Dataset:
    """A request as a pydicom data set; ``foreign`` adds what peers add: media, groups of their own."""
    items = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        if foreign:
            item.StorageMediaFileSetID = "DISC 1"
            deeper = Dataset()
            deeper.ReferencedSOPInstanceUID = "1.2.3"  # of something else
            item.add_new(0x00091001, "SQ", [deeper, Dataset()])
            item.add_new(0x00091002, "OB", b"\0\1\2\3")
        item.is_undefined_length_sequence_item = undefined
        items.append(item)
    made = Dataset()
    made.TransactionUID = transaction_uid
    made.ReferencedSOPSequence = PydicomSequence(items)
    made["ReferencedSOPSequence"].is_undefined_length = undefined
    if foreign:
        made.SpecificCharacterSet = "ISO_IR 100"
        made.StorageMediaFileSetUID = "1.2.3.4"
        made.add_new(0x00091001, "SQ", [Dataset()])
        made["00091001"].is_undefined_length = undefined
    return made


@EXPLICIT
@given(ROOTS, st.lists(REFERENCES, min_size=1, max_size=10, unique=True), st.booleans(), st.booleans())
def test_requests_of_pydicom(
    explicit: bool, uid: str, references: list[Reference], undefined: bool, foreign: bool
) -> None:
    """What pydicom writes, with defined and undefined lengths and more elements than needed, is read."""
    made = request_of(uid, references, undefined=undefined, foreign=foreign)
    assert parsed(by_pydicom(made, explicit=explicit), explicit=explicit) == (uid, references)


@EXPLICIT
@given(ROOTS, st.lists(REFERENCES, min_size=1, max_size=10, unique=True))
def test_pydicom_reads_our_requests(explicit: bool, uid: str, references: list[Reference]) -> None:
    """And the other way round, and by ourselves."""
    data = encode_request(uid, references, explicit=explicit)
    read = read_by_pydicom(data, explicit=explicit)
    assert read.TransactionUID == uid
    assert [
        Reference(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for item in read.ReferencedSOPSequence
    ] == references
    assert by_pydicom(read, explicit=explicit) == data
    assert parsed(data, explicit=explicit) == (uid, references)


@EXPLICIT
@given(REPORTS)
def test_reports_with_pydicom(explicit: bool, report: Report) -> None:
    """What we write pydicom reads, element by element, writes the same, and we read again."""
    data = encode_report(report, explicit=explicit)
    read = read_by_pydicom(data, explicit=explicit)
    assert read.TransactionUID == report.transaction_uid
    assert read.get("RetrieveAETitle", "") == report.retrieve_ae_title
    committed = [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for item in read.get("ReferencedSOPSequence", [])
    ]
    assert committed == [(each.sop_class_uid, each.sop_instance_uid) for each in report.committed]
    failed = [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.FailureReason)
        for item in read.get("FailedSOPSequence", [])
    ]
    assert failed == report.failed
    # PS3.4 Table J.3-2: neither sequence is there without items
    assert ("FailedSOPSequence" in read, "ReferencedSOPSequence" in read) == (bool(failed), bool(committed))
    assert report.event_type_id == (2 if failed else 1)
    assert by_pydicom(read, explicit=explicit) == data
    assert parse_report(data, explicit=explicit, maximum=100) == report


def test_reasons() -> None:
    """PS3.3 C.14.1.1: absent 0112H, of another class 0119H, all else 0110H."""
    failed = [Found(CT, f"1.2.{finding}", finding) for finding in Finding if finding is not Finding.PROVED]
    report = report_of("2.25.1", [Found(CT, "1.3", Finding.PROVED)], failed, "")
    reasons = {Finding(int(each.sop_instance_uid[4:])).name: each.reason for each in report.failed}
    assert reasons == {
        "ABSENT": 0x0112,
        "CLASS_MISMATCH": 0x0119,
        "SET_APART": 0x0110,
        "DAMAGED": 0x0110,
        "UNAVAILABLE": 0x0110,
        "UNDECIDED": 0x0110,
    }
    assert encode_report(report, explicit=True)


def test_repeated_references_are_one() -> None:
    """In the order of their first mention."""
    first, second = Reference(CT, "1.2.1"), Reference(CT, "1.2.2")
    data = encode_request("2.25.1", [first, second, first, first], explicit=True)
    assert parsed(data) == ("2.25.1", [first, second])


# The hostile. `el` is an element in Explicit VR, `ONE` a whole item.


def el(tag: int, vr: bytes, value: bytes) -> bytes:
    return encode_element(tag, vr, value, explicit=True)


UID = el(0x00081195, b"UI", b"2.25.1")
CLASS = el(0x00081150, b"UI", CT.encode())
INSTANCE = el(0x00081155, b"UI", b"1.2.3")
ONE = encode_item(CLASS + INSTANCE)


def sequence(*items: bytes, tag: int = 0x00081199) -> bytes:
    return el(tag, b"SQ", b"".join(items))


def undefined(tag: int, vr: bytes = b"SQ") -> bytes:
    return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, 0xFFFFFFFF)


def structure(element: int, length: int = 0) -> bytes:
    return struct.pack("<HHI", 0xFFFE, element, length)


OPEN_ITEM = structure(0xE000, 0xFFFFFFFF)
END_ITEM = structure(0xE00D)
END_SEQUENCE = structure(0xE0DD)
# Sequences within sequences, in an element that nobody asked for.
NEST = undefined(0x00091001) + OPEN_ITEM
UNNEST = END_ITEM + END_SEQUENCE

MALFORMED = {
    "empty": b"",
    "no transaction UID": sequence(ONE),
    "empty transaction UID": el(0x00081195, b"UI", b"") + sequence(ONE),
    "transaction UID of letters": el(0x00081195, b"UI", b"../../etc") + sequence(ONE),
    "transaction UID too long": el(0x00081195, b"UI", b"1" * 65) + sequence(ONE),
    "transaction UID far too long": el(0x00081195, b"UI", b"1" * 60_000) + sequence(ONE),
    "two transaction UIDs": el(0x00081195, b"UI", b"1\\2") + sequence(ONE),
    "transaction UID twice": UID + UID + sequence(ONE),
    "no sequence": UID,
    "empty sequence": UID + sequence(),
    "sequence twice": UID + sequence(ONE) + sequence(ONE),
    "empty item": UID + sequence(encode_item(b"")),
    "no class": UID + sequence(encode_item(INSTANCE)),
    "no instance": UID + sequence(ONE, encode_item(CLASS)),
    "instance twice": UID + sequence(encode_item(CLASS + INSTANCE + INSTANCE)),
    "instance of control characters": UID
    + sequence(encode_item(CLASS + el(0x00081155, b"UI", b"1.2\x1b[31m"))),
    "transaction UID as LO": el(0x00081195, b"LO", b"2.25.1") + sequence(ONE),
    "sequence as OB": UID + el(0x00081199, b"OB", ONE),
    "sequence as UN": UID + el(0x00081199, b"UN", ONE),
    "instance as SQ": UID + sequence(encode_item(CLASS + sequence(ONE, tag=0x00081155))),
    "instance of undefined length": UID + sequence(encode_item(CLASS + undefined(0x00081155, b"UT"))),
    "unknown VR": UID + b"\x08\0\x99\x11??\0\0",
    "implicit": encode_request("2.25.1", [Reference(CT, "1.2.3")], explicit=False),
    "element in a sequence": UID + sequence(CLASS + INSTANCE),
    "item outside": UID + ONE,
    "delimiter outside": END_ITEM + UID + sequence(ONE),
    "delimiter in a defined item": UID + sequence(encode_item(CLASS + INSTANCE + END_ITEM)),
    "delimiter with a length": UID + undefined(0x00081199) + ONE + structure(0xE0DD, 2) + b"\0\0",
    "sequence without end": UID + undefined(0x00081199) + ONE,
    "item without end": UID + sequence(OPEN_ITEM + CLASS + INSTANCE),
    "wrong delimiter": UID + undefined(0x00081199) + OPEN_ITEM + CLASS + INSTANCE + END_SEQUENCE,
    "cut in an element": (UID + sequence(ONE))[:-2],
    "cut in a head": (UID + sequence(ONE)) + b"\x08\0\x99\x11",
    "element beyond its item": UID + sequence(encode_item(CLASS + INSTANCE[:-2])),
    "item beyond its sequence": UID + sequence(ONE + structure(0xE000, 1000)),
    "length of 4 GiB": UID + struct.pack("<HH2sxxI", 8, 0x1199, b"SQ", 0xFFFFFFFE) + ONE,
    "too deep": NEST * 100_000,
    "too deep, and closed": NEST * 100_000 + UNNEST * 100_000 + UID + sequence(ONE),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    """Each is refused as 0115H, invalid argument value, with a comment of ours alone."""
    assert refusal(MALFORMED[name]) == 0x0115


def test_sequences_within_sequences() -> None:
    """What nobody asked for may be nested, to a depth; of UN its content is in implicit VR (PS3.5 6.2.2)."""
    levels = (MAX_DEPTH - 1) // 2
    unknown = undefined(0x00091003, b"UN") + OPEN_ITEM + b"\x09\0\x10\x10\x02\0\0\0ab" + UNNEST
    data = UID + NEST * levels + UNNEST * levels + unknown + sequence(ONE)
    assert parsed(data) == ("2.25.1", [Reference(CT, "1.2.3")])
    inside = sequence(encode_item(CLASS + INSTANCE + NEST * (levels - 1) + UNNEST * (levels - 1)))
    assert parsed(UID + inside) == ("2.25.1", [Reference(CT, "1.2.3")])
    assert refusal(UID + NEST * (MAX_DEPTH + 1) + UNNEST * (MAX_DEPTH + 1) + sequence(ONE)) == 0x0115


@EXPLICIT
def test_too_many(explicit: bool) -> None:
    """More references than allowed are refused as 0213H when the first too many is met, repeated ones too."""
    references = [Reference(CT, f"1.2.{number}") for number in range(101)]
    data = encode_request("2.25.1", references, explicit=explicit)
    assert refusal(data, explicit=explicit, maximum=100) == 0x0213
    assert parsed(data, explicit=explicit, maximum=101) == ("2.25.1", references)
    repeated = encode_request("2.25.1", references[:1] * 101, explicit=explicit)
    assert refusal(repeated, explicit=explicit, maximum=100) == 0x0213
    # what comes after the first too many is not looked at
    assert refusal(data + b"\xff" * 9, explicit=explicit, maximum=100) == 0x0213


def test_too_many_elements() -> None:
    """A data set of nothing but small elements costs no more than one of references."""
    small = b"".join(el(0x00090000 + element, b"LO", b"") for element in range(0x1001, 0x4001))
    assert refusal(UID + small + sequence(ONE), maximum=10) == 0x0213
    assert refusal(UID + sequence(encode_item(CLASS + INSTANCE + small)), maximum=10) == 0x0213


@EXPLICIT
@given(st.data())
def test_damaged(explicit: bool, data: st.DataObject) -> None:
    """A request with bytes changed, cut or put in is read or refused, and nothing else happens."""
    whole = bytearray(
        by_pydicom(
            request_of("2.25.1", [Reference(CT, "1.2.3")], undefined=True, foreign=True), explicit=explicit
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3)) or b"\xff"
    for parse in (parse_request, parse_report):
        assert outcome(parse, whole, explicit=explicit) in (0, 0x0115, 0x0213)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(data: bytes, explicit: bool) -> None:
    """Fuzz: any bytes are a request or refused."""
    assert outcome(parse_request, data, explicit=explicit) in (0, 0x0115, 0x0213)


def test_report_of_a_careless_peer() -> None:
    """A reason that is missing, a title that cannot be one: the report counts all the same."""
    failed = sequence(ONE, tag=0x00081198)
    report = parse_report(el(0x00080054, b"AE", b"A\x1bB") + UID + failed, explicit=True, maximum=10)
    assert report == Report("2.25.1", [], [Failed(CT, "1.2.3", 0)])
    with pytest.raises(Refused) as caught:
        parse_report(UID + sequence(ONE, ONE, ONE), explicit=True, maximum=1)
    assert caught.value.status == 0x0213
