"""Decompress: a data set as Explicit VR Little Endian with native pixels, every pixel and element kept.

The way back from `transcode`, for readers that know no JPEG 2000. Nothing is taken on trust: the caller reads
the result back and calls `prove`. The SOP Instance UID never changes; what is lossy stays as it is.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from ingest.contract.records import Instance
from workers.dataset.byte_order import LittleEndianPayload
from workers.dataset.elements import LONGEST_DEFINED, PIXEL_DATA
from workers.dataset.explicit_vr import CannotReencode, explicit_element, explicit_header, explicit_vr
from workers.dataset.payload import BLOCK, Payload, SlicePayload
from workers.dataset.pixel_data import OF_ENCAPSULATION, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION
from workers.dataset.transfer_syntax import EXPLICIT_VR_LITTLE_ENDIAN, Encoding
from workers.errors import Rejected
from workers.pixels.codec import Codec
from workers.pixels.decoding import DecodedFrames, coding_of, is_jpeg_2000
from workers.pixels.digest import pixel_digest
from workers.pixels.form import CodecFailed
from workers.pixels.frames import FramesUnknown, PixelData
from workers.stages.transcode import pixel_data_of
from workers.stages.validate import Examination, validate

Write = Callable[[bytes | memoryview], object]


class CannotDecompress(Exception):  # noqa: N818 - named for the fact
    """There is no native form that is proved to be the same."""


async def decompress(examination: Examination, codec: Codec, write: Write) -> None:
    """Write the data set, piece by piece, as Explicit VR Little Endian.

    Raises:
        CannotDecompress: lossy, without a decoder, or too long for a native value.
    """
    pixels = pixel_data_of(examination)
    encapsulated = pixels is not None and pixels.description.encapsulated
    if examination.encoding is Encoding.EXPLICIT_LITTLE and not encapsulated:
        await asyncio.to_thread(_copy, examination.data_set, write)
        return
    changes = _changes(examination) if encapsulated else {}
    try:
        before, behind = explicit_vr(
            examination.data_set, examination.encoding, examination.elements, changes
        )
    except (CannotReencode, Rejected) as error:
        raise CannotDecompress(str(error)) from None
    await asyncio.to_thread(_copy, before, write)
    if pixels is not None and encapsulated:
        await _frames(pixels, codec, write)
    elif (element := examination.element(PIXEL_DATA)) is not None:
        # PS3.5 A.1: in implicit VR, Pixel Data is OW.
        vr = element.vr or b"OW"
        write(explicit_header(PIXEL_DATA, vr.decode("ascii"), element.length))
        value: Payload = SlicePayload(examination.data_set, element.value, element.length)
        await asyncio.to_thread(_copy, LittleEndianPayload(value, vr) if element.big else value, write)
    await asyncio.to_thread(_copy, behind, write)


async def prove(result: Payload, original: Examination, codec: Codec, scratch: Path) -> None:
    """Show that a decompressed data set has the elements and pixels of the original.

    Raises:
        CannotDecompress: it has not.
    """
    identity = original.identity
    instance = Instance(
        identity.sop_class_uid,
        identity.sop_instance_uid,
        EXPLICIT_VR_LITTLE_ENDIAN,
        result.size,
        b"",
        "",
        "",
        "",
        0,
    )
    try:
        examination = await asyncio.to_thread(validate, result, instance, scratch)
        pixels, source = pixel_data_of(examination), pixel_data_of(original)
        same = examination.identity == identity and examination.digests == original.digests
        if source is not None and same:
            digests = [await pixel_digest(one, codec, settle=False) for one in (pixels, source) if one]
            same = len(digests) == 2 and digests[0] == digests[1]  # noqa: PLR2004 - both have pixels
    except (Rejected, CodecFailed) as error:
        raise CannotDecompress(f"the result cannot be proved: {error}") from None
    if not same:
        raise CannotDecompress("the result is not the same as the original")


def _changes(examination: Examination) -> dict[int, bytes | None]:
    """What follows from the transfer syntax (PS3.5 8.2.4, PS3.3 C.7.6.3.1.3)."""
    changes: dict[int, bytes | None] = dict.fromkeys(OF_ENCAPSULATION)
    pixels = examination.pixels
    assert pixels is not None
    is_rgb = pixels.photometric_interpretation == "YBR_RCT" and is_jpeg_2000(examination.transfer_syntax_uid)
    if is_rgb:
        changes[PHOTOMETRIC_INTERPRETATION] = explicit_element(PHOTOMETRIC_INTERPRETATION, "CS", b"RGB")
    if pixels.planar_configuration:
        changes[PLANAR_CONFIGURATION] = explicit_element(PLANAR_CONFIGURATION, "US", b"\0\0")
    return changes


async def _frames(pixels: PixelData, codec: Codec, write: Write) -> None:
    """Pixel Data with all frames decoded, one at a time."""
    description = pixels.description
    coding = coding_of(pixels.transfer_syntax_uid, marked_lossy=pixels.marked_lossy)
    length = description.native_length
    if coding is None or not pixels.whole_samples or description.bits_allocated == 1:
        raise CannotDecompress("its pixels are lossy, or have no decoder here")
    if length + length % 2 > LONGEST_DEFINED:
        raise CannotDecompress("its native pixels are longer than a value may be")
    wide = description.bits_allocated > 8  # noqa: PLR2004 - PS3.5 8.1.2: then OW
    write(explicit_header(PIXEL_DATA, "OW" if wide else "OB", length + length % 2))
    try:
        frames = DecodedFrames(pixels, coding, codec)
        for index in range(description.number_of_frames):
            await asyncio.to_thread(write, await frames.frame(index))
    except (FramesUnknown, CodecFailed) as error:
        raise CannotDecompress(f"a frame cannot be decoded: {error}") from None
    write(bytes(length % 2))


def _copy(payload: Payload, write: Write) -> None:
    for offset in range(0, payload.size, BLOCK):
        write(payload.read(offset, min(BLOCK, payload.size - offset)))
