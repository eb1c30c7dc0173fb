"""Decodes and encodes one frame; runs in a codec process only, since the libraries may crash on bad input.

OpenJPEG (through pylibjpeg-openjpeg) for JPEG 2000 and its High-Throughput form, libjpeg-turbo and CharLS
(through imagecodecs) for JPEG lossless and JPEG-LS. None converts colours: samples come out as they went in.
The extension modules of imagecodecs are loaded by name: the package loads them when they are first called,
which a confined process cannot do any more.
"""

import io
import struct

import numpy as np
from imagecodecs._imcd import packbits_decode
from imagecodecs._jpeg8 import jpeg8_decode
from imagecodecs._jpegls import jpegls_decode
from numpy.typing import NDArray
from openjpeg.utils import decode as openjpeg_decode
from openjpeg.utils import encode_array as openjpeg_encode

from workers.pixels.codestream import Header, check, check_end, read_jpeg_2000, unboxed
from workers.pixels.form import CodecFailed, Coding, Failure, FrameForm

Samples = NDArray[np.integer]

_RGB = 1  # `photometric_interpretation` that lets the wrapper apply the component transform
_JCS_RGB = 2  # libjpeg's number for it
_RLE_SLACK = 256  # bytes that padding behind a segment may seem to hold
_RLE_HEADER = struct.Struct("<16I")  # PS3.5 G.5: number of segments and 15 offsets


def sample_type(form: FrameForm) -> np.dtype[np.integer]:
    """Little endian integers of Bits Allocated; a byte for each sample of one bit."""
    return np.dtype(f"<{'i' if form.signed else 'u'}{max(1, form.bits_allocated // 8)}")


def encode_proved(frame: memoryview, form: FrameForm, *, transform: bool) -> bytes:
    """A native frame as a reversible JPEG 2000 codestream that decodes to the very same bytes.

    Raises:
        CodecFailed: UNUSED_BITS, REFUSED or UNPROVED.
    """
    shape: tuple[int, ...] = (form.rows, form.columns)
    if form.samples_per_pixel > 1:
        shape += (form.samples_per_pixel,)
    samples = np.frombuffer(frame, sample_type(form)).reshape(shape)
    _check_unused_bits(samples, form)
    try:
        codestream = openjpeg_encode(
            samples,
            bits_stored=form.bits_stored,
            photometric_interpretation=_RGB if transform else 0,
            use_mct=transform,
        )
    except (ValueError, RuntimeError) as error:
        raise CodecFailed(Failure.REFUSED, "the encoder does not take this frame") from error
    prove(codestream, samples, form, transform=transform)
    return bytes(codestream)


def prove(codestream: bytes, samples: Samples, form: FrameForm, *, transform: bool) -> None:
    """Decode and compare at full Bits Allocated; the header has to say what PS3.5 8.2.4 wants of it.

    Raises:
        CodecFailed: UNPROVED.
    """
    try:
        header = read_jpeg_2000(memoryview(codestream))
        decoded = _decode_jpeg_2000(memoryview(codestream), form, header)
    except CodecFailed as error:
        raise CodecFailed(Failure.UNPROVED, "the output does not decode") from error
    wanted = Header(
        form.rows, form.columns, form.samples_per_pixel, form.bits_stored, form.signed, True, transform
    )  # fmt: skip
    if header != wanted:
        raise CodecFailed(Failure.UNPROVED, "the output's header is not the frame's")
    # Values of one type: equal values are equal bytes, the bits above Bits Stored included.
    if not np.array_equal(decoded.reshape(-1), samples.reshape(-1)):
        raise CodecFailed(Failure.UNPROVED, "the output decodes to other samples")


def _check_unused_bits(samples: Samples, form: FrameForm) -> None:
    """Bits above Bits Stored must be zero, or the sign: the codestream has no room for anything else."""
    if form.bits_stored == form.bits_allocated:
        return
    least, most = int(samples.min()), int(samples.max())
    half = 1 << form.bits_stored - 1
    if not (-half <= least and most < half if form.signed else most < half * 2):
        raise CodecFailed(Failure.UNUSED_BITS, "bits above Bits Stored are in use")


def decode(data: memoryview, coding: Coding, form: FrameForm) -> bytes:
    """A codestream as a native frame, little endian, samples of a pixel together, at full Bits Allocated.

    Raises:
        CodecFailed: DAMAGED, DISAGREES or LOSSY.
    """
    if coding is Coding.JPEG_2000:
        data = unboxed(data)
    header = check(data, coding, form)
    if header is not None:
        read = _decode_jpeg_2000 if coding is Coding.JPEG_2000 else _READERS[coding]
        return read(data, form, header).tobytes()
    if coding is Coding.RLE:
        return _decode_rle(data, form)
    return _decode_uncompressed(data, form)


def _decode_uncompressed(data: memoryview, form: FrameForm) -> bytes:
    """PS3.5 A.4.11: a native frame, samples of one bit packed."""
    length = _packed_length(form) if form.bits_allocated == 1 else form.size
    if len(data) not in (length, length + length % 2):
        raise CodecFailed(Failure.DAMAGED, "a frame of another length")
    if form.bits_allocated == 1:
        return _unpacked(np.frombuffer(data, np.uint8, length), form)
    return bytes(data[:length])


def _packed_length(form: FrameForm) -> int:
    return (form.samples + 7) // 8


def _unpacked(packed: NDArray[np.uint8], form: FrameForm) -> bytes:
    """Samples of one bit as a byte each (PS3.5 8.1.1: the first pixel is the least significant bit)."""
    return np.unpackbits(packed, bitorder="little")[: form.samples].tobytes()


def _decode_jpeg_2000(data: memoryview, form: FrameForm, header: Header) -> Samples:
    try:
        decoded = openjpeg_decode(io.BytesIO(data), j2k_format=0, reshape=False)
    except (ValueError, RuntimeError) as error:
        raise CodecFailed(Failure.DAMAGED, "the decoder cannot read it") from error
    width = 1 if header.precision <= 8 else 2 if header.precision <= 16 else 4  # noqa: PLR2004 - bits
    return _widen(decoded.view(f"<{'i' if header.signed else 'u'}{width}"), form, header)


def _decode_jpeg_ls(data: memoryview, form: FrameForm, header: Header) -> Samples:
    try:
        return _widen(jpegls_decode(data), form, header)
    except (RuntimeError, ValueError) as error:
        raise CodecFailed(Failure.DAMAGED, "the decoder cannot read it") from error


def _decode_jpeg_lossless(data: memoryview, form: FrameForm, header: Header) -> Samples:
    check_end(data)  # the library would make the rest up, and warns of that where nobody hears it
    try:
        # Saying that colours are what they should become is how the library is told not to convert them.
        colours = _JCS_RGB if header.components == 3 else None  # noqa: PLR2004 - three components
        return _widen(jpeg8_decode(data, colorspace=colours, outcolorspace=colours), form, header)
    except (RuntimeError, ValueError) as error:
        raise CodecFailed(Failure.DAMAGED, "the decoder cannot read it") from error


_READERS = {Coding.JPEG_LS: _decode_jpeg_ls, Coding.JPEG_LOSSLESS: _decode_jpeg_lossless}


def _widen(decoded: Samples, form: FrameForm, header: Header) -> Samples:
    """Samples of the codestream's precision at full Bits Allocated.

    Pixel Representation decides about the sign, whatever the codestream says: JPEG and JPEG-LS know no
    sign, and JPEG 2000 encoders have left it out.
    """
    if decoded.size != form.samples:
        raise CodecFailed(Failure.DISAGREES, "the decoder gave another number of samples")
    target = sample_type(form)
    if header.signed == form.signed:
        return decoded.astype(target, copy=False)
    if not form.signed:
        return (decoded & np.array((1 << header.precision) - 1, decoded.dtype)).astype(target)
    spare = 8 * target.itemsize - header.precision
    return (decoded.astype(target) << spare) >> spare


def _decode_rle(data: memoryview, form: FrameForm) -> bytes:
    """PS3.5 Annex G: one segment for each byte of each sample, the most significant first."""
    if len(data) < _RLE_HEADER.size:
        raise CodecFailed(Failure.DAMAGED, "shorter than an RLE header")
    count, *offsets = _RLE_HEADER.unpack_from(data)
    width = max(1, form.bits_allocated // 8)
    if count != form.samples_per_pixel * width or count > len(offsets):
        raise CodecFailed(Failure.DISAGREES, "RLE segments are not the data set's samples and bytes")
    ends = [*offsets[1:count], len(data)]
    pixels = form.rows * form.columns
    length = _packed_length(form) if form.bits_allocated == 1 else pixels
    frame = np.empty((length, form.samples_per_pixel, width), np.uint8)
    for index, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        if not _RLE_HEADER.size <= start <= end <= len(data):
            raise CodecFailed(Failure.DAMAGED, "an RLE segment outside the frame")
        frame[:, index // width, width - 1 - index % width] = _unpack_bits(data[start:end], length)
    if form.bits_allocated == 1:
        return _unpacked(frame.reshape(-1), form)
    return frame.tobytes()


def _unpack_bits(segment: memoryview, length: int) -> NDArray[np.uint8]:
    """One RLE segment (PS3.5 G.3), of which padding may follow; never more than ``length`` bytes."""
    try:
        plain = packbits_decode(segment, out=length + _RLE_SLACK)
    except (RuntimeError, ValueError) as error:
        raise CodecFailed(Failure.DAMAGED, "an RLE segment cannot be read or is too long") from error
    if len(plain) < length:
        raise CodecFailed(Failure.DAMAGED, "an RLE segment is too short")
    return np.frombuffer(plain, np.uint8, length)
