"""Frames found in any form of pixel data: native by position, encapsulated by tables, counts or markers."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.element_trees import El
from tests.support.pixel_objects import encapsulated, examined, fragments, native, native_value, noise
from workers.dataset.payload import BLOCK, MemoryPayload
from workers.pixels.encapsulation import SEQUENCE_DELIMITATION, Encapsulation
from workers.pixels.form import FrameForm
from workers.pixels.frames import (
    MOST_PIECES,
    EncapsulatedFrames,
    FramesUnknown,
    PixelData,
    native_blocks,
    native_frame,
)
from workers.stages.transcode import pixel_data_of

J2K = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"


def pixel_data(data: bytes, instance: object) -> PixelData:
    pixels = pixel_data_of(examined(data, instance))  # type: ignore[arg-type]  # an Instance
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("mode", ["explicit", "implicit", "big"])
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("allocated", "signed"), [(8, False), (16, False), (16, True), (32, False)])
def test_native_frames(mode: str, planar: int, samples: int, allocated: int, signed: bool) -> None:
    """In each encoding every frame comes out little endian with the samples of a pixel together."""
    form = FrameForm(5, 7, samples, allocated, allocated, signed)
    frames = [noise(form, seed) for seed in range(3)]
    planar = planar if samples > 1 else 0
    pixels = pixel_data(*native(form, frames, mode, planar=planar))
    assert [bytes(native_frame(pixels, index)) for index in range(3)] == [frame.tobytes() for frame in frames]
    assert b"".join(native_blocks(pixels)) == b"".join(frame.tobytes() for frame in frames)


@pytest.mark.parametrize("planar", [0, 1])
def test_words_that_hold_two_samples(planar: int) -> None:
    """PS3.5 7.3: words of OW are turned, though a frame or plane of odd length ends within one."""
    form = FrameForm(5, 7, 3, 8, 8, False)
    frames = [noise(form, seed) for seed in range(3)]
    words = El(0x7FE0_0010, "OW", native_value(frames, planar))
    pixels = pixel_data(*native(form, frames, "big", planar=planar, x7FE00010=words))
    assert [bytes(native_frame(pixels, index)) for index in range(3)] == [frame.tobytes() for frame in frames]
    assert b"".join(native_blocks(pixels)) == b"".join(frame.tobytes() for frame in frames)


@pytest.mark.parametrize("planar", [0, 1])
def test_blocks_are_bounded(planar: int) -> None:
    """A frame of several blocks comes in pieces that are the frame, and none is much larger than a block."""
    form = FrameForm(700, 900, 3, 16, 16, False)
    frame = noise(form)
    pixels = pixel_data(*native(form, [frame], planar=planar))
    blocks = [bytes(block) for block in native_blocks(pixels)]
    assert b"".join(blocks) == frame.tobytes()
    assert len(blocks) > 1
    assert max(map(len, blocks)) <= BLOCK


@pytest.mark.parametrize("mode", ["explicit", "big"])
def test_many_small_planes_come_together(mode: str) -> None:
    """Frames of a pixel or two: one block at a time, not one frame, which took five seconds a megabyte."""
    form = FrameForm(1, 1, 3, 16, 16, False)
    frames = [noise(form, seed) for seed in (1, 2, 3)] * 100_000
    pixels = pixel_data(*native(form, frames, mode, planar=1))
    blocks = list(native_blocks(pixels))
    assert len(blocks) == 2
    assert b"".join(blocks) == b"".join(frame.tobytes() for frame in frames)


@pytest.mark.parametrize("side", [8, 9, 13])
def test_one_bit(side: int) -> None:
    """Frames of one bit follow each other without a gap (PS3.5 8.1.1); each sample comes out as a byte."""
    form = FrameForm(side, side, 1, 1, 1, False)
    samples = np.random.default_rng(1).integers(0, 2, side * side * 3, dtype=np.uint8)
    value = np.packbits(samples, bitorder="little").tobytes()
    value += b"\0" * (len(value) % 2)
    frames = [noise(form)] * 3
    pixels = pixel_data(*native(form, frames, x7FE00010=El(0x7FE0_0010, "OB", value)))
    assert b"".join(native_blocks(pixels)) == samples.tobytes()


@pytest.mark.parametrize("change", [-2, 2, 100])
def test_native_value_of_another_length(change: int) -> None:
    """Where description and length disagree, nothing is lost from the blocks: too short is taken as bytes."""
    form = FrameForm(6, 6, 1, 16, 12, False)
    value = native_value([noise(form)])
    value = value[:change] if change < 0 else value + bytes(range(change))
    pixels = pixel_data(*native(form, [noise(form)], x7FE00010=El(0x7FE0_0010, "OW", value)))
    assert b"".join(native_blocks(pixels)) == value


PIECES = [bytes([255, 216, 255, number]) + bytes(2 * number) for number in range(1, 7)]


def offsets(pieces: Sequence[bytes]) -> list[int]:
    found, position = [], 0
    for piece in pieces:
        found.append(position)
        position += 8 + len(piece)
    return found


def frames_of(value: bytes, frames: int, **changes: El | None) -> list[bytes]:
    form = FrameForm(32, 32, 1, 8, 8, False)
    pixels = pixel_data(*encapsulated(form, value, J2K, frames=frames, photometric="MONOCHROME2", **changes))
    found = EncapsulatedFrames(pixels)
    return [bytes(found.frame(index)) for index in range(frames)]


def basic(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def extended(numbers: Sequence[int], lengths: Sequence[int]) -> dict[str, El]:
    return {
        "x7FE00001": El(0x7FE0_0001, "OV", struct.pack(f"<{len(numbers)}Q", *numbers)),
        "x7FE00002": El(0x7FE0_0002, "OV", struct.pack(f"<{len(lengths)}Q", *lengths)),
    }


def test_one_frame_is_all_fragments() -> None:
    """PS3.5 A.4: with one frame every fragment is its, whatever the table says."""
    assert frames_of(fragments(PIECES), 1) == [b"".join(PIECES)]
    assert frames_of(fragments(PIECES, basic([0])), 1) == [b"".join(PIECES)]
    assert frames_of(fragments(PIECES, b"garbage!"), 1) == [b"".join(PIECES)]


def test_as_many_fragments_as_frames() -> None:
    """Without a table, or with one that is no table, each fragment is a frame."""
    assert frames_of(fragments(PIECES), 6) == PIECES
    for table in (b"garbage!", basic([7] * 6), basic([0] * 6), basic(offsets(PIECES)[::-1]), b"abc\0\1\2"):
        assert frames_of(fragments(PIECES, table), 6) == PIECES


def test_basic_offset_table() -> None:
    """Offsets say at which fragment each frame begins."""
    places = offsets(PIECES)
    table = basic([places[0], places[2], places[3]])
    assert frames_of(fragments(PIECES, table), 3) == [
        b"".join(PIECES[:2]), PIECES[2], b"".join(PIECES[3:]),
    ]  # fmt: skip


def test_extended_offset_table() -> None:
    """PS3.3 C.7.6.3.1.8: one fragment a frame, and the true length leaves the padding out."""
    lengths = [len(piece) - number % 2 for number, piece in enumerate(PIECES)]
    found = frames_of(fragments(PIECES), 6, **extended(offsets(PIECES), lengths))
    assert found == [piece[:length] for piece, length in zip(PIECES, lengths, strict=True)]


@pytest.mark.parametrize(
    ("numbers", "lengths"),
    [
        (offsets(PIECES), [len(piece) + 1 for piece in PIECES]),
        (offsets(PIECES), [0] * 6),
        (offsets(PIECES), [2**63] * 6),
        ([2**63] * 6, [len(piece) for piece in PIECES]),
        ([0] * 6, [len(piece) for piece in PIECES]),
        (offsets(PIECES)[:5], [len(piece) for piece in PIECES][:5]),
    ],
)
def test_a_wrong_extended_table_is_not_believed(numbers: list[int], lengths: list[int]) -> None:
    """Offsets or lengths that are not those of the items change nothing."""
    assert frames_of(fragments(PIECES), 6, **extended(numbers, lengths)) == PIECES


def test_markers_tell_where_no_table_does() -> None:
    """More fragments than frames without a table: a frame begins where a fragment begins like a codestream."""
    pieces = [PIECES[0], b"more", b"more", PIECES[1], PIECES[2], b"more"]
    expected = [b"".join(pieces[:3]), pieces[3], b"".join(pieces[4:])]
    assert frames_of(fragments(pieces), 3) == expected
    assert frames_of(fragments(pieces, basic([0, 4, 8])), 3) == expected


@pytest.mark.parametrize(
    ("pieces", "frames"),
    [
        ([], 1), ([], 3), (PIECES[:2], 3), (PIECES, 4), ([b"more", *PIECES[:3]], 3), ([b"aa"] * 5, 2),
        ([b"aa"] * (MOST_PIECES + 1), 1),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_not_guessed(pieces: list[bytes], frames: int) -> None:
    """Too few fragments, or too many and nothing that assigns them, or more than anybody cuts a frame into."""
    with pytest.raises(FramesUnknown):
        frames_of(fragments(pieces), frames)


@given(
    pieces=st.lists(st.binary(max_size=9).map(lambda data: data + b"\0" * (len(data) % 2)), max_size=6),
    table=st.binary(max_size=6).map(lambda data: data * 4),
    frames=st.integers(1, 7),
    numbers=st.lists(st.integers(0, 2**64 - 1), max_size=6),
    lengths=st.lists(st.integers(0, 2**64 - 1), max_size=6),
)
def test_any_tables(
    pieces: list[bytes], table: bytes, frames: int, numbers: list[int], lengths: list[int]
) -> None:
    """Whatever the tables hold: frames made of whole fragments in order, or `FramesUnknown`."""
    try:
        found = frames_of(fragments(pieces, table), frames, **extended(numbers, lengths))
    except FramesUnknown:
        return
    assert len(found) == frames
    whole = b"".join(pieces)
    if b"".join(found) != whole:  # an extended table may leave padding out
        assert all(len(piece) - len(frame) in (0, 1) for frame, piece in zip(found, pieces, strict=True))


def encapsulate(codestreams: Sequence[bytes]) -> bytes:
    encapsulation = Encapsulation()
    items = b"".join(b"".join(encapsulation.item(codestream)) for codestream in codestreams)
    assert encapsulation.size == len(items)
    return encapsulation.head() + items + SEQUENCE_DELIMITATION


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8))
def test_what_is_written_is_read(codestreams: list[bytes]) -> None:
    """One fragment a frame, even, and a Basic Offset Table that leads to each."""
    element = encapsulate(codestreams)
    assert element[:12] == b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
    found = frames_of(element[12:], len(codestreams))
    assert found == [codestream + b"\0" * (len(codestream) % 2) for codestream in codestreams]
    (length,) = struct.unpack_from("<I", element, 16)
    assert length == 4 * len(codestreams)


def test_offsets_above_32_bits() -> None:
    """An Extended Offset Table takes over, and the basic one is empty."""
    encapsulation = Encapsulation()
    encapsulation.item(b"abc")
    encapsulation.size = 2**32  # as if that much had been written
    encapsulation.item(b"abcd")
    head = encapsulation.head()
    assert head == (
        b"\xe0\x7f\x01\0OV\0\0" + struct.pack("<IQQ", 16, 0, 2**32)
        + b"\xe0\x7f\x02\0OV\0\0" + struct.pack("<IQQ", 16, 3, 4)
        + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0"
    )  # fmt: skip


def test_offsets_of_just_32_bits() -> None:
    """The last offset that fits still goes into the basic table."""
    encapsulation = Encapsulation()
    encapsulation.item(b"ab")
    encapsulation.size = 2**32 - 2
    encapsulation.item(b"ab")
    assert encapsulation.head()[12:] == b"\xfe\xff\0\xe0\x08\0\0\0" + struct.pack("<II", 0, 2**32 - 2)


def test_an_empty_codestream_is_no_fragment() -> None:
    """PS3.5 A.4: a fragment has a value."""
    with pytest.raises(ValueError, match="no fragment"):
        Encapsulation().item(b"")


def test_payloads_in_pieces() -> None:
    """Items are read wherever the buffers of the payload end."""
    form = FrameForm(32, 32, 1, 8, 8, False)
    data, instance = encapsulated(form, fragments(PIECES), RLE, frames=6)
    whole = pixel_data(data, instance)
    for cut in (1, 7, 64):
        payload = MemoryPayload([data[at : at + cut] for at in range(0, len(data), cut)])
        pixels = PixelData(payload, RLE, whole.description)
        found = EncapsulatedFrames(pixels)
        assert [bytes(found.frame(index)) for index in range(6)] == PIECES
        assert b"".join(found.blocks()) == b"".join(PIECES)
