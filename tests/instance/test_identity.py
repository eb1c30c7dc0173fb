"""The first bytes of a data set say which instance it is, in each encoding, and nothing else is made of them."""

import contextlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmwrite
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ingest.instance.identity import (
    ELEMENTS_MAX,
    Absent,
    Identity,
    Incomplete,
    TooManyElements,
    Unreadable,
    read_identity,
)

CLASS = "1.2.840.10008.5.1.4.1.1.2"
UID = "1.2.826.1.77"
ENCODINGS: dict[str, dict[str, bool]] = {
    ImplicitVRLittleEndian: {"implicit_vr": True, "little_endian": True},
    ExplicitVRLittleEndian: {"implicit_vr": False, "little_endian": True},
    ExplicitVRBigEndian: {"implicit_vr": False, "little_endian": False},
}


def encoded(data_set: Dataset, transfer_syntax: str) -> memoryview:
    """The data set alone, as it goes over the wire."""
    file = io.BytesIO()
    dcmwrite(file, data_set, force_encoding=True, **ENCODINGS[transfer_syntax])
    return memoryview(file.getvalue())


def instance(*, undefined_length: bool = False) -> Dataset:
    """Elements of short and long form and a sequence with a UID in it, all before the SOP Instance UID."""
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID = "1.9", "1.9.9"
    item.is_undefined_length_sequence_item = undefined_length
    data_set = Dataset()
    data_set.add_new(0x0008_0001, "UL", 4)
    data_set.ImageType = ["ORIGINAL", "PRIMARY"]
    data_set.add_new(0x0008_0015, "SQ", Sequence([item, item]))
    data_set[0x0008_0015].is_undefined_length = undefined_length
    data_set.SOPClassUID, data_set.SOPInstanceUID = CLASS, UID
    data_set.add_new(0x0008_0020, "DA", "20260102")
    return data_set


@pytest.mark.parametrize("transfer_syntax", ENCODINGS)
@pytest.mark.parametrize("undefined_length", [False, True])
def test_both_uids_are_read_in_each_encoding(transfer_syntax: str, undefined_length: bool) -> None:
    """Sequences before them are stepped over or walked through; what their items call themselves is not it."""
    data = encoded(instance(undefined_length=undefined_length), transfer_syntax)
    assert read_identity(data, transfer_syntax) == Identity(CLASS, UID)


@pytest.mark.parametrize("transfer_syntax", ENCODINGS)
def test_a_beginning_is_incomplete_however_it_is_cut(transfer_syntax: str) -> None:
    """Up to the last byte of the SOP Instance UID more bytes are asked for; behind it none."""
    data = encoded(instance(undefined_length=True), transfer_syntax)
    end = bytes(data).rindex(UID.encode()) + len(UID)
    for cut in range(end):
        with pytest.raises(Incomplete):
            read_identity(data[:cut], transfer_syntax)
    assert read_identity(data[:end], transfer_syntax) == Identity(CLASS, UID)


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_what_a_sender_does_not_know_is_walked_through(transfer_syntax: str) -> None:
    """UN of undefined length: its items are in Implicit VR Little Endian (PS3.5 6.2.2), and what follows is not."""
    order = "<" if transfer_syntax == ExplicitVRLittleEndian else ">"
    items = b"".join(
        (
            struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF),
            struct.pack("<HHI", 0x0008, 0x0018, 4) + b"1.9\0",
            struct.pack("<HHI", 0x0008, 0x1115, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
            struct.pack("<HHI", 0xFFFE, 0xE00D, 0),
            struct.pack("<HHI", 0xFFFE, 0xE000, 12) + struct.pack("<HHI", 0x0008, 0x0100, 4) + b"eng ",
            struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
        )
    )
    unknown = struct.pack(order + "HH2sxxI", 0x0008, 0x0006, b"UN", 0xFFFFFFFF) + items
    known = bytes(encoded(instance(undefined_length=True), transfer_syntax))
    at = known.index(struct.pack(order + "HH", 0x0008, 0x0008))
    data = memoryview(known[:at] + unknown + known[at:])
    assert read_identity(data, transfer_syntax) == Identity(CLASS, UID)


@pytest.mark.parametrize("transfer_syntax", ENCODINGS)
def test_what_is_missing_is_none(transfer_syntax: str) -> None:
    """Elements above (0008,0018) and none of it: another error than a beginning that has not come to it."""
    data_set = instance()
    del data_set.SOPInstanceUID
    with pytest.raises(Absent):
        read_identity(encoded(data_set, transfer_syntax), transfer_syntax)
    many = bytes(encoded(data_set, transfer_syntax)) * (ELEMENTS_MAX // 4)
    assert read_identity(memoryview(many), transfer_syntax) == Identity(CLASS, None)


@pytest.mark.parametrize("transfer_syntax", ENCODINGS)
@pytest.mark.parametrize("undefined_length", [False, True])
def test_elements_may_be_out_of_order(transfer_syntax: str, undefined_length: bool) -> None:
    """Behind higher tags, a sequence among them, both are found; a beginning is incomplete as ever."""
    before = Dataset()
    before.Modality, before.PatientName = "CT", "Doe^Jane"
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = "1.2.3"
    before.ReferencedImageSequence = Sequence([reference])
    before[0x0008_1140].is_undefined_length = undefined_length
    head = encoded(before, transfer_syntax)
    data = memoryview(bytes(head) + bytes(encoded(instance(), transfer_syntax)))
    assert read_identity(data, transfer_syntax) == Identity(CLASS, UID)
    with pytest.raises(Incomplete):
        read_identity(data[: len(head) + 20], transfer_syntax)


def test_another_encoding_is_unreadable() -> None:
    """No VR stands where one must."""
    data = encoded(instance(), ImplicitVRLittleEndian)
    with pytest.raises(Unreadable):
        read_identity(data, ExplicitVRLittleEndian)


def test_a_delimiter_of_nothing_is_above_both() -> None:
    """It ends the search as any tag above (0008,0018) does."""
    assert read_identity(memoryview(b"\xfe\xff\x0d\xe0\0\0\0\0"), ExplicitVRLittleEndian) == (None, None)


@pytest.mark.parametrize("transfer_syntax", ENCODINGS)
def test_no_more_elements_are_looked_at_than_is_worth_it(transfer_syntax: str) -> None:
    """A look at 960 KiB of empty elements or open sequences would hold up all other associations for 0.1 s."""
    order = "<" if transfer_syntax != ExplicitVRBigEndian else ">"
    is_implicit = transfer_syntax == ImplicitVRLittleEndian
    empty = struct.pack(order + "HH4s", 8, 5, bytes(4) if is_implicit else b"CS\0\0")
    known = bytes(encoded(instance(), transfer_syntax))
    for count in (ELEMENTS_MAX // 2, ELEMENTS_MAX - 5):
        assert read_identity(memoryview(empty * count + known), transfer_syntax) == Identity(CLASS, UID)
    opened = struct.pack(order + "HH", 8, 6) + (b"" if is_implicit else b"SQ\0\0") + b"\xff" * 4
    for many in (empty * ELEMENTS_MAX + known, opened * (ELEMENTS_MAX + 1)):
        with pytest.raises(TooManyElements):
            read_identity(memoryview(many), transfer_syntax)


@given(st.binary(max_size=200), st.sampled_from([*ENCODINGS]))
def test_any_bytes_are_an_identity_or_a_documented_error(data: bytes, transfer_syntax: str) -> None:
    """Nothing else escapes."""
    with contextlib.suppress(Incomplete, Unreadable):
        read_identity(memoryview(data), transfer_syntax)
