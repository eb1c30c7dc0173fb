"""Headers of codestreams, read before anything is decoded: what would come out, and whether it is exact.

JPEG 2000: ISO/IEC 15444-1 Annex A. JPEG: ISO/IEC 10918-1 Annex B. JPEG-LS: ISO/IEC 14495-1 Annex C.
A decoder allocates what the header declares, so a header that disagrees with the data set's description
is never given to one.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from workers.pixels.form import CodecFailed, Coding, Failure, FrameForm

JPEG_2000_START = b"\xff\x4f\xff\x51"  # SOC, SIZ: a codestream without the boxes of a JP2 file (PS3.5 A.4.4)
JPEG_START = b"\xff\xd8"  # SOI
_JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"  # the first box of a JP2 file
# How a frame may begin.
STARTS = {
    Coding.JPEG_2000: (JPEG_2000_START, _JP2_START),
    Coding.JPEG_LS: (JPEG_START,),
    Coding.JPEG_LOSSLESS: (JPEG_START,),
}

_SIZ, _COD, _COC, _SOT = 0xFF51, 0xFF52, 0xFF53, 0xFF90
_SOF0, _SOF3, _SOF15, _SOF55, _DHT, _JPG, _DAC = 0xFFC0, 0xFFC3, 0xFFCF, 0xFFF7, 0xFFC4, 0xFFC8, 0xFFCC
_SOS, _EOI = 0xFFDA, 0xFFD9
_BOXES = 64
_SEGMENTS = 4096  # marker segments before the data: comments and tables may be many, but not endless
_SIZ_FIXED = 36  # bytes before the components, without the length
_MAXIMUM_TILES = 65_535  # ISO/IEC 15444-1 A.4.2: Isot has 16 bits
_PLAIN = frozenset({0xFF01, *range(0xFFD0, 0xFFD9)})  # markers without a segment


@dataclass(frozen=True, slots=True)
class Header:
    """What a codestream declares."""

    rows: int
    columns: int
    components: int
    precision: int  # bits of every component
    signed: bool  # JPEG and JPEG-LS have no signed samples
    lossless: bool
    transform: bool = False  # JPEG 2000: a component transform is applied


def _damaged(detail: str) -> CodecFailed:
    return CodecFailed(Failure.DAMAGED, detail)


def _segments(data: memoryview, position: int) -> Iterator[tuple[int, memoryview]]:
    """Marker segments from ``position``: marker and content, until the caller stops.

    Raises:
        CodecFailed: the data ends, or holds something else than a marker.
    """
    for _ in range(_SEGMENTS):
        while position + 2 <= len(data) and data[position] == 0xFF and data[position + 1] == 0xFF:  # noqa: PLR2004 - fill byte
            position += 1
        if position + 4 > len(data):
            break
        marker, length = struct.unpack_from(">HH", data, position)
        if marker in _PLAIN:
            position += 2
            continue
        if marker <= 0xFF00 or length < 2 or position + 2 + length > len(data):  # noqa: PLR2004 - the length counts itself
            break
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
    raise _damaged("the header of the codestream ends too early or holds no markers")


def read_jpeg_2000(data: memoryview) -> Header:
    """The main header of a JPEG 2000 codestream, Part 1 or Part 15.

    Raises:
        CodecFailed: DAMAGED, or DISAGREES where no frame of DICOM looks like this.
    """
    if data[:4] != JPEG_2000_START:
        raise _damaged("not a JPEG 2000 codestream")
    size: _Size | None = None
    transform = False
    reversible: list[bool] = []  # of the default and of each component that has a style of its own
    for marker, segment in _segments(data, 2):
        if marker == _SOT:
            break
        if marker == _SIZ:
            if size is not None:
                raise _damaged("a second SIZ marker segment")
            size = _read_size(segment)
        elif marker == _COD:
            transform = bool(_byte(segment, 4))
            reversible.append(_byte(segment, 9) == 1)
        elif marker == _COC:
            wide = 2 if size is not None and size.components > 256 else 1  # noqa: PLR2004 - Table A.22
            reversible.append(_byte(segment, 5 + wide) == 1)
    if size is None or not reversible:
        raise _damaged("no SIZ or COD marker segment")
    return Header(*size, lossless=all(reversible), transform=transform)


def _byte(segment: memoryview, index: int) -> int:
    if index >= len(segment):
        raise _damaged("a marker segment is too short")
    return segment[index]


class _Size(NamedTuple):
    """What the SIZ marker segment says."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool


def _read_size(segment: memoryview) -> _Size:
    """The SIZ marker segment (15444-1 A.5.1): one precision, one sign and no subsampling for all components."""
    if len(segment) < _SIZ_FIXED:
        raise _damaged("a damaged SIZ marker segment")
    sizes = struct.unpack_from(">8I", segment, 2)
    (components,) = struct.unpack_from(">H", segment, 34)
    if not components or len(segment) != _SIZ_FIXED + 3 * components:
        raise _damaged("a damaged SIZ marker segment")
    entries = {bytes(segment[at : at + 3]) for at in range(_SIZ_FIXED, len(segment), 3)}
    if len(entries) != 1:
        raise CodecFailed(Failure.DISAGREES, "components of different precision or size")
    precision, horizontal, vertical = entries.pop()
    if (horizontal, vertical) != (1, 1):
        raise CodecFailed(Failure.DISAGREES, "subsampled components")
    _check_tiles(sizes)
    return _Size(
        sizes[1] - sizes[3], sizes[0] - sizes[2], components, (precision & 0x7F) + 1, bool(precision & 0x80)
    )


def _check_tiles(size: tuple[int, ...]) -> None:
    """Tiles lie as 15444-1 B.3 says, and are not more than can be numbered."""
    right, bottom, left, top, width, height, tile_left, tile_top = size
    if not (width and height) or tile_left > left or tile_top > top or right <= left or bottom <= top:
        raise _damaged("tiles that do not cover the image")
    if -(-(right - tile_left) // width) * -(-(bottom - tile_top) // height) > _MAXIMUM_TILES:
        raise _damaged("more tiles than can be numbered")


def read_jpeg(data: memoryview) -> Header:
    """The frame header of a JPEG or JPEG-LS codestream.

    Raises:
        CodecFailed: DAMAGED, or DISAGREES where no frame of DICOM looks like this.
    """
    if data[:2] != JPEG_START:
        raise _damaged("not a JPEG codestream")
    for marker, segment in _segments(data, 2):
        if marker in (_SOS, _EOI):
            break
        if marker != _SOF55 and (not _SOF0 <= marker <= _SOF15 or marker in (_DHT, _JPG, _DAC)):
            continue
        if len(segment) < 6:  # noqa: PLR2004 - B.2.2
            break
        precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
        if len(segment) != 6 + 3 * components:
            break
        if any(segment[7 + 3 * index] != 0x11 for index in range(components)):  # noqa: PLR2004 - factors 1, 1
            raise CodecFailed(Failure.DISAGREES, "subsampled components")
        lossless = marker == _SOF3 or (marker == _SOF55 and not _near(data))
        return Header(rows, columns, components, precision, signed=False, lossless=lossless)
    raise _damaged("no frame header")


def check_end(data: memoryview) -> None:
    """Make sure that a JPEG codestream is not cut: EOI comes behind the last scan (10918-1 B.1.1.3; in a scan neither occurs).

    Raises:
        CodecFailed: DAMAGED.
    """
    whole = bytes(data)
    if whole.rfind(b"\xff\xd9") < whole.rfind(b"\xff\xda"):
        raise _damaged("the codestream is cut")


def _near(data: memoryview) -> int:
    """The largest NEAR of all scans (14495-1 C.2.3); FFDA cannot occur within JPEG-LS data (A.1)."""
    whole = bytes(data)
    near = 0
    position = whole.find(b"\xff\xda")
    while 0 <= position < len(whole) - 4:
        components = whole[position + 4]
        at = position + 5 + 2 * components
        near = max(near, whole[at]) if at < len(whole) else near
        position = whole.find(b"\xff\xda", position + 2)
    return near


def unboxed(data: memoryview) -> memoryview:
    """The codestream within a JP2 file (15444-1 Annex I), which some encoders send against PS3.5 A.4.4.

    Its other boxes could rename or map channels; DICOM gives them no say over samples. Data that has no
    boxes comes back as it is.

    Raises:
        CodecFailed: DAMAGED, boxes without a codestream.
    """
    if data[:12] != _JP2_START:
        return data
    position = 0
    for _ in range(_BOXES):
        if position + 16 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            header = 16
        end = position + length if length else len(data)
        if (length and length < header) or end > len(data):
            break
        if kind == b"jp2c":
            return data[position + header : end]
        position = end
    raise _damaged("a JP2 file without a codestream")


def check(data: memoryview, coding: Coding, form: FrameForm) -> Header | None:
    """Read the header and compare it with the description; ``None`` for codings without a header.

    A sign that disagrees is borne: the bits are the same, and real encoders forget it.

    Raises:
        CodecFailed: DAMAGED, LOSSY, or DISAGREES.
    """
    if coding not in STARTS:
        return None
    header = read_jpeg_2000(data) if coding is Coding.JPEG_2000 else read_jpeg(data)
    if (header.rows, header.columns) != (form.rows, form.columns):
        raise CodecFailed(Failure.DISAGREES, "rows and columns are not the data set's")
    if header.components != form.samples_per_pixel:
        raise CodecFailed(Failure.DISAGREES, "components are not the data set's samples per pixel")
    if header.precision > form.bits_allocated:
        raise CodecFailed(Failure.DISAGREES, "a precision above Bits Allocated")
    if not header.lossless:
        raise CodecFailed(Failure.LOSSY, "the codestream is not reversible")
    return header
