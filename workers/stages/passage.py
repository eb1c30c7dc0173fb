"""Passage: which instances keep the bytes they were received in, and why.

PS3.5 Table 8.2.4-1 says what JPEG 2000 Lossless may hold. What is compressed already stays so, unless the
configuration names it; what the codec cannot do or the proof cannot cover is told here before any frame is
touched.
"""

import enum
from collections.abc import Callable

from ingest.contract.settings import Settings
from workers.dataset.dictionary import public_vr
from workers.dataset.elements import LONGEST_SHORT, PIXEL_DATA, SHORT_VRS, UNDEFINED, Element
from workers.dataset.findings import Finding
from workers.dataset.pixel_data import PixelDescription
from workers.dataset.transfer_syntax import LOSSY, NATIVE, VIDEO
from workers.stages.validate import Examination

SMALLEST_SIDE = 32  # pixels: pylibjpeg-openjpeg always asks for six resolutions, which OpenJPEG refuses below
MOST_BITS_STORED = 24  # pylibjpeg-openjpeg refuses more, and OpenJPEG has 32-bit signed samples
LARGEST_FRAME = 128 * 1024 * 1024  # bytes; encoding takes about ten times that in the codec process

_OVERLAY_DATA, _OVERLAY_BIT_POSITION = 0x6000_3000, 0x6000_0102
_SIGNATURES = (0x4FFE_0001, 0xFFFA_FFFA)  # MAC Parameters Sequence, Digital Signatures Sequence (PS3.15 C)
_STANDARD_CLASSES = "1.2.840.10008."
_GRAY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_BITS_ALLOCATED = frozenset({8, 16, 32})
_COLOUR = frozenset({"RGB", "YBR_FULL"})


class Passage(enum.StrEnum):
    """Why an instance keeps the bytes it was received in: the closed list that manifest and metrics use."""

    DISABLED = "disabled"  # by configuration
    NO_PIXELS = "no-pixels"
    FLOAT = "float"  # Float or Double Float Pixel Data
    LOSSY = "lossy"  # encoding it anew would cost space and gain nothing
    ALREADY_JPEG_2000 = "already-jpeg2000"
    HTJ2K = "htj2k"
    JPEG_LS = "jpeg-ls"
    JPEG_LOSSLESS = "jpeg-lossless"  # unless configured
    RLE = "rle"  # unless configured
    VIDEO = "video"
    OTHER_SYNTAX = "other-syntax"
    BIG_ENDIAN = "big-endian"  # retired
    PRIVATE_CLASS = "private-class"  # its pixel data may mean anything
    SIGNATURE = "signature"  # a digital signature may cover what would change
    DESCRIPTION = "description"  # attributes missing, invalid or contradictory
    TAG_ORDER = "tag-order"  # elements that cannot be compared by c1
    LENGTH = "length"  # pixel data not of the computed length
    FRAMES = "frames"  # fragments cannot be told to frames
    PHOTOMETRIC = "photometric"  # none of those that PS3.5 Table 8.2.4-1 has
    YBR_422 = "ybr-422"  # chroma would have to be interpolated
    ONE_BIT = "one-bit"
    BITS = "bits"  # Bits Allocated other than 8, 16, 32 or more than 24 stored
    HIGH_BIT = "high-bit"  # not Bits Stored - 1: the encoder would take the wrong bits
    OVERLAY = "overlay"  # an overlay in the unused bits
    SMALL = "small"  # a side under 32 pixels
    LARGE = "large"  # a frame above what one codec process may hold
    ELEMENTS = "elements"  # the other elements could not be carried over with proof
    # what the codec said
    CRASHED = "crashed"
    TIMED_OUT = "timed-out"
    MEMORY = "memory"
    REFUSED = "refused"
    UNPROVED = "unproved"
    UNUSED_BITS = "unused-bits"
    DISAGREES = "disagrees"
    DAMAGED = "damaged"


_COMPRESSED = {
    "1.2.840.10008.1.2.4.57": Passage.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70": Passage.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.80": Passage.JPEG_LS,
    "1.2.840.10008.1.2.4.81": Passage.JPEG_LS,
    "1.2.840.10008.1.2.4.90": Passage.ALREADY_JPEG_2000,
    "1.2.840.10008.1.2.4.91": Passage.ALREADY_JPEG_2000,
    "1.2.840.10008.1.2.4.92": Passage.ALREADY_JPEG_2000,
    "1.2.840.10008.1.2.4.93": Passage.ALREADY_JPEG_2000,
    "1.2.840.10008.1.2.4.201": Passage.HTJ2K,
    "1.2.840.10008.1.2.4.202": Passage.HTJ2K,
    "1.2.840.10008.1.2.4.203": Passage.HTJ2K,
    "1.2.840.10008.1.2.5": Passage.RLE,
}


def passage(examination: Examination, settings: Settings) -> Passage | None:
    """Why the instance passes through, as far as its elements tell; ``None``: it is to be encoded."""
    pixels = examination.pixels
    if not settings.transcode.enabled:
        return Passage.DISABLED
    if pixels is None:
        return Passage.NO_PIXELS
    if pixels.tag != PIXEL_DATA:
        return Passage.FLOAT
    return (
        _by_syntax(examination.transfer_syntax_uid, settings)
        or _by_elements(examination)
        or next((reason for reason, holds in _OBJECTIONS if holds(pixels)), None)
    )


def _by_elements(examination: Examination) -> Passage | None:
    if not examination.identity.sop_class_uid.startswith(_STANDARD_CLASSES):
        return Passage.PRIVATE_CLASS
    if any(examination.element(tag) is not None for tag in _SIGNATURES):
        return Passage.SIGNATURE
    if _has_embedded_overlay(examination):
        return Passage.OVERLAY
    if any(_would_become_unknown(element) for element in examination.elements):
        return Passage.ELEMENTS
    return Passage.TAG_ORDER if examination.digests is None else None


def _would_become_unknown(element: Element) -> bool:
    """Whether implicit VR holds more than its VR can elsewhere: as UN (PS3.5 6.2.2) pydicom gives bytes for a text or numbers."""
    too_long = not element.vr and LONGEST_SHORT < element.length != UNDEFINED
    return too_long and public_vr(element.tag).encode("ascii") in SHORT_VRS


def _by_syntax(syntax: str, settings: Settings) -> Passage | None:
    if syntax in LOSSY - _COMPRESSED.keys():
        return Passage.LOSSY
    if syntax in NATIVE:
        return None
    if syntax.startswith(VIDEO):
        return Passage.VIDEO
    reason = _COMPRESSED.get(syntax, Passage.OTHER_SYNTAX)
    return None if reason in settings.transcode.decode_lossless else reason


def _is_gray(pixels: PixelDescription) -> bool:
    return pixels.photometric_interpretation in _GRAY and pixels.samples_per_pixel == 1


def _is_photometric(pixels: PixelDescription) -> bool:
    """Whether PS3.5 Table 8.2.4-1 has this Photometric Interpretation in this form."""
    photometric, samples = pixels.photometric_interpretation, pixels.samples_per_pixel
    palette = photometric == "PALETTE COLOR" and samples == 1 and pixels.bits_allocated <= 16  # noqa: PLR2004 - bits
    return _is_gray(pixels) or palette or (photometric in _COLOUR and samples == 3)  # noqa: PLR2004 - samples


_LENGTHS = frozenset({Finding.PIXEL_DATA_SHORT, Finding.PIXEL_DATA_LONG})
_FRAGMENTS = frozenset({Finding.FRAGMENTS_FEW, Finding.FRAGMENTS_MANY})
# In this order: the first that holds is the reason.
_OBJECTIONS: tuple[tuple[Passage, Callable[[PixelDescription], bool]], ...] = (
    (Passage.BIG_ENDIAN, lambda pixels: pixels.big_endian),
    (Passage.ONE_BIT, lambda pixels: pixels.bits_allocated == 1),
    (Passage.YBR_422, lambda pixels: "_42" in pixels.photometric_interpretation),
    (Passage.FRAMES, lambda pixels: not _FRAGMENTS.isdisjoint(pixels.problems)),
    (Passage.DESCRIPTION, lambda pixels: not _LENGTHS.issuperset(pixels.problems)),
    (Passage.LENGTH, lambda pixels: bool(pixels.problems)),
    (Passage.PHOTOMETRIC, lambda pixels: not _is_photometric(pixels)),
    (Passage.DESCRIPTION, lambda pixels: bool(pixels.pixel_representation) and not _is_gray(pixels)),
    (Passage.BITS, lambda pixels: pixels.bits_allocated not in _BITS_ALLOCATED),
    (Passage.BITS, lambda pixels: pixels.bits_stored > MOST_BITS_STORED),
    (Passage.HIGH_BIT, lambda pixels: pixels.high_bit != pixels.bits_stored - 1),
    (Passage.SMALL, lambda pixels: min(pixels.rows, pixels.columns) < SMALLEST_SIDE),
    (Passage.LARGE, lambda pixels: pixels.frame_bits // 8 > LARGEST_FRAME),
)


def _has_embedded_overlay(examination: Examination) -> bool:
    """PS3.5 8.1.2 as it was before 2004: an overlay plane in the pixels' unused bits, and no Overlay Data."""
    elements = {element.tag: element for element in examination.elements}
    for group in range(0, 0x20_0000, 0x2_0000):  # 6000 to 601E
        element = elements.get(_OVERLAY_BIT_POSITION + group)
        if element is None or _OVERLAY_DATA + group in elements or not 0 < element.length <= 2:  # noqa: PLR2004 - an US
            continue
        if any(examination.data_set.read(element.value, element.length)):
            return True
    return False
