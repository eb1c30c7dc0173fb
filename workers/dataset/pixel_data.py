"""What the pixel data claims to be, and whether its bytes agree (PS3.3 C.7.6.3, PS3.5 section 8 and A.4).

Nothing is decoded here. Geometry is computed in Python's integers, so no product can overflow.
"""

import array
import dataclasses
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from workers.dataset.elements import PIXEL_DATA, UNDEFINED, Element, Token
from workers.dataset.findings import Finding, Findings
from workers.dataset.transfer_syntax import VIDEO, is_encapsulated
from workers.errors import Reason, Rejected

FLOAT_PIXEL_DATA = 0x7FE0_0008
DOUBLE_FLOAT_PIXEL_DATA = 0x7FE0_0009
PIXEL_DATA_TAGS = (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA)
EXTENDED_OFFSET_TABLE = 0x7FE0_0001
EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE0_0002
_TOTAL_LENGTH = 0x7FE0_0003  # Encapsulated Pixel Data Value Total Length
# PS3.3 C.7.6.3.1: elements that tell where fragments lie, true of one encapsulation alone.
OF_ENCAPSULATION = (EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS, _TOTAL_LENGTH)
LONGEST_TABLE = 16 * 1024 * 1024  # bytes of an offset table: two million frames
MOST_FRAGMENTS = LONGEST_TABLE // 8  # their places are kept in memory

SAMPLES_PER_PIXEL = 0x0028_0002
PHOTOMETRIC_INTERPRETATION = 0x0028_0004
PLANAR_CONFIGURATION = 0x0028_0006
NUMBER_OF_FRAMES = 0x0028_0008
ROWS = 0x0028_0010
COLUMNS = 0x0028_0011
BITS_ALLOCATED = 0x0028_0100
BITS_STORED = 0x0028_0101
HIGH_BIT = 0x0028_0102
PIXEL_REPRESENTATION = 0x0028_0103
LOSSY_IMAGE_COMPRESSION = 0x0028_2110
_PALETTE_DESCRIPTORS = (0x0028_1101, 0x0028_1102, 0x0028_1103)
DESCRIBING_TAGS = (
    SAMPLES_PER_PIXEL,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    NUMBER_OF_FRAMES,
    ROWS,
    COLUMNS,
    BITS_ALLOCATED,
    BITS_STORED,
    HIGH_BIT,
    PIXEL_REPRESENTATION,
    *_PALETTE_DESCRIPTORS,
)

_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}\Z")  # PS3.5 6.2, CS
_INTEGER = re.compile(rb" *\+?[0-9]{1,11} *\Z")  # PS3.5 6.2, IS; a negative number counts no frames
_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_PARTIAL_422": 3,
    "YBR_PARTIAL_420": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
    "XYB": 3,
    "HSV": 3,
    "ARGB": 4,
    "CMYK": 4,
}
# Chroma is stored for every second pixel: of three samples a pixel, two remain (PS3.3 C.7.6.3.1.2).
_SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """The Image Pixel module and where the pixel data lies. A number that is absent or unreadable is 0.

    ``problems`` holds what makes the description unfit to decode or encode by; findings tell it with tags.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    planar_configuration: int  # 0 where absent
    number_of_frames: int  # 1 where absent
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    tag: int  # Pixel Data, Float Pixel Data or Double Float Pixel Data
    vr: str  # as on the wire; empty in implicit VR
    encapsulated: bool
    big_endian: bool  # native words are big endian
    offset: int  # of the element's header, in `Examination.data_set`
    value_offset: int  # encapsulated: of the Basic Offset Table's item
    length: int  # of the value; encapsulated: all items, without the sequence delimiter
    end: int  # first byte behind the element
    fragments: int  # without the Basic Offset Table; 0 where native
    problems: tuple[Finding, ...]

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame; frames follow each other without padding (PS3.5 8.1.1)."""
        samples = 2 if self.photometric_interpretation in _SUBSAMPLED else self.samples_per_pixel
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def native_length(self) -> int:
        """Bytes of all native frames, without the pad to even length."""
        return (self.frame_bits * self.number_of_frames + 7) // 8


class Fragments:
    """The items of encapsulated top-level pixel data, gathered in the walk: offsets, lengths, the offset table."""

    def __init__(self) -> None:
        self.table: Token | None = None
        self.start = 0  # of the first item behind the Basic Offset Table: what offsets count from
        self.offsets = array.array("Q")
        self.lengths = array.array("I")

    def add(self, token: Token) -> None:
        """The next item.

        Raises:
            Rejected: LIMIT, too many.
        """
        if len(self.offsets) == MOST_FRAGMENTS:
            raise Rejected(Reason.LIMIT, token.offset, f"more than {MOST_FRAGMENTS} fragments")
        if self.table is None:
            self.table = token
            self.start = token.value + token.length
        else:
            self.offsets.append(token.offset - self.start)
            self.lengths.append(token.length)


class PixelSource(NamedTuple):
    """What the walk has gathered for `describe`."""

    transfer_syntax_uid: str
    values: Mapping[int, tuple[Token, bytes]]  # top level, `DESCRIBING_TAGS`
    elements: Mapping[int, Element]  # top level
    fragments: Fragments
    basic_offsets: memoryview  # the Basic Offset Table's value, little endian
    extended_offsets: memoryview  # (7FE0,0001), as little endian
    extended_lengths: memoryview  # (7FE0,0002), as little endian
    repeated: frozenset[int]  # tags met twice at top level


class _Description:
    """Reads the attributes, noting what is wrong on the way."""

    def __init__(self, source: PixelSource, findings: Findings) -> None:
        self.source = source
        self.findings = findings
        self.problems: dict[Finding, None] = {}

    def problem(self, finding: Finding, tag: int) -> None:
        self.findings.note(finding, tag)
        self.problems[finding] = None

    def number(self, tag: int, lowest: int, default: int | None = None) -> int:
        """An attribute of VR US (CVE-2026-5442: geometry in another VR is not taken)."""
        if tag not in self.source.values:
            if default is None:
                self.problem(Finding.PIXEL_ATTRIBUTE_MISSING, tag)
            return default or 0
        token, value = self.source.values[tag]
        if len(value) != 2 or token.vr not in (b"US", b"", b"UN"):  # noqa: PLR2004 - bytes of an US
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, tag)
            return 0
        big = token.big and token.vr != b"UN"
        number = int.from_bytes(value, "big" if big else "little")
        if number < lowest or tag in self.source.repeated:
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, tag)
        return number

    def photometric(self) -> str:
        tag = PHOTOMETRIC_INTERPRETATION
        if tag not in self.source.values:
            self.problem(Finding.PIXEL_ATTRIBUTE_MISSING, tag)
            return ""
        text = self.source.values[tag][1].strip(b" \0").decode("ascii", "replace")
        if not _CODE_STRING.match(text) or tag in self.source.repeated:
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, tag)
            return ""
        return text

    def frames(self) -> int:
        """(0028,0008), VR IS; 1 where it is absent or empty, as single-frame objects leave it out."""
        if NUMBER_OF_FRAMES not in self.source.values:
            return 1
        value = self.source.values[NUMBER_OF_FRAMES][1].rstrip(b"\0")
        if not value.strip():
            return 1
        if not _INTEGER.match(value) or not int(value) or NUMBER_OF_FRAMES in self.source.repeated:
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, NUMBER_OF_FRAMES)
            return 1
        return int(value)

    def describe(self, element: Element) -> PixelDescription:
        integer = element.tag == PIXEL_DATA
        samples = self.number(SAMPLES_PER_PIXEL, 1, 1)
        encapsulated = element.length == UNDEFINED
        description = PixelDescription(
            rows=self.number(ROWS, 1),
            columns=self.number(COLUMNS, 1),
            samples_per_pixel=samples,
            photometric_interpretation=self.photometric(),
            planar_configuration=self.number(PLANAR_CONFIGURATION, 0, 0),
            number_of_frames=self.frames(),
            bits_allocated=self.number(BITS_ALLOCATED, 1),
            bits_stored=self.number(BITS_STORED, 1) if integer else 0,
            high_bit=self.number(HIGH_BIT, 0) if integer else 0,
            pixel_representation=self.number(PIXEL_REPRESENTATION, 0) if integer else 0,
            tag=element.tag,
            vr=element.vr.decode("ascii", "replace"),
            encapsulated=encapsulated,
            big_endian=element.big,
            offset=element.offset,
            value_offset=element.value,
            length=element.end - 8 - element.value if encapsulated else element.length,
            end=element.end,
            fragments=len(self.source.fragments.offsets) if encapsulated else 0,
            problems=(),
        )
        self.judge(description)
        return description

    def judge(self, pixels: PixelDescription) -> None:
        """Whether the attributes agree with each other and with the bytes."""
        samples = _SAMPLES.get(pixels.photometric_interpretation)
        if samples is not None and samples != pixels.samples_per_pixel:
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, SAMPLES_PER_PIXEL)
        if pixels.samples_per_pixel > 1 and PLANAR_CONFIGURATION not in self.source.values:
            self.findings.note(Finding.PLANAR_MISSING, PLANAR_CONFIGURATION)
        if pixels.planar_configuration > 1:
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, PLANAR_CONFIGURATION)
        self.judge_bits(pixels)
        if PIXEL_DATA in self.source.repeated:
            self.problem(Finding.DUPLICATE_TAG, PIXEL_DATA)
        if pixels.encapsulated != is_encapsulated(self.source.transfer_syntax_uid):
            self.problem(Finding.PIXEL_DATA_FORM, pixels.tag)
        if pixels.photometric_interpretation == "PALETTE COLOR":
            self.judge_palette()
        if pixels.encapsulated:
            self.judge_fragments(pixels)
        else:
            self.judge_native(pixels)

    def judge_bits(self, pixels: PixelDescription) -> None:
        """PS3.5 8.1.1: bits stored within those allocated; PS3.3 C.7.6.24, C.7.6.25: floats of 32 and 64 bits."""
        if pixels.tag != PIXEL_DATA:
            if pixels.bits_allocated != (32 if pixels.tag == FLOAT_PIXEL_DATA else 64):
                self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, BITS_ALLOCATED)
            return
        if pixels.bits_stored > pixels.bits_allocated:
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, BITS_STORED)
        if pixels.high_bit >= max(1, pixels.bits_allocated):
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, HIGH_BIT)
        if pixels.pixel_representation > 1:
            self.problem(Finding.PIXEL_ATTRIBUTE_INVALID, PIXEL_REPRESENTATION)

    def judge_native(self, pixels: PixelDescription) -> None:
        need = pixels.native_length
        if pixels.length < need:
            self.problem(Finding.PIXEL_DATA_SHORT, pixels.tag)
        elif pixels.length > need + need % 2:
            self.problem(Finding.PIXEL_DATA_LONG, pixels.tag)
            if NUMBER_OF_FRAMES not in self.source.values and need and not pixels.length % need:
                self.findings.note(Finding.FRAMES_MISSING, NUMBER_OF_FRAMES)
        # PS3.5 8.1.2, A.2: OW above 8 bits allocated, OB or OW below; floats have VRs of their own.
        wanted: tuple[str, ...] = ("", "OW") if pixels.bits_allocated > 8 else ("", "OB", "OW")  # noqa: PLR2004 - 8 bits
        if pixels.tag == FLOAT_PIXEL_DATA:
            wanted = ("", "OF")
        elif pixels.tag == DOUBLE_FLOAT_PIXEL_DATA:
            wanted = ("", "OD")
        if pixels.vr not in wanted:
            self.findings.note(Finding.PIXEL_DATA_VR, pixels.tag)

    def judge_palette(self) -> None:
        """PS3.3 C.7.6.3.1.5: number of entries (0 is 65536), first value mapped, bits an entry."""
        for tag in _PALETTE_DESCRIPTORS:
            if tag not in self.source.values:
                self.findings.note(Finding.PALETTE, tag)
                continue
            token, value = self.source.values[tag]
            if len(value) != 6:  # noqa: PLR2004 - three words
                self.findings.note(Finding.PALETTE, tag)
                continue
            entries, _, bits = struct.unpack(">HHH" if token.big else "<HHH", value)
            data = self.source.elements.get(tag + 0x100)
            segmented = tag + 0x120 in self.source.elements  # C.7.9.2: no fixed length
            length = (entries or 65536) * (2 if bits == 16 else 1)  # noqa: PLR2004 - bits
            fits = data is not None and data.length in (length, length + length % 2, (entries or 65536) * 2)
            if bits not in (8, 16) or not (fits or segmented):
                self.findings.note(Finding.PALETTE, tag)

    def judge_fragments(self, pixels: PixelDescription) -> None:
        """Fragments against frames and offset tables (PS3.5 A.4, PS3.3 C.7.6.3.1.8), undecoded."""
        source = self.source
        if pixels.vr not in ("OB", ""):
            self.findings.note(Finding.PIXEL_DATA_VR, pixels.tag)
        if any(length % 2 or not length for length in source.fragments.lengths):
            self.findings.note(Finding.FRAGMENT_LENGTH, pixels.tag)
        frames, count = pixels.number_of_frames, pixels.fragments
        video = source.transfer_syntax_uid.startswith(VIDEO)
        tables = bool(source.basic_offsets) or bool(source.extended_offsets)
        if not count or (count < frames and not video):
            self.problem(Finding.FRAGMENTS_FEW, pixels.tag)
        elif count > frames > 1 and not tables and not video:
            self.problem(Finding.FRAGMENTS_MANY, pixels.tag)
        if not self.tables_agree(frames):
            self.findings.note(Finding.OFFSET_TABLE, pixels.tag)

    def tables_agree(self, frames: int) -> bool:
        """Whether both offset tables point, in order, at items, the first at the first."""
        source = self.source
        fragments = source.fragments
        if fragments.table is None:
            return False
        basic, extended = source.basic_offsets, source.extended_offsets
        if len(basic) % 4 or len(extended) % 8 or len(source.extended_lengths) % 8:
            return False
        if basic and not _point_at_items(array.array("I", basic.tobytes()), fragments.offsets, frames):
            return False
        if not extended:
            return True
        lengths = array.array("Q", source.extended_lengths.tobytes())
        return (
            not basic  # C.7.6.3.1.8: with an Extended Offset Table the basic one is empty
            and array.array("Q", extended.tobytes()) == fragments.offsets
            and len(lengths) == len(fragments.lengths)
            and all(
                padded - padded % 2 - 1 <= true <= padded
                for true, padded in zip(lengths, fragments.lengths, strict=True)
            )
        )


def _point_at_items(table: "array.array[int]", items: "array.array[int]", frames: int) -> bool:
    """Whether the table has an entry a frame and its entries are items, in order, the first the first."""
    if not items or len(table) != frames or table[0] != items[0]:
        return False
    position = 0
    for entry in table:
        while position < len(items) and items[position] < entry:
            position += 1
        if position == len(items) or items[position] != entry:
            return False
        position += 1
    return True


def describe(source: PixelSource, findings: Findings) -> PixelDescription | None:
    """Describe the top-level pixel data; ``None`` where there is none. Whatever is wrong becomes a finding."""
    present = [source.elements[tag] for tag in PIXEL_DATA_TAGS if tag in source.elements]
    if not present:
        return None
    reader = _Description(source, findings)
    if len(present) > 1:  # PS3.3 C.7.6.24: one of them at most
        reader.problem(Finding.PIXEL_ATTRIBUTE_INVALID, present[1].tag)
    description = reader.describe(present[0])
    return dataclasses.replace(description, problems=tuple(reader.problems))
