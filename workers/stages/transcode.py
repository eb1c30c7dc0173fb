"""Transcode: pixel data to JPEG 2000 Lossless (1.2.840.10008.1.2.4.90), proved by decoding it, or not at all.

What may not, cannot or need not be encoded keeps the bytes it was received in, with the reason. All other
elements are carried over; two follow from the transfer syntax (PS3.5 8.2.4): RGB whose component transform
is applied is labelled YBR_RCT, and Planar Configuration, which has no meaning within a codestream, is 0.
"""

import asyncio
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ingest.contract.settings import Settings
from workers.dataset.digest import content_digests
from workers.dataset.explicit_vr import CannotReencode, explicit_element, explicit_vr
from workers.dataset.payload import FilePayload, JoinedPayload, MemoryPayload, Payload
from workers.dataset.pixel_data import (
    EXTENDED_OFFSET_TABLE,
    EXTENDED_OFFSET_TABLE_LENGTHS,
    LOSSY_IMAGE_COMPRESSION,
    OF_ENCAPSULATION,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
)
from workers.dataset.transfer_syntax import Encoding
from workers.pixels.codec import Codec
from workers.pixels.decoding import LOSSLESS, DecodedFrames
from workers.pixels.digest import PixelDigest, encoded_digest, pixel_digest
from workers.pixels.encapsulation import SEQUENCE_DELIMITATION, Encapsulation
from workers.pixels.form import CodecFailed
from workers.pixels.frames import FramesUnknown, PixelData, native_frame
from workers.stages.passage import Passage, passage
from workers.stages.validate import Examination
from workers.threads import for_payload

JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"

# The component transform needs a bit more than the samples have, and OpenJPEG cannot bear that at 24.
_MOST_BITS_TRANSFORMED = 16


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A data set in JPEG 2000 Lossless, proved; its payload keeps the source's payload in use."""

    payload: Payload
    pixels: PixelDigest
    transfer_syntax_uid: str = JPEG_2000_LOSSLESS


@dataclass(frozen=True, slots=True)
class PassedThrough:
    """The received bytes are to be stored."""

    reason: Passage
    pixels: PixelDigest | None  # None where there are none
    again: bool = False  # another try may end otherwise: the codec crashed or met a limit


def pixel_data_of(examination: Examination) -> PixelData | None:
    """The pixel data of an instance; ``None`` where it has none."""
    if examination.pixels is None:
        return None
    element = examination.element(LOSSY_IMAGE_COMPRESSION)
    marked = False
    if element is not None and 0 < element.length <= 16:  # noqa: PLR2004 - bytes of a CS
        marked = bytes(examination.data_set.read(element.value, element.length)).strip(b" \0") == b"01"
    return PixelData(
        examination.data_set,
        examination.transfer_syntax_uid,
        examination.pixels,
        marked_lossy=marked,
        extended_offsets=examination.element(EXTENDED_OFFSET_TABLE),
        extended_lengths=examination.element(EXTENDED_OFFSET_TABLE_LENGTHS),
    )


async def transcode(
    examination: Examination, codec: Codec, settings: Settings, scratch: Path
) -> Transcoded | PassedThrough:
    """Encode an instance as JPEG 2000 Lossless with proof, or say why it keeps the bytes it came in.

    ``scratch``: folder for the pixel data of a large instance, in a file without a name that goes with the
    payload. Frames are handled one at a time, so memory does not grow with their number.

    Raises:
        OSError: the scratch folder's file system.
        Unavailable: no codec process can be started.
    """
    pixels = pixel_data_of(examination)
    reason = passage(examination, settings)
    again = False
    if reason is None and pixels is not None:
        try:
            return await _encode(examination, pixels, codec, settings, scratch)
        except CodecFailed as failure:
            reason, again = Passage(failure.reason), failure.again
        except FramesUnknown:
            reason = Passage.FRAMES
        except _NotCarried:
            reason = Passage.ELEMENTS
    assert reason is not None
    if pixels is None:
        return PassedThrough(reason, None)
    try:
        return PassedThrough(reason, await pixel_digest(pixels, codec, settle=False), again)
    except CodecFailed:
        # Another try may find out what the pixels are; until then they are what they are encoded as.
        return PassedThrough(reason, await encoded_digest(pixels), again=True)


class _NotCarried(Exception):  # noqa: N818 - says what happened
    """The other elements cannot be carried over, or not with proof."""


async def _encode(
    examination: Examination, pixels: PixelData, codec: Codec, settings: Settings, scratch: Path
) -> Transcoded:
    form, description = pixels.form, pixels.description
    transform = (
        description.photometric_interpretation == "RGB" and description.bits_stored <= _MOST_BITS_TRANSFORMED
    )
    if description.encapsulated:
        # Items are counted: there may be two million.
        source = await asyncio.to_thread(_Frames, pixels, codec)
    else:
        source = _Frames(pixels, codec)
    fragments = _FragmentFile(
        scratch, large=form.size * description.number_of_frames > settings.worker.memory_limit
    )
    digest = hashlib.sha256()
    try:
        for index in range(description.number_of_frames):
            frame = await source.frame(index)
            digest.update(frame)
            await fragments.add(await codec.encode_proved(frame, form, transform=transform))
        # In implicit VR each of a million elements is written anew, and walked again.
        payload = await for_payload(
            examination.data_set, _around, examination, fragments, transform=transform
        )
    except BaseException:
        fragments.discard()
        raise
    return Transcoded(payload, PixelDigest("native", digest.hexdigest()))


class _Frames:
    """Native frames, decoded where the source is compressed."""

    def __init__(self, pixels: PixelData, codec: Codec) -> None:
        self._pixels = pixels
        self._decoded: DecodedFrames | None = None
        if pixels.description.encapsulated:
            self._decoded = DecodedFrames(pixels, LOSSLESS[pixels.transfer_syntax_uid], codec)

    async def frame(self, index: int) -> bytes | memoryview:
        if self._decoded is None:
            return native_frame(self._pixels, index)
        return await self._decoded.frame(index)


class _FragmentFile:
    """The new items, in memory or in a file without a name."""

    def __init__(self, folder: Path, *, large: bool) -> None:
        self.encapsulation = Encapsulation()
        self._buffers: list[bytes] = []
        self._file: IO[bytes] | None = tempfile.TemporaryFile(dir=folder, buffering=0) if large else None  # noqa: SIM115 - the payload closes it

    async def add(self, codestream: bytes) -> None:
        """The next frame."""
        pieces = self.encapsulation.item(codestream)
        if self._file is None:
            self._buffers += pieces
        else:
            await asyncio.to_thread(_write_all, self._file, b"".join(pieces))

    def payload(self) -> Payload:
        """All items; the file now belongs to the payload."""
        if self._file is None:
            return MemoryPayload([*self._buffers])
        payload = FilePayload(os.dup(self._file.fileno()))
        self._file.close()
        return payload

    def discard(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _around(examination: Examination, fragments: _FragmentFile, *, transform: bool) -> Payload:
    """The data set: elements before, new Pixel Data, elements behind.

    Raises:
        _NotCarried: elements could not be written, or are not those of the source.
    """
    pixels = examination.pixels
    assert pixels is not None
    changes: dict[int, bytes | None] = dict.fromkeys(OF_ENCAPSULATION)
    if transform:
        changes[PHOTOMETRIC_INTERPRETATION] = explicit_element(PHOTOMETRIC_INTERPRETATION, "CS", b"YBR_RCT")
    if pixels.planar_configuration:
        changes[PLANAR_CONFIGURATION] = explicit_element(PLANAR_CONFIGURATION, "US", b"\0\0")
    try:
        before, behind = explicit_vr(
            examination.data_set, examination.encoding, examination.elements, changes
        )
    except CannotReencode as error:
        raise _NotCarried from error
    head, end = fragments.encapsulation.head(), SEQUENCE_DELIMITATION
    result = JoinedPayload([before, MemoryPayload([head]), fragments.payload(), MemoryPayload([end]), behind])
    # What is spliced is the source's own bytes; what was written anew is walked again and compared.
    if examination.encoding is not Encoding.EXPLICIT_LITTLE and (
        content_digests(result, Encoding.EXPLICIT_LITTLE) != examination.digests
    ):
        raise _NotCarried
    # Odd lengths that evened each other out in the source: fragments are even (PS3.8 9.3.5.1), so nobody could send it.
    if result.size % 2:
        raise _NotCarried
    return result
