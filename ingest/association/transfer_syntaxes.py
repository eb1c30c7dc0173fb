"""The transfer syntaxes that instances are received in, most wanted first (PS3.5 section 10 and Annex A)."""

from collections.abc import Iterable

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# For data sets without pixels, as those of storage commitment.
PLAIN = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN})

# Names by PS3.6 of those that are younger than pydicom 3.0.
YOUNGER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}

# The order when one context offers several. It has no normative meaning (PS3.7 D.3.2). Native first, so that
# the one transcode is ours; then what is lossless in any case; then what may be lossy; last what is odd or
# retired. A requestor that holds compressed images offers contexts of one transfer syntax each and chooses.
BUILT_IN_PREFERENCE = (
    EXPLICIT_VR_LITTLE_ENDIAN,  # keeps the VR of private elements
    IMPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, First-Order Prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless, Process 14
    "1.2.840.10008.1.2.4.58",  # JPEG Lossless, Process 15 (retired)
    "1.2.840.10008.1.2.4.65",  # JPEG Lossless, Hierarchical, Process 28 (retired)
    "1.2.840.10008.1.2.4.66",  # JPEG Lossless, Hierarchical, Process 29 (retired)
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2 Multi-component Lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 Part 2 Multi-component
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.51",  # JPEG Extended, Process 2 and 4
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.4.52",  # other JPEG processes (retired)
    "1.2.840.10008.1.2.4.53",
    "1.2.840.10008.1.2.4.54",
    "1.2.840.10008.1.2.4.55",
    "1.2.840.10008.1.2.4.56",
    "1.2.840.10008.1.2.4.59",
    "1.2.840.10008.1.2.4.60",
    "1.2.840.10008.1.2.4.61",
    "1.2.840.10008.1.2.4.62",
    "1.2.840.10008.1.2.4.63",
    "1.2.840.10008.1.2.4.64",
    "1.2.840.10008.1.2.4.100",  # MPEG2 Main Profile / Main Level
    "1.2.840.10008.1.2.4.100.1",
    "1.2.840.10008.1.2.4.101",  # MPEG2 Main Profile / High Level
    "1.2.840.10008.1.2.4.101.1",
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC/H.264 High Profile / Level 4.1
    "1.2.840.10008.1.2.4.102.1",
    "1.2.840.10008.1.2.4.103",
    "1.2.840.10008.1.2.4.103.1",
    "1.2.840.10008.1.2.4.104",
    "1.2.840.10008.1.2.4.104.1",
    "1.2.840.10008.1.2.4.105",
    "1.2.840.10008.1.2.4.105.1",
    "1.2.840.10008.1.2.4.106",
    "1.2.840.10008.1.2.4.106.1",
    "1.2.840.10008.1.2.4.107",  # HEVC/H.265 Main Profile / Level 5.1
    "1.2.840.10008.1.2.4.108",  # HEVC/H.265 Main 10 Profile / Level 5.1
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian (retired)
)
# Not in the list, so never accepted: the JPIP referenced syntaxes .94, .95, .204 and .205, whose pixels are
# behind a URL that the sender chose; the SMPTE ST 2110 syntaxes, whose content flows beside DICOM; and
# anything unknown, since its data sets could not be read.


def preference_order(preferred: Iterable[str]) -> dict[str, int]:
    """Rank of every transfer syntax that is accepted; lower is more wanted.

    Args:
        preferred: UIDs to put first, in this order; the built-in order follows.

    Raises:
        ValueError: one of them is not a transfer syntax that can be received.
    """
    first = tuple(dict.fromkeys(preferred))
    for uid in first:
        if uid not in BUILT_IN_PREFERENCE:
            raise ValueError(f"transfer syntax {uid} cannot be received")
    return {uid: rank for rank, uid in enumerate(dict.fromkeys(first + BUILT_IN_PREFERENCE))}
