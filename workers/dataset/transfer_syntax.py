"""How a transfer syntax encodes its data set (PS3.5 section 10 and Annex A)."""

import enum

from workers.dataset.pydicom_tables import UIDS


class Encoding(enum.Enum):
    """VR and byte order of a data set's elements."""

    IMPLICIT_LITTLE = enum.auto()
    EXPLICIT_LITTLE = enum.auto()
    EXPLICIT_BIG = enum.auto()  # retired, still sent


IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
# A.5 and the JPIP kin: the whole data set is one deflated stream.
DEFLATED = frozenset(
    {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
# A.6, A.12: the pixels are elsewhere.
REFERENCED = frozenset(
    {"1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205"}
)
NATIVE = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    }
)
# XML and MIME renderings and SMPTE streams (PS3.5 Annexes A.7 to A.11) are no data sets of elements.
_NOT_DATA_SETS = frozenset(
    {
        "1.2.840.10008.1.2.6.1",
        "1.2.840.10008.1.2.6.2",
        "1.2.840.10008.1.2.7.1",
        "1.2.840.10008.1.2.7.2",
        "1.2.840.10008.1.2.7.3",
    }
)
# JPEG XL and Deflated Image Frame Compression (PS3.5 A.4), which are younger than the table of pydicom 3.0. What the
# receiver accepts must be here: a test holds the two lists together, as neither side imports the other.
_YOUNGER = frozenset(
    {
        "1.2.840.10008.1.2.4.110",
        "1.2.840.10008.1.2.4.111",
        "1.2.840.10008.1.2.4.112",
        "1.2.840.10008.1.2.8.1",
    }
)
STANDARD = (
    frozenset(
        uid
        for uid, (_, kind, *_) in UIDS.items()
        if kind == "Transfer Syntax" and uid.startswith("1.2.840.10008.1.2")
    )
    | _YOUNGER
) - _NOT_DATA_SETS
# Every frame is lossy in these; .91, .93 and .203 may be either (PS3.5 10.x), and video is named apart.
LOSSY = frozenset(
    {
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.81",
    }
)
# .100 to .108, MPEG-2, MPEG-4 and HEVC (PS3.5 8.2.5 and on): a fragment is no frame.
VIDEO = "1.2.840.10008.1.2.4.10"


def encoding_of(transfer_syntax_uid: str) -> Encoding | None:
    """Encoding of the elements (after inflating, where `DEFLATED`); ``None`` for what is no standard syntax."""
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        return Encoding.IMPLICIT_LITTLE
    if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN:
        return Encoding.EXPLICIT_BIG
    return Encoding.EXPLICIT_LITTLE if transfer_syntax_uid in STANDARD else None


def is_encapsulated(transfer_syntax_uid: str) -> bool:
    """Whether top-level Pixel Data is a sequence of fragments (PS3.5 A.4)."""
    return transfer_syntax_uid in STANDARD - NATIVE - REFERENCED
