"""The PDU codec against vectors, against pynetdicom's, against any bytes (PS3.8 9.3, PS3.7 D.3.3)."""

import pynetdicom.pdu
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.association.p_data import encode_command, encode_data_set
from ingest.association.pdu import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    HEADER,
    P_DATA_TF,
    RELEASE_RP,
    RELEASE_RQ,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    DataTransfer,
    Pdu,
    PresentationDataValue,
    Rejection,
    ReleaseRequest,
    ReleaseResponse,
    decode_pdu,
)
from ingest.association.pdu_items import (
    MAX_CONTEXT_ITEMS,
    MAX_ITEMS,
    CommonExtendedNegotiation,
    PresentationContext,
    RoleSelection,
)
from ingest.errors import AbortReason, AbortSource, LocalProtocolError, RemoteProtocolError
from tests.association.strategies import BYTE, PDUS
from tests.vectors import pdus as vectors
from tests.vectors.pdus import counted, item, pdu, text


def decode(encoded: bytes) -> Pdu:
    kind, length = HEADER.unpack_from(encoded)
    assert length == len(encoded) - HEADER.size
    return decode_pdu(kind, memoryview(encoded)[HEADER.size :])


@pytest.mark.parametrize("vector", vectors.VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: vectors.Vector) -> None:
    """Bytes of other implementations decode to their fields, and canonical fields encode to the bytes."""
    assert decode(vector.encoded) == vector.decoded
    if vector.canonical:
        assert vector.decoded.encode() == vector.encoded


@given(PDUS)
def test_round_trip(pdu: Pdu) -> None:
    """What is encoded decodes to the same."""
    assert decode(pdu.encode()) == pdu


PEER = {
    AssociateRequest: pynetdicom.pdu.A_ASSOCIATE_RQ,
    AssociateAccept: pynetdicom.pdu.A_ASSOCIATE_AC,
    AssociateReject: pynetdicom.pdu.A_ASSOCIATE_RJ,
    DataTransfer: pynetdicom.pdu.P_DATA_TF,
    ReleaseRequest: pynetdicom.pdu.A_RELEASE_RQ,
    ReleaseResponse: pynetdicom.pdu.A_RELEASE_RP,
    Abort: pynetdicom.pdu.A_ABORT_RQ,
}


@pytest.mark.parametrize(
    "vector",
    [v for v in vectors.VECTORS if v.canonical and v is not vectors.ASSOCIATE_AC],
    ids=lambda v: v.name,
)
def test_pynetdicom_agrees(vector: vectors.Vector) -> None:
    """An independent implementation takes our bytes for the PDU that they are, and gives them back."""
    theirs = PEER[type(vector.decoded)]()
    theirs.decode(vector.decoded.encode())
    assert theirs.encode() == vector.encoded


@pytest.mark.parametrize("rejection", Rejection)
def test_rejections_are_those_of_the_standard(rejection: Rejection) -> None:
    """No reserved reason can be sent (PS3.8 Table 9-21): transient only from source 3, 1 and 2 permanent."""
    allowed = {1: {1, 2, 3, 7}, 2: {1, 2}, 3: {1, 2}}
    reject = AssociateReject.of(rejection)
    assert reject.reason in allowed[reject.source]
    assert reject.result == (2 if reject.source == 3 else 1)


FIXED = "00010000" + "41" * 32 + "00" * 32
CONTEXT = item("20", "01000000", item("30", "31"), item("40", "32"))

MALFORMED = {
    "shorter than its fixed part": pdu("01", "00" * 67),
    "an item header is cut": pdu("01", FIXED, "100000"),
    "an item overruns the PDU": pdu("01", FIXED, "10000005" + "31" * 4),
    "a context overruns the PDU": pdu("01", FIXED, "20000030" + "01000000"),
    "the abstract syntax overruns its context": pdu("01", FIXED, item("20", "01000000", "3000ffff31")),
    "a sub-item overruns the user information": pdu("01", FIXED, item("50", "5100000500004000")),
    "a context shorter than its own fields": pdu("01", FIXED, item("20", "0100")),
    "a context without abstract syntax": pdu("01", FIXED, item("20", "01000000", item("40", "32"))),
    "a context with two abstract syntaxes": pdu(
        "01", FIXED, item("20", "01000000", item("30", "31") * 2, item("40", "32"))
    ),
    "a context without transfer syntax": pdu("01", FIXED, item("20", "01000000", item("30", "31"))),
    "a context with 65 transfer syntaxes": pdu(
        "01", FIXED, item("20", "01000000", item("30", "31"), item("40", "32") * 65)
    ),
    "endless items in a context": pdu(
        "01",
        FIXED,
        item("20", "01000000", item("30", "31"), item("40", "32"), item("99") * MAX_CONTEXT_ITEMS),
    ),
    "129 contexts": pdu("01", FIXED, CONTEXT * 129),
    "endless items": pdu("01", FIXED, item("99") * (MAX_ITEMS + 1)),
    "endless sub-items": pdu("01", FIXED, item("50", item("99") * (MAX_ITEMS + 1))),
    "endless related classes": pdu(
        "01",
        FIXED,
        CONTEXT,
        item(
            "50",
            item("57", counted("1"), counted("2"), f"{2 * (MAX_ITEMS + 1):04x}", "0000" * (MAX_ITEMS + 1)),
        ),
    ),
    "endless related classes in several items": pdu(
        "01",
        FIXED,
        CONTEXT,
        item(
            "50",
            item("57", counted("1"), counted("2"), f"{MAX_ITEMS + 2:04x}", "0000" * (MAX_ITEMS // 2 + 1)) * 2,
        ),
    ),
    "a maximum length of three bytes": pdu("01", FIXED, item("50", item("51", "004000"))),
    "a role selection without roles": pdu("01", FIXED, CONTEXT, item("50", item("54", counted("1.2"), "01"))),
    "a role selection whose UID overruns": pdu(
        "01", FIXED, CONTEXT, item("50", item("54", "0009", text("1.2")))
    ),
    "a common extended negotiation that is cut": pdu(
        "01", FIXED, CONTEXT, item("50", item("57", counted("1.2")))
    ),
    "an accepted context without transfer syntax": pdu("02", FIXED, item("21", "01000000")),
    "an accepted context with two transfer syntaxes": pdu(
        "02", FIXED, item("21", "01000000", item("40", "31") * 2)
    ),
    "a result shorter than its own fields": pdu("02", FIXED, item("21", "010000")),
    "an RJ of length 3": pdu("03", "000101"),
    "a RELEASE-RQ of length 0": pdu("05"),
    "a RELEASE-RP of length 5": pdu("06", "0000000000"),
    "an ABORT of length 8": pdu("07", "0000000000000000"),
    "a P-DATA-TF without PDV": pdu("04"),
    "a P-DATA-TF that ends within a PDV header": pdu("04", "0000000201"),
    "a PDV of length 0": pdu("04", "00000000", "0103"),
    "a PDV of length 1": pdu("04", "00000001", "0103"),
    "an odd PDV": pdu("04", "00000003", "0103", "00"),
    "a PDV that overruns its PDU": pdu("04", "00000006", "0103", "0000"),
    "rest of a P-DATA-TF too short for a PDV": pdu("04", "00000004", "0103", "0000", "000000"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    """Each malformation is the peer's fault, to be aborted as 2/6 invalid-PDU-parameter-value."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode(MALFORMED[name])
    assert caught.value.source is AbortSource.SERVICE_PROVIDER
    assert caught.value.reason is AbortReason.INVALID_PDU_PARAMETER_VALUE


def test_what_comes_twice() -> None:
    """Of an item that may come once the first counts, as with the sub-items that nobody reads."""
    once = FIXED + item("10", "31") + CONTEXT + item("50", item("51", "00004000"))
    twice = FIXED + item("10", "31") + item("10", "32") + CONTEXT
    twice += item("50", item("51", "00004000") + item("51", "00000100")) + item("50", item("51", "00000100"))
    assert decode(pdu("01", twice)) == decode(pdu("01", once))


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("312e3200", "1.2"),
        ("2020312e3220", "1.2"),
        ("312e3200cdcd", "1.2"),
        ("00312e32", ""),
        ("312ee4", "1.\xe4"),
    ],
)
def test_text(sent: str, read: str) -> None:
    """It ends at a NUL and with no space; what is no UID stays what it is, and ends no association."""
    request = decode(pdu("01", FIXED, item("20", "01000000", item("30", sent), item("40", sent))))
    assert isinstance(request, AssociateRequest)
    assert request.contexts == (PresentationContext(1, read, (read,)),)


UNREAD = {
    "a version name in Latin-1": item("55", "52f66e7467656e"),
    "a version name of 64 characters": item("55", "41" * 64),
    "two version names": item("55", "41") * 2,
    "a class UID that is none": item("52", "e4"),
    "two class UIDs": item("52", "31") * 2,
    "a window of two bytes": item("53", "0001"),
    "a role of a class that is not proposed": item("54", counted("1.2"), "0101") * 2,
    "an extended negotiation of nothing": item("56"),
    "an extended negotiation whose UID overruns": item("56", "0009", text("1.2")),
    "two extended negotiations": item("56", counted("1.2")) * 2,
    "an identity without its second field": item("58", "0100", "0001", "41"),
    "an identity that ends within a length": item("58", "0100", "0001", "41", "00"),
    "two user identities": item("58", "010000000000") * 2,
    "an identity response that ends early": item("59", "0002", "41"),
}


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize("kind", ["01", "02"])
def test_what_nobody_reads_ends_no_association(kind: str, name: str) -> None:
    """A sub-item on which nothing depends is passed over where it is malformed, and all others are read as they are."""
    user = item("51", "00004000") + UNREAD[name] + item("54", counted("1"), "0100")
    found = decode(pdu(kind, FIXED, CONTEXT if kind == "01" else "", item("50", user)))
    assert isinstance(found, AssociateRequest | AssociateAccept)
    assert found.user_information.maximum_length == 16384
    assert RoleSelection("1", scu_role=True, scp_role=False) in found.user_information.role_selections
    assert decode(found.encode()) == found


@pytest.mark.parametrize("kind", [0x00, 0x08, 0x16, 0x47, 0xFF])
def test_unknown_type(kind: int) -> None:
    """A type beyond 01H to 07H is 2/1 unrecognized-PDU; a TLS hello starts with 16H, an HTTP GET with 47H."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_pdu(kind, memoryview(b""))
    assert caught.value.reason is AbortReason.UNRECOGNIZED_PDU


KINDS = (ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT)


@given(st.sampled_from(KINDS), st.binary(max_size=400))
def test_any_bytes(kind: int, body: bytes) -> None:
    """Fuzz: whatever a body holds, it decodes or is a RemoteProtocolError."""
    try:
        decoded = decode_pdu(kind, memoryview(body))
    except RemoteProtocolError:
        return
    assert decode(decoded.encode()) == decoded


@given(st.sampled_from([v for v in vectors.VECTORS if len(v.encoded) > 20]), st.data())
def test_damaged_vectors(vector: vectors.Vector, data: st.DataObject) -> None:
    """Fuzz: a vector with some bytes changed, cut out or cut off decodes or is a RemoteProtocolError."""
    body = bytearray(vector.encoded[HEADER.size :])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] = data.draw(BYTE)
    body = body[: data.draw(st.integers(1, len(body)))]
    try:
        decoded = decode_pdu(vector.encoded[0], memoryview(body))
    except RemoteProtocolError:
        return
    assert decode(decoded.encode()) == decoded


def test_common_extended_negotiation_without_related_classes() -> None:
    """PS3.7 D.3.3.6: the list of related general SOP Classes may be left out."""
    request = decode(pdu("01", FIXED, CONTEXT, item("50", item("57", counted("1.2"), counted("1.3")))))
    assert isinstance(request, AssociateRequest)
    assert request.user_information.common_extended_negotiations == (CommonExtendedNegotiation("1.2", "1.3"),)


def test_secrets_are_not_shown() -> None:
    """A user identity has no user name or passcode in its representation."""
    assert "word" not in repr(vectors.FULL_RQ.decoded)
    assert "UserIdentity(kind=2)" in repr(vectors.FULL_RQ.decoded)


def values_of(encoded: bytes, maximum_length: int) -> list[PresentationDataValue]:
    """Every PDV of a run of P-DATA-TF PDUs, each checked against the maximum length."""
    values: list[PresentationDataValue] = []
    while encoded:
        kind, length = HEADER.unpack_from(encoded)
        assert kind == P_DATA_TF
        assert length <= maximum_length
        data = decode_pdu(kind, memoryview(encoded)[HEADER.size : HEADER.size + length])
        assert isinstance(data, DataTransfer)
        values += data.values
        encoded = encoded[HEADER.size + length :]
    return values


@given(st.binary(max_size=300), st.integers(8, 200), st.booleans())
def test_encode_data_set(half: bytes, maximum_length: int, last: bool) -> None:
    """Fragments are even, fit the peer's maximum, join to the data; only the last of the last piece says so."""
    data = half + half
    values = values_of(
        b"".join(encode_data_set(3, memoryview(data), maximum_length, last=last)), maximum_length
    )
    assert b"".join(value.data for value in values) == data
    assert all(
        len(value.data) % 2 == 0 and value.context_id == 3 and not value.is_command for value in values
    )
    assert [value.is_last for value in values] == [False] * (len(values) - 1) + [last] * bool(values)
    assert bool(values) == bool(data or last)


def test_encode_data_set_joins_nothing() -> None:
    """The payload leaves as views of the caller's memory."""
    data = bytearray(100_000)
    buffers = encode_data_set(1, memoryview(data), 16384, last=True)
    assert all(buffer.obj is data for buffer in buffers[1::2] if isinstance(buffer, memoryview))
    assert sum(map(len, buffers[1::2])) == len(data)


@given(st.binary(min_size=1, max_size=150).map(lambda half: half + half), st.integers(8, 400))
def test_encode_command(command: bytes, maximum_length: int) -> None:
    """A command set is one bytes object, in as many PDUs as the peer's maximum asks for."""
    values = values_of(encode_command(255, command, maximum_length), maximum_length)
    assert b"".join(value.data for value in values) == command
    assert [value.is_last for value in values] == [False] * (len(values) - 1) + [True]
    assert all(value.is_command and value.context_id == 255 for value in values)


def test_local_mistakes() -> None:
    """An odd piece of a data set, and a maximum length without room, are ours."""
    with pytest.raises(LocalProtocolError):
        encode_data_set(1, memoryview(b"odd"), 16384, last=True)
    with pytest.raises(LocalProtocolError):
        encode_command(1, b"\0\0", 7)
