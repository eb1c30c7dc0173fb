"""Native frames out of lossless codestreams, one at a time; the codec decodes them (PS3.5 section 8.2 and A.4).

A decoder reads one codestream and passes over whatever is behind it. So where there are more codestreams than frames, as in
a multi-frame object whose Number of Frames is missing, none is decoded rather than some passed over.
"""

import struct
from typing import Final

from workers.pixels.codec import Codec
from workers.pixels.codestream import STARTS
from workers.pixels.form import Coding, FrameForm
from workers.pixels.frames import EncapsulatedFrames, PixelData, samples_together

# Reversible or not, as the codestream says and the instance does not deny.
_EITHER: Final = {
    "1.2.840.10008.1.2.4.91": Coding.JPEG_2000,
    "1.2.840.10008.1.2.4.203": Coding.JPEG_2000,
}
LOSSLESS: Final = {
    "1.2.840.10008.1.2.1.98": Coding.UNCOMPRESSED,
    "1.2.840.10008.1.2.4.57": Coding.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70": Coding.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.80": Coding.JPEG_LS,
    "1.2.840.10008.1.2.4.90": Coding.JPEG_2000,
    "1.2.840.10008.1.2.4.201": Coding.JPEG_2000,
    "1.2.840.10008.1.2.4.202": Coding.JPEG_2000,
    "1.2.840.10008.1.2.5": Coding.RLE,
}


def coding_of(transfer_syntax_uid: str, *, marked_lossy: bool) -> Coding | None:
    """How frames decode to exact samples; ``None`` where they do not."""
    coding = LOSSLESS.get(transfer_syntax_uid)
    return _EITHER.get(transfer_syntax_uid) if coding is None and not marked_lossy else coding


def is_jpeg_2000(transfer_syntax_uid: str) -> bool:
    """Whether YBR_RCT is how the frames say RGB: their decoder turns the component transform back (PS3.5 8.2.4)."""
    return coding_of(transfer_syntax_uid, marked_lossy=False) is Coding.JPEG_2000


class DecodedFrames:
    """The frames of encapsulated pixel data as native ones; see `FrameForm`."""

    def __init__(self, pixels: PixelData, coding: Coding, codec: Codec) -> None:
        """``pixels``: of whole samples; blocks while items are counted, of which there may be two million.

        Raises:
            FramesUnknown: the frames cannot be told apart.
        """
        self._pixels = pixels
        self._coding = coding
        self._codec = codec
        self._frames = EncapsulatedFrames(pixels)
        self._frames.refuse_uncounted(_starts_of(coding, pixels.form))

    async def frame(self, index: int) -> bytes:
        """One frame of `FrameForm.size` bytes.

        Raises:
            FramesUnknown: it is too long.
            CodecFailed: it cannot be decoded, is lossy, or is not of that form.
            Unavailable: no codec process can be started.
        """
        frame = await self._codec.decode(self._frames.frame(index), self._coding, self._pixels.form)
        # Of the codings this one alone keeps the order of samples that Planar Configuration tells (A.4.11).
        if self._coding is Coding.UNCOMPRESSED and self._pixels.is_planar:
            return samples_together(frame, self._pixels.form)
        return frame


def _starts_of(coding: Coding, form: FrameForm) -> tuple[bytes, ...]:
    """How a codestream may begin; empty where nothing tells."""
    if coding is Coding.RLE:  # G.5: the number of segments, and the first behind the header of 64 bytes
        return (struct.pack("<II", form.samples_per_pixel * max(1, form.bits_allocated // 8), 64),)
    return STARTS.get(coding, ())
