"""The quick way through C-STORE says what the general codec says, or leaves the message to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.association.events import Fragment
from ingest.dimse import CStoreRequest, MessageAssembler
from ingest.dimse.assembler import MessageBegun
from ingest.dimse.command_set import decode_command_set
from ingest.dimse.messages import decode_message, has_data_set
from ingest.dimse.plain_store import decode_plain_request, encode_success
from tests.vectors.pdus import C_ECHO_RQ_COMMAND, C_STORE_RQ_COMMAND

US = st.integers(0, 0xFFFF)
UIDS = st.from_regex(r"[0-9.]{0,66}", fullmatch=True)
REQUESTS = st.builds(CStoreRequest, US, UIDS, UIDS)


def test_what_dcmtk_sends_is_plain() -> None:
    """As captured; so is what we send ourselves."""
    assert decode_plain_request(C_STORE_RQ_COMMAND) == decode_message(decode_command_set(C_STORE_RQ_COMMAND))


@given(REQUESTS)
def test_a_plain_request_is_decoded_as_the_general_codec_does(request: CStoreRequest) -> None:
    """UIDs of any length, with and without padding."""
    assert decode_plain_request(request.encode()) == request


@given(st.builds(CStoreRequest, US, UIDS, UIDS, st.just("MOVER"), st.none() | US))
def test_a_move_originator_is_left_to_the_general_codec(request: CStoreRequest) -> None:
    """It is rare, and worth no second form."""
    assert decode_plain_request(request.encode()) is None


@pytest.mark.parametrize(
    "command", [b"", C_ECHO_RQ_COMMAND, C_STORE_RQ_COMMAND.replace(b"\1\0\0\0\0\x10", b"\1\1\0\0\0\x10")]
)
def test_another_message_is_left_to_the_general_codec(command: bytes) -> None:
    """Nothing at all, another command, and a C-STORE that announces no data set."""
    assert decode_plain_request(command) is None


@given(st.data())
def test_a_request_altered_anywhere_is_never_read_otherwise(data: st.DataObject) -> None:
    """One or two bytes changed, or the end cut or prolonged: what the quick way takes, the general one reads the same."""
    command = bytearray(data.draw(REQUESTS).encode())
    for _ in range(data.draw(st.integers(1, 2))):
        command[data.draw(st.integers(0, len(command) - 1))] = data.draw(st.integers(0, 255))
    altered = bytes(command[: data.draw(st.integers(0, len(command)))]) + data.draw(st.binary(max_size=12))
    request = decode_plain_request(altered)
    if request is not None:
        elements = decode_command_set(altered)
        assert decode_message(elements) == request
        assert has_data_set(elements)


@given(REQUESTS)
def test_the_assembler_reports_both_ways_alike(request: CStoreRequest) -> None:
    """A plain request and one that is not differ in nothing that follows."""
    for sent in (request, CStoreRequest(*request_fields(request), "MOVER", 7)):
        fragment = Fragment(3, True, True, memoryview(sent.encode()))
        assert MessageAssembler().receive(fragment) == MessageBegun(3, sent, has_data_set=True)


def request_fields(request: CStoreRequest) -> tuple[int, str, str]:
    return request.message_id, request.affected_sop_class_uid, request.affected_sop_instance_uid


@given(st.builds(CStoreRequest, US, UIDS | st.text("\xe9\xff1", max_size=5), UIDS))
def test_success_is_encoded_as_the_general_codec_does(request: CStoreRequest) -> None:
    """To the byte, whatever the peer called the instance: what cannot be echoed is left out."""
    assert encode_success(request) == request.respond().encode()


@given(st.binary(max_size=120))
def test_any_bytes_are_left_to_the_general_codec(command: bytes) -> None:
    """It alone says what is wrong with them."""
    assert decode_plain_request(command) is None
