"""What the codec gives for one frame: a proved codestream that others read as the same bytes, or a reason."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array

from tests.support.pixel_objects import decoded_by_another, noise
from workers.pixels import decoders
from workers.pixels.codec import Codec
from workers.pixels.codestream import Header, read_jpeg_2000
from workers.pixels.form import CodecFailed, Coding, Failure, FrameForm

GRAY = [(8, 8), (8, 7), (8, 1), (16, 16), (16, 12), (16, 9), (16, 8), (16, 1), (32, 24), (32, 17), (32, 12)]
FORMS = [
    *(FrameForm(33, 40, 1, allocated, stored, signed) for allocated, stored in GRAY for signed in (False, True)),
    *(FrameForm(40, 33, 3, allocated, stored, False) for allocated, stored in GRAY),
]  # fmt: skip

MOST_TRANSFORMED = 16  # bits; what is asked of the codec: with a component transform it fails at 24


def name(form: FrameForm) -> str:
    sign = "i" if form.signed else "u"
    return f"{form.samples_per_pixel}x{sign}{form.bits_stored}in{form.bits_allocated}"


@pytest.mark.parametrize("transform", [False, True], ids=["plain", "transform"])
@pytest.mark.parametrize("form", FORMS, ids=name)
def test_every_supported_form_is_encoded_bit_for_bit(
    runner: asyncio.Runner, codec: Codec, form: FrameForm, transform: bool
) -> None:
    """Each combination of bits, sign and samples comes back as the same bytes, also from a second decoder."""
    transform = transform and form.samples_per_pixel == 3 and form.bits_stored <= MOST_TRANSFORMED
    frame = noise(form).tobytes()
    codestream = runner.run(codec.encode_proved(frame, form, transform=transform))
    assert codestream.startswith(b"\xff\x4f\xff\x51")
    assert codestream.endswith(b"\xff\xd9")
    assert read_jpeg_2000(memoryview(codestream)) == Header(
        form.rows, form.columns, form.samples_per_pixel, form.bits_stored, form.signed,
        lossless=True, transform=transform,
    )  # fmt: skip
    assert runner.run(codec.decode(codestream, Coding.JPEG_2000, form)) == frame
    if form.bits_stored <= 16:
        assert decoded_by_another(codestream, form) == frame


@given(data=st.data())
@hypothesis_settings(max_examples=40)
def test_any_frame_within_the_limits(runner: asyncio.Runner, codec: Codec, data: st.DataObject) -> None:
    """Whatever the sides, bits and content, the codestream decodes to the frame."""
    allocated = data.draw(st.sampled_from([8, 16, 32]))
    samples = data.draw(st.sampled_from([1, 3]))
    # OpenJPEG runs out of room for noise of one bit: see the test below.
    form = FrameForm(
        data.draw(st.integers(32, 100)),
        data.draw(st.integers(32, 100)),
        samples,
        allocated,
        data.draw(st.integers(2, min(allocated, 24))),
        data.draw(st.booleans()),
    )
    frame = noise(form, data.draw(st.integers(0, 1000)))
    if data.draw(st.booleans()):
        frame[:] = frame[0, 0]
    raw = frame.tobytes()
    transform = (
        form.samples_per_pixel == 3 and form.bits_stored <= MOST_TRANSFORMED and data.draw(st.booleans())
    )
    codestream = runner.run(codec.encode_proved(raw, form, transform=transform))
    assert runner.run(codec.decode(codestream, Coding.JPEG_2000, form)) == raw


@pytest.mark.parametrize("side", [98, 256])
def test_noise_of_one_bit_is_right_or_a_reason(runner: asyncio.Runner, codec: Codec, side: int) -> None:
    """OpenJPEG runs out of room for some of it: it refuses, or cuts its output short and says nothing, which the proof sees."""
    form = FrameForm(side, side, 1, 8, 1, False)
    seen = set()
    for seed in range(30):
        frame = noise(form, seed).tobytes()
        try:
            codestream = runner.run(codec.encode_proved(frame, form))
        except CodecFailed as failure:
            seen.add(failure.reason)
        else:
            assert runner.run(codec.decode(codestream, Coding.JPEG_2000, form)) == frame
    assert seen == {Failure.UNPROVED if side == 98 else Failure.REFUSED}


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (FrameForm(40, 40, 1, 32, 25, False), Failure.REFUSED),
        (FrameForm(40, 40, 1, 32, 32, False), Failure.REFUSED),
        (FrameForm(40, 40, 1, 32, 32, True), Failure.REFUSED),
        (FrameForm(31, 32, 1, 8, 8, False), Failure.REFUSED),
        (FrameForm(32, 31, 1, 8, 8, False), Failure.REFUSED),
        (FrameForm(40, 40, 2, 8, 8, False), Failure.REFUSED),
    ],
)
def test_what_the_encoder_cannot_do_is_a_reason(
    runner: asyncio.Runner, codec: Codec, form: FrameForm, reason: Failure
) -> None:
    """More than 24 bits, a side under 32 and two samples are refused, so the rules that pass them are right."""
    with pytest.raises(CodecFailed) as caught:
        runner.run(codec.encode_proved(noise(form).tobytes(), form))
    assert caught.value.reason is reason
    assert not caught.value.again


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (FrameForm(32, 32, 1, 16, 12, False), 0x1000),
        (FrameForm(32, 32, 1, 16, 12, False), 0x8000),
        (FrameForm(32, 32, 1, 8, 7, False), 0x80),
        (FrameForm(32, 32, 1, 16, 12, True), 0x0800),  # negative without its sign carried up
        (FrameForm(32, 32, 1, 16, 12, True), 0x1000),
        (FrameForm(32, 32, 1, 32, 20, False), 0x8000_0000),
        (FrameForm(32, 32, 3, 16, 10, False), 0x0400),
    ],
)
def test_bits_above_bits_stored_are_never_lost(
    runner: asyncio.Runner, codec: Codec, form: FrameForm, value: int
) -> None:
    """One sample with a bit where the codestream has no room stops the frame."""
    width = form.bits_allocated // 8
    frame = bytearray(form.size)
    frame[width : 2 * width] = value.to_bytes(width, "little")
    with pytest.raises(CodecFailed) as caught:
        runner.run(codec.encode_proved(frame, form))
    assert caught.value.reason is Failure.UNUSED_BITS


def test_a_transform_that_overflows_is_found_out(runner: asyncio.Runner, codec: Codec) -> None:
    """OpenJPEG encodes 24-bit colour with a component transform and gets it wrong; the proof tells."""
    form = FrameForm(40, 33, 3, 32, 24, False)
    with pytest.raises(CodecFailed) as caught:
        runner.run(codec.encode_proved(noise(form).tobytes(), form, transform=True))
    assert caught.value.reason is Failure.UNPROVED


def test_a_lying_encoder_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that differs in the lowest bit of one sample is no proof."""
    form = FrameForm(40, 40, 1, 16, 12, False)

    def lies(samples: np.ndarray, **options: Any) -> bytes:
        changed = samples.copy()
        changed[7, 11] ^= 1
        return bytes(encode_array(changed, **options))

    monkeypatch.setattr(decoders, "openjpeg_encode", lies)
    with pytest.raises(CodecFailed) as caught:
        decoders.encode_proved(memoryview(noise(form).tobytes()), form, transform=False)
    assert caught.value.reason is Failure.UNPROVED


def test_a_lossy_encoder_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codestream of the irreversible wavelet is refused even if it should decode to the very frame."""
    form = FrameForm(64, 64, 1, 8, 8, False)

    def loses(samples: np.ndarray, **options: Any) -> bytes:
        return bytes(encode_array(samples, **options, compression_ratios=[2]))

    monkeypatch.setattr(decoders, "openjpeg_encode", loses)
    flat = memoryview(bytes(form.size))
    with pytest.raises(CodecFailed) as caught:
        decoders.encode_proved(flat, form, transform=False)
    assert caught.value.reason is Failure.UNPROVED


def test_a_header_that_says_something_else_is_found_out() -> None:
    """Samples that agree are not enough: a reader goes by precision and sign of the header."""
    form = FrameForm(40, 40, 1, 16, 12, False)
    wider = FrameForm(40, 40, 1, 16, 16, False)
    frame = memoryview(noise(form).tobytes())
    codestream = decoders.encode_proved(frame, wider, transform=False)
    samples = np.frombuffer(frame, "<u2").reshape(40, 40)
    with pytest.raises(CodecFailed) as caught:
        decoders.prove(codestream, samples, form, transform=False)
    assert caught.value.reason is Failure.UNPROVED
