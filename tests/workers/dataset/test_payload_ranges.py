"""Payloads give the same bytes wherever they lie."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.dataset.byte_order import LittleEndianPayload, little_endian
from workers.dataset.payload import (
    EndOfPayload,
    FilePayload,
    JoinedPayload,
    MemoryPayload,
    Payload,
    SlicePayload,
)


@given(st.lists(st.binary(max_size=20), max_size=6), st.data())
def test_any_cut_reads_like_the_whole(pieces: list[bytes], data: st.DataObject) -> None:
    """A range reads the same from buffers, slices and joined payloads, however the bytes are cut."""
    whole = b"".join(pieces)
    padded = MemoryPayload([b"xx" + whole + b"yy"])
    payloads: list[Payload] = [
        MemoryPayload(pieces),
        SlicePayload(padded, 2, len(whole)),
        JoinedPayload([MemoryPayload([piece]) for piece in pieces]),
    ]
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - start))
    size = data.draw(st.integers(1, 30))
    for payload in payloads:
        assert payload.size == len(whole)
        assert bytes(payload.read(start, length)) == whole[start : start + length]
        blocks = list(payload.blocks(size))
        assert b"".join(blocks) == whole
        assert all(0 < len(block) <= size for block in blocks)


@given(st.binary(max_size=40), st.sampled_from([b"OW", b"UL", b"AT", b"FD", b"OB", b"UN"]), st.data())
def test_a_big_endian_value_is_turned_in_any_range(whole: bytes, vr: bytes, data: st.DataObject) -> None:
    """A range that begins or ends within a number is that of the whole value turned."""
    payload = LittleEndianPayload(MemoryPayload([whole]), vr)
    turned = little_endian(whole, vr)
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - start))
    assert bytes(payload.read(start, length)) == turned[start : start + length]
    assert b"".join(payload.blocks(data.draw(st.integers(1, 30)))) == turned


def memory(whole: bytes, _: Path) -> Payload:
    return MemoryPayload([whole[:3], whole[3:]])


def file(whole: bytes, folder: Path) -> Payload:
    path = folder / "payload"
    path.write_bytes(b"skip" + whole + b"beyond")
    return FilePayload(path, 4, len(whole))


def joined(whole: bytes, _: Path) -> Payload:
    return JoinedPayload([MemoryPayload([whole[:3]]), MemoryPayload([whole[3:]])])


@pytest.mark.parametrize("make", [memory, file, joined])
def test_ranges_outside_are_refused(make: Callable[[bytes, Path], Payload], tmp_path: Path) -> None:
    """No range outside the payload is ever read, not even from a file that goes on."""
    payload = make(b"0123456789", tmp_path)
    assert bytes(payload.read(2, 8)) == b"23456789"
    assert b"".join(payload.blocks(4)) == b"0123456789"
    for offset, length in ((0, 11), (10, 1), (-1, 2), (4, -1), (11, 0)):
        with pytest.raises(EndOfPayload):
            payload.read(offset, length)


def test_a_file_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    """A file cut behind our back ends the payload; it never reads short."""
    path = tmp_path / "payload"
    path.write_bytes(bytes(100))
    with FilePayload(path) as payload:
        path.write_bytes(bytes(50))
        with pytest.raises(EndOfPayload):
            payload.read(40, 20)
    payload.close()
