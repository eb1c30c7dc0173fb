"""Whole instances around given frames, in every form of pixel data, and a second JPEG 2000 decoder."""

import struct
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from ingest.contract.records import Instance
from tests.support.element_trees import El, encode
from tests.support.instances import SECONDARY_CAPTURE, SOP_INSTANCE, SYNTAXES, image, recorded
from workers.dataset.identity import Identity
from workers.dataset.payload import MemoryPayload
from workers.pixels.decoders import sample_type
from workers.pixels.form import FrameForm
from workers.stages import validate as validation
from workers.stages.validate import Examination, validate

Frame = NDArray[np.integer]

GRAY = FrameForm(40, 48, 1, 16, 12, False)
COLOUR = FrameForm(40, 48, 3, 8, 8, False)


def noise(form: FrameForm, seed: int = 1) -> Frame:
    """A frame of `form` with every bit stored in use, values at both ends included."""
    generator = np.random.default_rng(seed)
    low = -(1 << form.bits_stored - 1) if form.signed else 0
    high = low + (1 << form.bits_stored)
    shape = (form.rows, form.columns, form.samples_per_pixel)
    frame = generator.integers(low, high, shape, dtype=np.int64)
    frame[0, 0, 0], frame[-1, -1, -1] = low, high - 1
    return frame.astype(sample_type(form))


def us(number: int) -> bytes:
    return struct.pack("<H", number)


def description(form: FrameForm, frames: int = 1, photometric: str = "", planar: int = 0) -> dict[str, El]:
    """The Image Pixel module of frames of `form`."""
    photometric = photometric or ("MONOCHROME2" if form.samples_per_pixel == 1 else "RGB")
    elements = [
        El(0x0028_0002, "US", us(form.samples_per_pixel)),
        El(0x0028_0004, "CS", photometric.encode() + b" " * (len(photometric) % 2)),
        El(0x0028_0010, "US", us(form.rows)),
        El(0x0028_0011, "US", us(form.columns)),
        El(0x0028_0100, "US", us(form.bits_allocated)),
        El(0x0028_0101, "US", us(form.bits_stored)),
        El(0x0028_0102, "US", us(form.bits_stored - 1)),
        El(0x0028_0103, "US", us(int(form.signed))),
    ]
    if form.samples_per_pixel > 1:
        elements.append(El(0x0028_0006, "US", us(planar)))
    if frames > 1:
        text = str(frames)
        elements.append(El(0x0028_0008, "IS", text.encode() + b" " * (len(text) % 2)))
    return {f"x{element.tag:08X}": element for element in elements}


def native_value(frames: Sequence[Frame], planar: int = 0) -> bytes:
    """Native Pixel Data: frames one behind the other, padded to even length."""
    if planar:
        frames = [np.ascontiguousarray(np.moveaxis(frame, -1, 0)) for frame in frames]
    value = b"".join(frame.tobytes() for frame in frames)
    return value + b"\0" * (len(value) % 2)


def native(
    form: FrameForm,
    frames: Sequence[Frame],
    mode: str = "explicit",
    *,
    photometric: str = "",
    planar: int = 0,
    **changes: El | None,
) -> tuple[bytes, Instance]:
    """An instance with native pixel data in one of `SYNTAXES`; ``changes`` as in `image`."""
    vr = "OB" if form.bits_allocated <= 8 and mode != "implicit" else "OW"
    elements: dict[str, El | None] = {
        **description(form, len(frames), photometric, planar),
        "x7FE00010": El(0x7FE0_0010, vr, native_value(frames, planar)),
        **changes,
    }
    data = encode(image(**elements), mode)
    return data, recorded(data, SYNTAXES[mode])


def fragments(pieces: Sequence[bytes], table: bytes = b"") -> bytes:
    """The value of encapsulated Pixel Data: a Basic Offset Table and items, as they are."""
    items = [struct.pack("<HHI", 0xFFFE, 0xE000, len(piece)) + piece for piece in (table, *pieces)]
    return b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def encapsulated(
    form: FrameForm,
    value: bytes,
    syntax: str,
    *,
    frames: int = 1,
    photometric: str = "",
    **changes: El | None,
) -> tuple[bytes, Instance]:
    """An instance whose Pixel Data holds ``value``, made by `fragments`."""
    elements: dict[str, El | None] = {
        **description(form, frames, photometric),
        "x7FE00010": El(0x7FE0_0010, "OB", value, undefined=True),
        **changes,
    }
    data = encode(image(**elements), "explicit")
    return data, recorded(data, syntax)


def even(codestream: bytes) -> bytes:
    return codestream + b"\0" * (len(codestream) % 2)


def examined(data: bytes, instance: Instance) -> Examination:
    return validate(MemoryPayload([data]), instance)


def corpus_data_set(path: Path) -> tuple[bytes, str]:
    """The data set of a file of the corpus and its transfer syntax, whatever its file meta's length says."""
    data = path.read_bytes()
    position = 132 if data[128:132] == b"DICM" else 0
    syntax = SYNTAXES["implicit"]
    while data[position : position + 2] == b"\x02\0":
        element, vr, length = struct.unpack_from("<H2sH", data, position + 2)
        value = position + 8
        if vr in (b"OB", b"UN"):
            (length,) = struct.unpack_from("<I", data, position + 8)
            value = position + 12
        if element == 0x0010:
            syntax = data[value : value + length].rstrip(b"\0 ").decode()
        position = value + length
    if not position and data[4:6].isalpha():
        syntax = SYNTAXES["explicit"]
    return data[position:], syntax


def corpus_examined(path: Path, monkeypatch: pytest.MonkeyPatch) -> Examination:
    """A file of the corpus as if it had all its UIDs: some have none, and are of use for their pixels all the same."""
    data, syntax = corpus_data_set(path)
    identity = Identity(SECONDARY_CAPTURE, SOP_INSTANCE, "1.2.3.4", "1.2.3.4.1")
    monkeypatch.setattr(validation, "identify", lambda *_: identity)
    return examined(data, recorded(data, syntax))


def decoded_by_another(codestream: bytes, form: FrameForm) -> bytes:
    """A JPEG 2000 codestream of at most 16 bits as a native frame, by FFmpeg's own decoder, not OpenJPEG.

    It gives samples of 8 or 16 bits, those of fewer shifted to the top and signed ones moved up to be
    unsigned.
    """
    pictures = av.CodecContext.create("jpeg2000", "r").decode(av.Packet(codestream))
    samples = pictures[0].to_ndarray()
    spare = samples.dtype.itemsize * 8 - form.bits_stored
    values = samples.astype(np.int64) >> spare
    if form.signed:
        values -= 1 << form.bits_stored - 1
    return values.astype(sample_type(form)).tobytes()
