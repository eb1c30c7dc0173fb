"""The command set's codec (PS3.7 6.3.1, Annex E)."""

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode as pydicom_decode

from ingest.dimse.command_set import decode_command_set, encode_command_set
from ingest.errors import AbortReason, RemoteProtocolError
from tests.vectors.pdus import C_ECHO_RQ_COMMAND, C_STORE_RQ_COMMAND

ELEMENTS = st.dictionaries(
    st.integers(1, 0xFFFF), st.binary(max_size=20).map(lambda half: half + half), max_size=12
)


def element(tag: int, value: bytes, length: int | None = None) -> bytes:
    group, number = divmod(tag, 0x10000)
    return struct.pack("<HHI", group, number, len(value) if length is None else length) + value


START = element(0, b"\0\0\0\0")


def test_captured() -> None:
    """What DCMTK sends decodes to its fields and encodes to the same bytes."""
    assert decode_command_set(C_ECHO_RQ_COMMAND) == {
        0x0000: b"\x38\0\0\0",
        0x0002: b"1.2.840.10008.1.1\0",
        0x0100: b"\x30\0",
        0x0110: b"\1\0",
        0x0800: b"\1\1",
    }
    for command in (C_ECHO_RQ_COMMAND, C_STORE_RQ_COMMAND):
        elements = decode_command_set(command)
        del elements[0]
        assert encode_command_set(elements) == command


@given(ELEMENTS)
def test_round_trip(elements: dict[int, bytes]) -> None:
    """What is encoded decodes to the same, in ascending order and with a true group length."""
    encoded = encode_command_set(elements)
    decoded = decode_command_set(memoryview(encoded))
    assert int.from_bytes(decoded.pop(0), "little") == len(encoded) - 12
    assert decoded == elements
    assert list(decoded) == sorted(elements)


def test_padding() -> None:
    """An odd value is padded with NUL; every element has even length."""
    assert encode_command_set({2: b"1.2"})[12:] == b"\0\0\2\0\4\0\0\0" + b"1.2\0"


def test_pydicom_agrees() -> None:
    """An independent decoder reads what we encode."""
    data_set = pydicom_decode(
        BytesIO(encode_command_set({2: b"1.2.3", 0x0100: b"\1\0", 0x0110: b"\7\0"})),
        is_implicit_vr=True,
        is_little_endian=True,
    )
    assert data_set.CommandGroupLength == 34
    assert data_set.AffectedSOPClassUID == "1.2.3"
    assert data_set.MessageID == 7


@pytest.mark.parametrize("length", [0, 4, 0xFFFFFFFF])
def test_wrong_group_length(length: int) -> None:
    """The group length is not tested: some peers get it wrong, and nothing depends on it."""
    data = element(0, length.to_bytes(4, "little")) + element(0x0100, b"\x30\0")
    assert decode_command_set(data)[0x0100] == b"\x30\0"


@pytest.mark.parametrize(
    "data",
    [
        element(0x0100, b"\x30\0") + element(0x0110, b"\1\0"),
        element(0x0110, b"\1\0") + START + element(0x0100, b"\x30\0"),
        START + element(0x0009_0100, b"ACME") + element(0x0100, b"\x30\0") + element(0x0110, b"\1\0"),
    ],
    ids=["no group length", "unsorted", "a foreign group"],
)
def test_what_nothing_depends_on(data: bytes) -> None:
    """Elements are found wherever they are; those of another group are passed over."""
    decoded = decode_command_set(data)
    decoded.pop(0, None)
    assert decoded == {0x0100: b"\x30\0", 0x0110: b"\1\0"}


MALFORMED = {
    "an element twice": START + element(0x0100, b"\x30\0") * 2,
    "an element twice, and others between": element(0x0100, b"\x30\0") + START + element(0x0100, b"\1\0"),
    "the group length twice": START * 2,
    "a foreign element that overruns": START + element(0x0009_0010, b"ACME", 5),
    "ending within a header": START + b"\0\0\0",
    "an element that overruns": START + element(0x0002, b"1.2\0", 5),
    "an element of 4 GiB": START + element(0x0002, b"", 0xFFFFFFFF),
    "explicit VR": b"\0\0\0\0UL\4\0\0\0\0\0",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    """Each is the peer's fault, to be aborted as 2/6."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_command_set(MALFORMED[name])
    assert caught.value.reason is AbortReason.INVALID_PDU_PARAMETER_VALUE


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: START + data))
def test_any_bytes(data: bytes) -> None:
    """Fuzz: any bytes decode or are a RemoteProtocolError, and what decodes was there."""
    try:
        elements = decode_command_set(data)
    except RemoteProtocolError:
        return
    assert sum(8 + len(value) for value in elements.values()) <= len(data)
    assert all(element(tag, value) in data for tag, value in elements.items())
