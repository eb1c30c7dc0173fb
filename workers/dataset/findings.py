"""Findings: malformations that real senders produce, noted in the manifest and counted, never a refusal."""

import enum


class Finding(enum.StrEnum):
    """The closed list of words; each goes with the tag it was met at."""

    # structure, PS3.5 section 7
    ODD_LENGTH = "odd-length"  # 7.1.1: the Value Length shall be even
    TAG_ORDER = "tag-order"  # 7.1: increasing tags
    DUPLICATE_TAG = "duplicate-tag"  # 7.1: each at most once in a data set
    RESERVED_BYTES = "reserved-bytes"  # 7.1.2: the two bytes after a long VR shall be zero
    UNKNOWN_VR = "unknown-vr"  # 6.2: not in the list; read with a 32-bit length as 7.1.2 says of later VRs
    IMPLICIT_ITEM = "implicit-item"  # 7.5: an item without VRs inside an explicit VR data set
    DELIMITER = "delimiter"  # 7.5: where a length ends the sequence or item already, or missing there
    TRAILING_ZEROS = "trailing-zeros"  # behind the last element, where (FFFC,FFFC) should be
    NO_PRIVATE_CREATOR = "no-private-creator"  # 7.8.1: a private block that nobody has reserved
    GROUP_LENGTH = "group-length"  # 7.2: retired, and not the length of its group
    # values, PS3.5 section 6
    CHARACTER_SET = "character-set"  # 6.1.2.5: not a defined term
    TEXT_ENCODING = "text-encoding"  # not text in the declared character set
    VALUE_LENGTH = "value-length"  # 6.2: longer than its VR allows, or no multiple of the VR's width
    VALUE_SYNTAX = "value-syntax"  # 6.2: characters or form that its VR does not have
    UID_LEADING_ZERO = "uid-leading-zero"  # 9.1: a component with a superfluous zero
    # identity
    UID_SHARED = "uid-shared"  # study, series and instance are not told apart by their UIDs
    PATIENT_UNIDENTIFIED = "patient-unidentified"  # no name, ID or accession number: legal in an emergency
    # pixel description, PS3.3 C.7.6.3 and PS3.5 section 8
    PIXEL_ATTRIBUTE_MISSING = "pixel-attribute-missing"
    PIXEL_ATTRIBUTE_INVALID = "pixel-attribute-invalid"
    FRAMES_MISSING = "frames-missing"  # (0028,0008) absent while the data holds several frames
    PLANAR_MISSING = "planar-missing"  # (0028,0006) absent with several samples a pixel
    PIXEL_DATA_SHORT = "pixel-data-short"  # fewer bytes than the description needs
    PIXEL_DATA_LONG = "pixel-data-long"  # more than the description and one pad byte
    PIXEL_DATA_VR = "pixel-data-vr"  # 8.1.2, A.4: not the VR that this pixel data needs
    PIXEL_DATA_FORM = "pixel-data-form"  # A.4: encapsulated in a native transfer syntax, or the reverse
    PALETTE = "palette"  # C.7.6.3.1.5: a descriptor that does not fit its data
    FRAGMENTS_FEW = "fragments-few"  # fewer fragments than frames
    FRAGMENTS_MANY = "fragments-many"  # more fragments than frames, and no table that assigns them
    FRAGMENT_LENGTH = "fragment-length"  # A.4: odd or empty
    OFFSET_TABLE = "offset-table"  # A.4, C.7.6.3.1.8: does not point at the items of this pixel data
    LOSSY_UNMARKED = "lossy-unmarked"  # C.7.6.1.1.5: a lossy transfer syntax without (0028,2110)
    MORE = "more"  # the list was cut here


MAXIMUM = 64  # kept for one instance; the manifest holds 32 KiB at most


def tag_text(tag: int) -> str:
    """A tag as the standard prints it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class Findings:
    """A bounded, ordered set of findings; the same one at the same tag counts once."""

    def __init__(self) -> None:
        self._noted: dict[tuple[Finding, int], None] = {}

    def note(self, finding: Finding, tag: int) -> None:
        """Keep it, unless it is known or the list is full."""
        if len(self._noted) < MAXIMUM:
            self._noted[finding, tag] = None
        else:
            self._noted[Finding.MORE, 0] = None

    def texts(self) -> tuple[str, ...]:
        """Each as a word and a tag, such as ``odd-length (0010,0010)``."""
        return tuple(
            str(finding) if finding is Finding.MORE else f"{finding} {tag_text(tag)}"
            for finding, tag in self._noted
        )
