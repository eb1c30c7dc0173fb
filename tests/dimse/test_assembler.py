"""Messages put together from fragments (PS3.7 6.3, PS3.8 Annex E)."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.association import Fragment, FragmentRun
from ingest.dimse import (
    CCancelRequest,
    CEchoRequest,
    CStoreRequest,
    Message,
    MessageAssembler,
    MessageBegun,
    NActionRequest,
    NEventReportRequest,
    UnknownRequest,
)
from ingest.dimse.command_set import MAX_COMMAND_SET, encode_command_set
from ingest.errors import AbortReason, RemoteProtocolError
from tests.vectors.pdus import C_ECHO_RQ_COMMAND, C_STORE_RQ_COMMAND

FIND_RQ_COMMAND = encode_command_set({0x0100: b"\x20\0", 0x0110: b"\x05\0", 0x0800: b"\1\0"})
ECHO_RQ_WITH_DATA_SET = encode_command_set({0x0100: b"\x30\0", 0x0110: b"\x05\0", 0x0800: b"\1\0"})


def command(data: bytes, *, last: bool = True, context_id: int = 1) -> Fragment:
    return Fragment(context_id, is_command=True, is_last=last, data=memoryview(data))


def data(value: bytes = b"\0\0", *, last: bool = False, context_id: int = 1) -> Fragment:
    return Fragment(context_id, is_command=False, is_last=last, data=memoryview(value))


def test_echo() -> None:
    """A message without data set is complete with its command."""
    assembler = MessageAssembler()
    assert assembler.receive(command(C_ECHO_RQ_COMMAND)) == MessageBegun(
        1, CEchoRequest(1, "1.2.840.10008.1.1"), has_data_set=False
    )
    assert not assembler.in_message


def test_store() -> None:
    """The fragments of a data set are passed on as they are; the next message may use another context."""
    assembler = MessageAssembler()
    for context_id in (1, 5):
        begun = assembler.receive(command(C_STORE_RQ_COMMAND, context_id=context_id))
        assert isinstance(begun, MessageBegun)
        assert isinstance(begun.message, CStoreRequest)
        assert (begun.context_id, begun.has_data_set) == (context_id, True)
        for fragment in (
            data(context_id=context_id),
            data(b"", context_id=context_id),
            data(b"", last=True, context_id=context_id),
        ):
            assert assembler.in_message
            assert assembler.receive(fragment) is fragment
        assert not assembler.in_message


@given(st.lists(st.integers(0, len(C_STORE_RQ_COMMAND)), max_size=20))
def test_command_in_pieces(cuts: list[int]) -> None:
    """A command set may be cut anywhere; it is reported once, with its last fragment."""
    places = [0, *sorted(cuts), len(C_STORE_RQ_COMMAND)]
    assembler = MessageAssembler()
    for start, stop in pairwise(places[:-1]):
        assert assembler.receive(command(C_STORE_RQ_COMMAND[start:stop], last=False)) is None
        assert assembler.in_message
    whole = MessageAssembler().receive(command(C_STORE_RQ_COMMAND))
    assert assembler.receive(command(C_STORE_RQ_COMMAND[places[-2] :])) == whole


@pytest.mark.parametrize(
    ("sent", "message"),
    [(FIND_RQ_COMMAND, UnknownRequest(0x0020, 5)), (ECHO_RQ_WITH_DATA_SET, CEchoRequest(5, ""))],
    ids=["unknown", "echo with a data set"],
)
def test_drained(sent: bytes, message: Message) -> None:
    """A data set that nobody wants passes unseen; then the message is reported, to be answered."""
    assembler = MessageAssembler()
    assert assembler.receive(command(sent)) is None
    assert assembler.receive(data()) is None
    assert assembler.in_message
    assert assembler.receive(data(last=True)) == MessageBegun(1, message, has_data_set=False)
    assert not assembler.in_message
    assert isinstance(assembler.receive(command(C_ECHO_RQ_COMMAND)), MessageBegun)


def test_data_set_that_is_asked_for() -> None:
    """Whoever wants the data set of N-ACTION gets its fragments; others see the message once it has passed."""
    sent = NActionRequest(5, "1.2", "1.3", 1)
    assembler = MessageAssembler(CStoreRequest, NActionRequest)
    assert assembler.receive(command(sent.encode())) == MessageBegun(1, sent, has_data_set=True)
    for fragment in (data(), data(last=True)):
        assert assembler.receive(fragment) is fragment
    report = NEventReportRequest(6, "1.2", "1.3", 2)
    for message, other in ((report, assembler), (sent, MessageAssembler())):
        assert other.receive(command(message.encode())) is None
        assert other.receive(data()) is None
        assert other.receive(data(last=True)) == MessageBegun(1, message, has_data_set=False)


def test_cancel_is_ignored() -> None:
    """C-CANCEL has no response, and nothing here can be cancelled; not even with a data set."""
    assembler = MessageAssembler()
    assert assembler.receive(command(CCancelRequest(1).encode())) is None
    with_data_set = encode_command_set({0x0100: b"\xff\x0f", 0x0120: b"\1\0", 0x0800: b"\0\0"})
    assert assembler.receive(command(with_data_set)) is None
    assert assembler.receive(data(last=True)) is None
    assert not assembler.in_message
    assert isinstance(assembler.receive(command(C_ECHO_RQ_COMMAND)), MessageBegun)


UNEXPECTED = {
    "data first": [data()],
    "data after a message without data set": [command(C_ECHO_RQ_COMMAND), data()],
    "data within a command": [command(C_STORE_RQ_COMMAND[:20], last=False), data()],
    "command within a data set": [command(C_STORE_RQ_COMMAND), data(), command(C_ECHO_RQ_COMMAND)],
    "command of another context within a command": [
        command(C_STORE_RQ_COMMAND[:20], last=False),
        command(C_STORE_RQ_COMMAND[20:], context_id=3),
    ],
    "data of another context": [command(C_STORE_RQ_COMMAND), data(context_id=3)],
    "data of another context, drained": [command(FIND_RQ_COMMAND), data(context_id=3)],
    "data after the last fragment": [command(C_STORE_RQ_COMMAND), data(last=True), data()],
}


@pytest.mark.parametrize("name", UNEXPECTED)
def test_out_of_order(name: str) -> None:
    """Fragments of another message, or of the wrong kind, are aborted as 2/5 unexpected-PDU-parameter."""
    *before, wrong = UNEXPECTED[name]
    assembler = MessageAssembler()
    for fragment in before:
        assembler.receive(fragment)
    with pytest.raises(RemoteProtocolError) as caught:
        assembler.receive(wrong)
    assert caught.value.reason is AbortReason.UNEXPECTED_PDU_PARAMETER


def test_endless_command_set() -> None:
    """A command set of a megabyte is aborted (2/6) when it passes 64 KiB, and no more than that is kept."""
    assembler = MessageAssembler()
    for _ in range(MAX_COMMAND_SET // 1024):
        assert assembler.receive(command(bytes(1024), last=False)) is None
    with pytest.raises(RemoteProtocolError) as caught:
        assembler.receive(command(b"\0\0", last=False))
    assert caught.value.reason is AbortReason.INVALID_PDU_PARAMETER_VALUE
    assert len(assembler._command) == MAX_COMMAND_SET


def test_empty_command_set() -> None:
    """A command without elements cannot be answered: abort 2/6."""
    with pytest.raises(RemoteProtocolError) as caught:
        MessageAssembler().receive(command(b""))
    assert caught.value.reason is AbortReason.INVALID_PDU_PARAMETER_VALUE


CONTENTS = st.sampled_from([b"", C_ECHO_RQ_COMMAND, C_STORE_RQ_COMMAND, FIND_RQ_COMMAND]) | st.binary(
    max_size=40
)


@st.composite
def fragments(draw: st.DrawFn) -> Fragment:
    return Fragment(
        draw(st.sampled_from([1, 3])), draw(st.booleans()), draw(st.booleans()), memoryview(draw(CONTENTS))
    )


@given(st.lists(fragments(), max_size=12))
def test_any_fragments(received: list[Fragment]) -> None:
    """Fuzz: any fragments give messages, themselves, nothing, or a RemoteProtocolError."""
    assembler = MessageAssembler()
    try:
        for fragment in received:
            reported = assembler.receive(fragment)
            assert reported is None or reported is fragment or isinstance(reported, MessageBegun)
    except RemoteProtocolError:
        pass


RUN = FragmentRun(1, np.zeros((3, 8), np.uint8))


def test_a_run_is_passed_on() -> None:
    """A run of a data set that is wanted is passed on as it is; one that is drained is not."""
    assembler = MessageAssembler()
    assembler.receive(command(C_STORE_RQ_COMMAND))
    assert assembler.receive_run(RUN) is RUN
    assembler.receive(data(last=True))
    assembler.receive(command(FIND_RQ_COMMAND))
    assert assembler.receive_run(RUN) is None


def test_a_run_without_its_message_aborts() -> None:
    """A run that no command announced, or of another context, is aborted 2/5."""
    for first in (None, command(C_ECHO_RQ_COMMAND), command(C_STORE_RQ_COMMAND, context_id=3)):
        assembler = MessageAssembler()
        if first is not None:
            assembler.receive(first)
        with pytest.raises(RemoteProtocolError) as caught:
            assembler.receive_run(RUN)
        assert caught.value.reason is AbortReason.UNEXPECTED_PDU_PARAMETER
