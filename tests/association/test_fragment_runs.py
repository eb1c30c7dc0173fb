"""Fragments of equal PDUs, handed out together as views of the memory that they came in."""

import struct

import numpy as np
import pytest

from ingest.association import (
    Fragment,
    FragmentRun,
    SendPdu,
)
from ingest.association.buffer import LONGEST_RUN
from ingest.association.pdu import (
    Abort,
)
from ingest.errors import AbortReason, AbortSource
from tests.association.test_table_9_10 import events, reach


def run_of(count: int, size: int = 16_372) -> bytes:
    """``count`` P-DATA-TF PDUs of one data-set fragment each, their content telling them apart."""
    return b"".join(pdv(bytes([number]) * size) for number in range(count))


def pdv(data: bytes, context_id: int = 1, control: int = 0) -> bytes:
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, context_id, control) + data


def test_equal_pdus_come_as_one_run() -> None:
    """PDUs of one size are handed out together, as views of the memory they arrived in."""
    association = reach("acceptor", 6)
    memory = np.frombuffer(run_of(10) + pdv(b"end!", control=2), np.uint8)
    association.receive_data(memory.data)
    run, last = events(association)
    assert isinstance(run, FragmentRun)
    assert run.rows.shape == (10, 16_372)
    assert np.shares_memory(run.rows, memory)
    assert [row[0] for row in run.rows] == list(range(10))
    assert last == Fragment(1, is_command=False, is_last=True, data=memoryview(b"end!"))


@pytest.mark.parametrize(
    "other",
    [pdv(bytes(16_372), control=2), pdv(bytes(16_372), control=1), pdv(bytes(16_370)), pdv(bytes(2))],
    ids=["last", "command", "shorter", "short"],
)
@pytest.mark.parametrize("before", [1, 2, 5])
def test_a_run_ends_where_a_header_differs(other: bytes, before: int) -> None:
    """Whatever differs from the PDUs before it is seen for itself, and nothing is joined across it."""
    association = reach("acceptor", 6)
    association.receive_data(memoryview(run_of(before) + other + run_of(4)))
    got = []
    for event in events(association):
        if isinstance(event, FragmentRun):
            got += [(False, len(row)) for row in event.rows]
        else:
            assert isinstance(event, Fragment)
            got.append((event.is_command, len(event.data)))
    expected = [(False, 16_372)] * before + [(bool(other[11] & 1), len(other) - 12)] + [(False, 16_372)] * 4
    assert got == expected


def test_a_run_has_a_bound_whatever_comes() -> None:
    """Each run costs a look at all that it might be, so tiny PDUs come in many: a peer must not make one look at thousands."""
    association = reach("acceptor", 6)
    size = 4096
    association.receive_data(memoryview(b"".join(pdv(bytes(2)) * 2 + pdv(bytes(4)) for _ in range(size))))
    runs = [len(event.rows) for event in events(association) if isinstance(event, FragmentRun)]
    assert set(runs) == {2}
    association.receive_data(memoryview(pdv(b"ab") * 2 * size))
    runs = [len(event.rows) for event in events(association) if isinstance(event, FragmentRun)]
    assert max(runs) == LONGEST_RUN


def test_a_run_never_hides_a_wrong_context() -> None:
    """A PDU of a context that was not accepted aborts 2/6 after the sound ones before it."""
    association = reach("acceptor", 6)
    association.receive_data(memoryview(run_of(5) + pdv(bytes(16_372), context_id=77) + run_of(3)))
    run, *rest = events(association)
    assert isinstance(run, FragmentRun)
    assert len(run.rows) == 5
    assert (
        SendPdu(Abort(AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER_VALUE).encode()) in rest
    )


def test_unread_bytes_can_be_kept() -> None:
    """After `keep_unread` the memory may be used again, and the events are the same."""
    association = reach("acceptor", 6)
    memory = bytearray(pdv(b"ab") + pdv(b"cd") + pdv(b"ef")[:-1])
    association.receive_data(memoryview(memory))
    first = association.next_event()
    assert isinstance(first, Fragment)
    assert bytes(first.data) == b"ab"
    association.keep_unread()
    memory[:] = bytes(len(memory))
    assert [bytes(event.data) for event in events(association) if isinstance(event, Fragment)] == [
        b"cd",
        b"e",
    ]
