"""The way back: native pixels as any reader takes them, proved; whatever form the lossless source has."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.support.element_trees import El
from tests.support.instances import EXPLICIT, recorded
from tests.support.pixel_objects import COLOUR, GRAY, encapsulated, even, examined, fragments, native, noise
from workers.dataset.payload import MemoryPayload
from workers.pixels.codec import Codec
from workers.pixels.frames import native_frame
from workers.stages.decompress import CannotDecompress, decompress, prove
from workers.stages.transcode import pixel_data_of
from workers.stages.validate import Examination

UNCOMPRESSED = "1.2.840.10008.1.2.1.98"


def decompressed(runner: asyncio.Runner, codec: Codec, examination: Examination, scratch: Path) -> bytes:
    """The result, proved."""

    async def scenario() -> bytes:
        result = bytearray()
        await decompress(examination, codec, result.extend)
        await prove(MemoryPayload([result]), examination, codec, scratch)
        return bytes(result)

    return runner.run(scenario())


@pytest.mark.parametrize("planar", [0, 1])
def test_planes_in_fragments_come_out_as_pixels(
    runner: asyncio.Runner, codec: Codec, tmp_path: Path, planar: int
) -> None:
    """Encapsulated Uncompressed (PS3.5 A.4.11) keeps Planar Configuration; the result says 0, and so its samples must lie."""
    frames = [noise(COLOUR, seed) for seed in (1, 2)]
    pieces = [np.moveaxis(frame, -1, 0).tobytes() if planar else frame.tobytes() for frame in frames]
    told = El(0x0028_0006, "US", bytes([planar, 0]))
    source = encapsulated(
        COLOUR, fragments([even(one) for one in pieces]), UNCOMPRESSED, frames=2, x00280006=told
    )
    result = decompressed(runner, codec, examined(*source), tmp_path)
    pixels = pixel_data_of(examined(result, recorded(result, EXPLICIT)))
    assert pixels is not None
    assert not pixels.is_planar
    assert [bytes(native_frame(pixels, index)) for index in (0, 1)] == [frame.tobytes() for frame in frames]


@pytest.mark.parametrize("mode", ["explicit", "implicit", "big"])
def test_native_is_rewritten_without_a_change(
    runner: asyncio.Runner, codec: Codec, tmp_path: Path, mode: str
) -> None:
    """Explicit VR Little Endian as it is; the other encodings with their numbers turned."""
    result = decompressed(runner, codec, examined(*native(GRAY, [noise(GRAY)], mode)), tmp_path)
    assert result == native(GRAY, [noise(GRAY)])[0]


def test_only_jpeg_2000_makes_rgb_of_ybr_rct(runner: asyncio.Runner, codec: Codec, tmp_path: Path) -> None:
    """PS3.5 8.2.4: its decoder turns the component transform back; what is in another syntax stays what it is called."""
    frame = noise(COLOUR)
    stream = even(runner.run(codec.encode_proved(frame.tobytes(), COLOUR, transform=True)))
    for syntax, piece, label in (
        ("1.2.840.10008.1.2.4.90", stream, "RGB"),
        (UNCOMPRESSED, even(frame.tobytes()), "YBR_RCT"),
    ):
        source = examined(*encapsulated(COLOUR, fragments([piece]), syntax, photometric="YBR_RCT"))
        result = decompressed(runner, codec, source, tmp_path)
        pixels = pixel_data_of(examined(result, recorded(result, EXPLICIT)))
        assert pixels is not None
        assert pixels.description.photometric_interpretation == label
        assert bytes(native_frame(pixels, 0)) == frame.tobytes()


def test_frames_that_nobody_counted_have_no_native_form(
    runner: asyncio.Runner, codec: Codec, tmp_path: Path
) -> None:
    """Two codestreams and no Number of Frames: a part of them would be no proof of the whole."""
    stream = even(runner.run(codec.encode_proved(noise(GRAY).tobytes(), GRAY)))
    source = encapsulated(GRAY, fragments([stream, stream]), "1.2.840.10008.1.2.4.90")
    with pytest.raises(CannotDecompress):
        decompressed(runner, codec, examined(*source), tmp_path)
