"""The pixel part of content digest c1: the same for an object sent native and in any lossless syntax.

``native``   SHA-256 over all frames in order, little endian, samples of a pixel together, each in its Bits
             Allocated with the sign carried up (`frames.py`); for float and other samples the value's bytes
``encoded``  SHA-256 over the bytes of all fragments in order: for what is lossy, or video, or what no
             decoder here can read. It never equals a native one

Planar Configuration, which the rest of c1 leaves out, counts where samples are digested in the order that it tells.

A codestream that could be either (JPEG 2000 in .91 or .203) is native if its wavelet is reversible and the
instance does not say that it has been lossily compressed.
"""

import asyncio
import hashlib
from typing import Literal, NamedTuple

from workers.pixels.codec import Codec
from workers.pixels.decoding import DecodedFrames, coding_of
from workers.pixels.form import CodecFailed, Coding
from workers.pixels.frames import EncapsulatedFrames, FramesUnknown, PixelData, native_blocks

# Encapsulated Uncompressed and Deflated Image Frame Compression (PS3.5 A.4.11, A.4.13): native frames, as they are or deflated.
_OF_NATIVE_FRAMES = frozenset({"1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"})


class PixelDigest(NamedTuple):
    """A digest of pixels; those of different kind never match, whatever their digits."""

    kind: Literal["native", "encoded"]
    hex: str  # SHA-256, 64 digits


async def pixel_digest(pixels: PixelData, codec: Codec, *, settle: bool = True) -> PixelDigest:
    """Digest pixel data by c1. ``settle``: take a codec that keeps failing as a fact, and digest the fragments.

    Raises:
        CodecFailed: with ``again`` set and not ``settle``: the codec crashed or met a limit, so nothing is known.
    """
    if not pixels.description.encapsulated:
        return PixelDigest("native", await _native(pixels))
    coding = coding_of(pixels.transfer_syntax_uid, marked_lossy=pixels.marked_lossy)
    if coding is not None and pixels.whole_samples:
        try:
            return PixelDigest("native", await _decoded(pixels, coding, codec))
        except FramesUnknown:
            pass
        except CodecFailed as failure:
            if failure.again and not settle:
                raise
    return await encoded_digest(pixels)


async def encoded_digest(pixels: PixelData) -> PixelDigest:
    """The digest of encapsulated pixel data that is not decoded."""
    return PixelDigest("encoded", await asyncio.to_thread(_encoded, pixels))


async def matches(pixels: PixelData, expected: PixelDigest, codec: Codec) -> bool:
    """Decode every frame of a stored object and compare with its manifest.

    Raises:
        CodecFailed: the codec crashed or met a limit, so that nothing is known about the object.
    """
    if expected.kind == "encoded":
        return pixels.description.encapsulated and await encoded_digest(pixels) == expected
    return await pixel_digest(pixels, codec, settle=False) == expected


def _order(pixels: PixelData) -> bytes:
    """Tells samples that are a plane after the other from the same bytes that are a pixel after the other."""
    return b"planar" if pixels.is_planar else b""


async def _native(pixels: PixelData) -> str:
    digest = hashlib.sha256(b"" if pixels.fits else _order(pixels))
    for block in native_blocks(pixels):
        digest.update(block)
        await asyncio.sleep(0)
    return digest.hexdigest()


def _encoded(pixels: PixelData) -> str:
    digest = hashlib.sha256(_order(pixels) if pixels.transfer_syntax_uid in _OF_NATIVE_FRAMES else b"")
    for block in EncapsulatedFrames(pixels).blocks():
        digest.update(block)
    return digest.hexdigest()


async def _decoded(pixels: PixelData, coding: Coding, codec: Codec) -> str:
    digest = hashlib.sha256()
    frames = await asyncio.to_thread(DecodedFrames, pixels, coding, codec)
    for index in range(pixels.description.number_of_frames):
        digest.update(await frames.frame(index))
    return digest.hexdigest()
