"""DIMSE messages and their command sets (PS3.7 section 9 and Annexes C, E)."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode as pydicom_decode

from ingest.dimse.command_set import decode_command_set, encode_command_set
from ingest.dimse.messages import (
    CCancelRequest,
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    Message,
    UnknownRequest,
    UnknownResponse,
    decode_message,
    has_data_set,
)
from ingest.dimse.normalized import (
    NActionRequest,
    NActionResponse,
    NEventReportRequest,
    NEventReportResponse,
)
from ingest.dimse.status import (
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    ELEMENTS_DISCARDED,
    NO_SUCH_ACTION,
    OUT_OF_RESOURCES,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    is_failure,
    is_warning,
)
from ingest.errors import AbortReason, RemoteProtocolError
from tests.vectors.pdus import C_ECHO_RQ_COMMAND, C_STORE_RQ_COMMAND

US = st.integers(0, 0xFFFF)
UIDS = st.from_regex(r"[0-9.]{0,64}", fullmatch=True)
TITLES = st.from_regex(r"|[!-~]([ -~]{0,14}[!-~])?", fullmatch=True)
COMMENTS = st.from_regex(r"|[!-~]([ -~]{0,62}[!-~])?", fullmatch=True)
Announcing = CStoreRequest | NActionRequest | NEventReportRequest
Sent = (
    Announcing
    | CEchoRequest
    | CEchoResponse
    | CStoreResponse
    | CCancelRequest
    | NActionResponse
    | NEventReportResponse
    | UnknownResponse
)
MESSAGES: st.SearchStrategy[Sent] = st.one_of(
    st.builds(CEchoRequest, US, UIDS),
    st.builds(CEchoResponse, US, US, UIDS),
    st.builds(CStoreRequest, US, UIDS, UIDS, TITLES, st.none() | US),
    st.builds(CStoreResponse, US, US, UIDS, UIDS, COMMENTS, st.none() | st.integers(0, 0xFFFFFFFF)),
    st.builds(CCancelRequest, US),
    st.builds(NActionRequest, US, UIDS, UIDS, st.none() | US),
    st.builds(NActionResponse, US, US, UIDS, UIDS, COMMENTS),
    st.builds(NEventReportRequest, US, UIDS, UIDS, st.none() | US),
    st.builds(NEventReportResponse, US, US, UIDS, UIDS, COMMENTS),
    st.builds(UnknownResponse, st.integers(0x8200, 0xFFFF), US, US),
)


def decode(command: bytes) -> Message:
    return decode_message(decode_command_set(command))


def test_captured() -> None:
    """What DCMTK sends."""
    assert decode(C_ECHO_RQ_COMMAND) == CEchoRequest(1, "1.2.840.10008.1.1")
    request = CStoreRequest(1, "1.2.840.10008.5.1.4.1.1.2", "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322")
    assert decode(C_STORE_RQ_COMMAND) == request
    assert not has_data_set(decode_command_set(C_ECHO_RQ_COMMAND))
    assert has_data_set(decode_command_set(C_STORE_RQ_COMMAND))
    assert CEchoRequest(1, "1.2.840.10008.1.1").encode() == C_ECHO_RQ_COMMAND


@given(MESSAGES)
def test_round_trip(message: Sent) -> None:
    """What is encoded decodes to the same, and only requests that have a data set announce one."""
    command = message.encode()
    assert decode(command) == message
    assert has_data_set(decode_command_set(command)) == isinstance(message, Announcing)
    assert len(command) % 2 == 0


def test_pydicom_reads_our_response() -> None:
    """An independent decoder finds each field of a failure, in the standard's types."""
    request = CStoreRequest(7, "1.2", "1.2.3")
    response = request.respond(
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS, comment="odd", offending_element=0x0008_0018
    )
    read = pydicom_decode(BytesIO(response.encode()), is_implicit_vr=True, is_little_endian=True)
    assert read.CommandField == 0x8001
    assert read.MessageIDBeingRespondedTo == 7
    assert read.CommandDataSetType == 0x0101
    assert read.Status == 0xA900
    assert read.AffectedSOPClassUID == "1.2"
    assert read.AffectedSOPInstanceUID == "1.2.3"
    assert read.ErrorComment == "odd"
    assert read.OffendingElement == 0x0008_0018


def test_pydicom_reads_our_normalized_messages() -> None:
    """N-ACTION asks by Requested UIDs and is answered by Affected ones; N-EVENT-REPORT has Affected ones."""
    request = NActionRequest(7, "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", 1)
    read = pydicom_decode(BytesIO(request.encode()), is_implicit_vr=True, is_little_endian=True)
    assert (read.CommandField, read.MessageID, read.ActionTypeID) == (0x0130, 7, 1)
    assert read.RequestedSOPClassUID == "1.2.840.10008.1.20.1"
    assert read.RequestedSOPInstanceUID == "1.2.840.10008.1.20.1.1"
    assert read.CommandDataSetType != 0x0101
    response = request.respond(NO_SUCH_ACTION, comment="odd")
    read = pydicom_decode(BytesIO(response.encode()), is_implicit_vr=True, is_little_endian=True)
    assert (read.CommandField, read.MessageIDBeingRespondedTo, read.Status) == (0x8130, 7, 0x0123)
    assert read.AffectedSOPClassUID == "1.2.840.10008.1.20.1"
    assert read.AffectedSOPInstanceUID == "1.2.840.10008.1.20.1.1"
    assert read.CommandDataSetType == 0x0101
    report = NEventReportRequest(9, "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", 2)
    read = pydicom_decode(BytesIO(report.encode()), is_implicit_vr=True, is_little_endian=True)
    assert (read.CommandField, read.MessageID, read.EventTypeID) == (0x0100, 9, 2)
    assert read.AffectedSOPInstanceUID == "1.2.840.10008.1.20.1.1"
    assert report.respond() == NEventReportResponse(
        9, SUCCESS, report.affected_sop_class_uid, "1.2.840.10008.1.20.1.1"
    )


@pytest.mark.parametrize("value", [b"", b"\1", b"\1\0\0\0"])
def test_action_type_that_cannot_be_read(value: bytes) -> None:
    """It does not end the association: the service refuses it."""
    elements = {0x0100: b"\x30\1", 0x0110: b"\1\0", 0x0800: b"\0\0", 0x1008: value}
    assert decode_message(elements) == NActionRequest(1, "", "", None)


def test_responses() -> None:
    """A response repeats the message ID and the UIDs, and its comment fits an LO."""
    assert CEchoRequest(3, "1.2").respond() == CEchoResponse(3, SUCCESS, "1.2")
    response = CStoreRequest(3, "1.2", "1.3").respond(OUT_OF_RESOURCES, comment="x" * 100)
    assert response == CStoreResponse(3, OUT_OF_RESOURCES, "1.2", "1.3", "x" * 64)
    assert decode(response.encode()) == response


def test_unknown_request() -> None:
    """An operation that is not served is answered with its own field and 0211H."""
    request = UnknownRequest(0x0020, 9)  # C-FIND
    assert request.respond() == UnknownResponse(0x8020, 9, UNRECOGNIZED_OPERATION)
    assert decode(encode_command_set({0x0100: b"\x20\0", 0x0110: b"\x09\0"})) == request


@pytest.mark.parametrize("uid", ["", "1" * 65, "1" * 30_000])
def test_unusable_uid_is_not_echoed(uid: str) -> None:
    """A UID that cannot be one does not blow up the response, which needs none."""
    request = decode(CStoreRequest(1, "1.2", uid).encode())
    assert isinstance(request, CStoreRequest)
    assert request.affected_sop_instance_uid == uid
    assert decode(request.respond().encode()) == CStoreResponse(1, SUCCESS, "1.2", "")


def test_any_bytes_of_a_uid_survive() -> None:
    """A UID of any bytes reaches the service, which judges it; padding is taken off."""
    command = encode_command_set(
        {0x0002: b" 1.2 ", 0x0100: b"\1\0", 0x0110: b"\1\0", 0x0800: b"\0\0", 0x1000: b"\xff\x1b[\0\0"}
    )
    assert decode(command) == CStoreRequest(1, "1.2", "\xff\x1b[")


@pytest.mark.parametrize("value", [b"", b"\1\1\1\1", b"\1"])
def test_offending_element_of_a_wrong_length(value: bytes) -> None:
    """A requestor reads the first tag, or none."""
    elements = {0x0100: b"\1\x80", 0x0120: b"\1\0", 0x0900: b"\0\xa9", 0x0901: value}
    response = decode_message(elements)
    assert isinstance(response, CStoreResponse)
    assert response.offending_element == (0x0101_0101 if len(value) == 4 else None)


def test_malformed_move_originator() -> None:
    """What the answer does not depend on does not end the association."""
    request = decode_message(STORE | {0x1031: b"\1\0\0"})
    assert request == CStoreRequest(1, "", "", "", None)


STORE = {0x0100: b"\1\0", 0x0110: b"\1\0", 0x0800: b"\0\0"}


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {0x0110: b"\1\0"},
        {0x0100: b"\1\0"},
        {0x0100: b"\1\0\0\0", 0x0110: b"\1\0"},
        {0x0100: b"\1\0", 0x0110: b"\1"},
        {0x0100: b"\x20\0"},
        {0x0100: b"\1\x80", 0x0120: b"\1\0"},
    ],
    ids=str,
)
def test_what_cannot_be_answered(elements: dict[int, bytes]) -> None:
    """Without a field, a message ID or a status of the right length there is no answer: abort 2/6."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(elements)
    assert caught.value.reason is AbortReason.INVALID_PDU_PARAMETER_VALUE


@pytest.mark.parametrize(
    ("value", "expected"), [(0x0101, False), (0x0000, True), (0x0001, True), (0x0102, True), (0xFEFE, True)]
)
def test_command_data_set_type(value: int, expected: bool) -> None:
    """Any value but 0101H announces a data set (PS3.7 E.1)."""
    assert has_data_set({0x0800: value.to_bytes(2, "little")}) == expected


def test_status_classes() -> None:
    """Success, warning and failure are told apart (PS3.7 Annex C)."""
    assert [is_failure(status) for status in (SUCCESS, 0xB000, 0x0107, 0xA700, 0xC001, 0x0110)] == [
        False, False, False, True, True, True,
    ]  # fmt: skip
    assert is_warning(ELEMENTS_DISCARDED)
    assert not is_warning(SUCCESS)


@given(
    st.dictionaries(
        st.sampled_from([0x0002, 0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x0901, 0x1000, 0x1031]),
        st.binary(max_size=6),
    )
)
def test_any_elements(elements: dict[int, bytes]) -> None:
    """Fuzz: any elements are a message or a RemoteProtocolError."""
    try:
        decode_message(elements)
        has_data_set(elements)
    except RemoteProtocolError:
        pass
