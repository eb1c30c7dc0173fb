"""The data dictionary (PS3.6) and vendors' private dictionaries, from pydicom's tables, as fast look-ups."""

from collections.abc import Mapping
from functools import lru_cache

from pydicom import datadict

_PUBLIC: Mapping[int, tuple[str, ...]] = datadict.DicomDictionary  # type: ignore[attr-defined]  # re-exported, unmarked
_REPEATERS: Mapping[str, tuple[str, ...]] = datadict.RepeatersDictionary  # type: ignore[attr-defined]  # likewise

# PS3.5 6.2: VRs whose values are padded with a trailing space, or NUL for UI; the padding means nothing.
TEXT_VRS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)

SEQUENCE_TAGS = frozenset(tag for tag, entry in _PUBLIC.items() if entry[0] == "SQ")
TEXT_TAGS = frozenset(tag for tag, entry in _PUBLIC.items() if entry[0] in TEXT_VRS)
# Curves and overlays repeat over the even groups 5000-50FE and 6000-60FE (PS3.5 7.6).
_REPEATED_TEXT = frozenset(
    int(mask[:2] + "00" + mask[4:], 16)
    for mask, entry in _REPEATERS.items()
    if mask[:4] in ("50xx", "60xx") and entry[0] in TEXT_VRS
)
_REPEATING = frozenset({0x50, 0x60})


def is_text(tag: int) -> bool:
    """Whether trailing padding of this element's value means nothing, whatever VR is on the wire.

    Private creators count: their VR is LO in every encoding (PS3.5 7.8.1). Other private elements do not:
    their VR is lost in implicit VR, and their last byte may mean something.
    """
    if tag in TEXT_TAGS:
        return True
    if tag & 0x1_0000:
        return 0x10 <= tag & 0xFFFF <= 0xFF  # noqa: PLR2004 - PS3.5 7.8.1: (gggg,0010-00FF)
    return tag >> 24 in _REPEATING and tag & 0xFF00_FFFF in _REPEATED_TEXT


@lru_cache(maxsize=8192)
def public_vr(tag: int) -> str:
    """VR of a public element, such as ``US`` or ``US or SS``; ``UN`` where the dictionary does not know it."""
    try:
        return str(datadict.dictionary_VR(tag))
    except KeyError:
        return "UN"


@lru_cache(maxsize=8192)
def private_vr(tag: int, creator: str) -> str:
    """VR of a private element (PS3.5 7.8.1) by the dictionary of its creator; ``UN`` where that is unknown."""
    try:
        vr = str(datadict.private_dictionary_VR(tag, creator))
    except KeyError:
        return "UN"
    return vr if len(vr) == 2 else "UN"  # noqa: PLR2004 - an entry that leaves the choice open names no VR
