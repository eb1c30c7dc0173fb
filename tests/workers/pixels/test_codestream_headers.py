"""Headers of codestreams: what they declare is read exactly, and only `CodecFailed` escapes whatever the bytes."""

import struct

import imagecodecs
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.pixel_objects import noise
from workers.pixels.codestream import Header, check, read_jpeg, read_jpeg_2000, unboxed
from workers.pixels.decoders import decode, encode_proved
from workers.pixels.form import CodecFailed, Coding, Failure, FrameForm

FORM = FrameForm(48, 40, 1, 16, 12, False)
COLOUR = FrameForm(48, 40, 3, 8, 8, False)
J2K = encode_proved(memoryview(noise(FORM).tobytes()), FORM, transform=False)
J2K_COLOUR = encode_proved(memoryview(noise(COLOUR).tobytes()), COLOUR, transform=True)
JPEG_LS = bytes(imagecodecs.jpegls_encode(noise(FORM)[..., 0]))
JPEG_LL = bytes(imagecodecs.jpeg8_encode(noise(COLOUR), lossless=True, colorspace="RGB", outcolorspace="RGB"))


def reason(data: bytes, coding: Coding, form: FrameForm) -> Failure:
    with pytest.raises(CodecFailed) as caught:
        decode(memoryview(data), coding, form)
    return caught.value.reason


def test_jpeg_2000() -> None:
    """SIZ and COD: sizes, components, precision, sign, wavelet and component transform."""
    assert read_jpeg_2000(memoryview(J2K)) == Header(48, 40, 1, 12, signed=False, lossless=True)
    assert read_jpeg_2000(memoryview(J2K_COLOUR)) == Header(
        48, 40, 3, 8, signed=False, lossless=True, transform=True
    )


def test_jpeg() -> None:
    """SOF55 and SOF3; a JPEG of another process is lossy, and so is JPEG-LS with a NEAR above zero."""
    header = read_jpeg(memoryview(JPEG_LS))
    assert (header.rows, header.columns, header.components, header.lossless) == (48, 40, 1, True)
    assert read_jpeg(memoryview(JPEG_LL)) == Header(48, 40, 3, 8, signed=False, lossless=True)
    assert not read_jpeg(
        memoryview(imagecodecs.jpeg8_encode(noise(COLOUR), level=90, subsampling="444"))
    ).lossless
    assert not read_jpeg(memoryview(imagecodecs.jpegls_encode(noise(FORM)[..., 0], level=2))).lossless


def test_what_disagrees_is_not_decoded() -> None:
    """Other sizes, components or a precision above Bits Allocated never reach a decoder."""
    for coding, data in ((Coding.JPEG_2000, J2K), (Coding.JPEG_LS, JPEG_LS)):
        assert reason(data, coding, FrameForm(40, 48, 1, 16, 12, False)) is Failure.DISAGREES
        assert reason(data, coding, FrameForm(48, 40, 3, 16, 12, False)) is Failure.DISAGREES
        assert reason(data, coding, FrameForm(48, 40, 1, 8, 8, False)) is Failure.DISAGREES
    assert reason(JPEG_LL, Coding.JPEG_LOSSLESS, FORM) is Failure.DISAGREES


@pytest.mark.parametrize(
    ("offset", "format", "values"),
    [
        (8, ">I", (20_000,)),  # Xsiz
        (24, ">II", (1, 0)),  # tiles without height
        (41, ">BB", (2, 2)),  # a subsampled component
        (38, ">H", (4,)),  # components that SIZ has no room for
    ],
)
def test_a_changed_size_is_refused(offset: int, format: str, values: tuple[int, ...]) -> None:  # noqa: A002 - struct's word
    """Each field of SIZ that would change what comes out stops the frame."""
    changed = bytearray(J2K)
    struct.pack_into(format, changed, offset, *values)
    assert reason(bytes(changed), Coding.JPEG_2000, FORM) in (Failure.DISAGREES, Failure.DAMAGED)


def test_too_many_tiles() -> None:
    """More tiles than 16 bits can number are told from the header: they would cost memory each."""
    form = FrameForm(1024, 1024, 1, 8, 8, False)
    changed = bytearray(encode_proved(memoryview(bytes(form.size)), form, transform=False))
    struct.pack_into(">II", changed, 24, 1, 1)
    assert reason(bytes(changed), Coding.JPEG_2000, form) is Failure.DAMAGED


def test_irreversible() -> None:
    """A 9/7 wavelet is lossy whatever the transfer syntax says."""
    changed = bytearray(J2K)
    cod = changed.index(b"\xff\x52")
    changed[cod + 13] = 0
    assert reason(bytes(changed), Coding.JPEG_2000, FORM) is Failure.LOSSY


def test_boxes() -> None:
    """The codestream of a JP2 file is found; boxes without one are damaged."""
    form = FrameForm(48, 40, 1, 8, 8, False)
    frame = noise(form)
    boxed = bytes(imagecodecs.jpeg2k_encode(frame[..., 0], codecformat="jp2", reversible=True, level=0))
    assert boxed[4:8] == b"jP  "
    assert decode(memoryview(boxed), Coding.JPEG_2000, form) == frame.tobytes()
    assert reason(boxed[:20], Coding.JPEG_2000, form) is Failure.DAMAGED
    assert unboxed(memoryview(J2K)) == J2K


def test_a_missing_sign_is_borne() -> None:
    """Pixel Representation decides: an unsigned codestream of signed samples gives their two's complement."""
    signed = FrameForm(48, 40, 1, 16, 12, True)
    frame = noise(signed)
    unsigned = (frame & 0xFFF).astype("<u2")
    codestream = encode_proved(memoryview(unsigned.tobytes()), FORM, transform=False)
    assert decode(memoryview(codestream), Coding.JPEG_2000, signed) == frame.tobytes()
    codestream = encode_proved(memoryview(frame.tobytes()), signed, transform=False)
    assert decode(memoryview(codestream), Coding.JPEG_2000, FORM) == unsigned.tobytes()


SAMPLES = [J2K, J2K_COLOUR, JPEG_LS, JPEG_LL]


@given(data=st.data())
@hypothesis_settings(max_examples=300)
def test_only_codec_failed_escapes(data: st.DataObject) -> None:
    """Damaged or random bytes: a header, or `CodecFailed`; nothing else, and no endless loop."""
    if data.draw(st.booleans()):
        octets = bytearray(data.draw(st.sampled_from(SAMPLES)))
        for _ in range(data.draw(st.integers(1, 6))):
            octets[data.draw(st.integers(0, min(200, len(octets) - 1)))] = data.draw(st.integers(0, 255))
        octets = octets[: data.draw(st.integers(0, len(octets)))]
    else:
        start = data.draw(
            st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"])
        )
        octets = bytearray(start + data.draw(st.binary(max_size=200)))
    view = memoryview(octets)
    reasons: set[Failure] = set()
    for coding in (Coding.JPEG_2000, Coding.JPEG_LS, Coding.JPEG_LOSSLESS):
        try:
            check(unboxed(view), coding, FORM)
        except CodecFailed as failure:
            reasons.add(failure.reason)
    assert reasons <= {Failure.DAMAGED, Failure.DISAGREES, Failure.LOSSY}


@given(data=st.binary(max_size=300), segments=st.lists(st.integers(0, 400), max_size=17))
def test_any_rle_frame(data: bytes, segments: list[int]) -> None:
    """An RLE frame with any header and any segments: a frame of the right size, or `CodecFailed`."""
    reasons: set[Failure] = set()
    header = struct.pack("<16I", *(segments[:16] + [0] * 16)[:16])
    for form in (
        FrameForm(4, 4, 1, 8, 8, False),
        FrameForm(3, 3, 1, 1, 1, False),
        FrameForm(2, 2, 3, 16, 16, False),
    ):
        for frame in (data, header + data):
            try:
                assert len(decode(memoryview(frame), Coding.RLE, form)) == form.size
            except CodecFailed as failure:
                reasons.add(failure.reason)
    assert reasons <= {Failure.DAMAGED, Failure.DISAGREES}


def test_uncompressed_frames() -> None:
    """A native frame in a fragment has its length, or a padding byte more."""
    form = FrameForm(3, 3, 1, 8, 8, False)
    frame = bytes(range(9))
    assert decode(memoryview(frame), Coding.UNCOMPRESSED, form) == frame
    assert decode(memoryview(frame + b"\0"), Coding.UNCOMPRESSED, form) == frame
    assert reason(frame[:8], Coding.UNCOMPRESSED, form) is Failure.DAMAGED
    assert reason(frame * 2, Coding.UNCOMPRESSED, form) is Failure.DAMAGED
