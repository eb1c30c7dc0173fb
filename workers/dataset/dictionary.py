"""The data dictionary (PS3.6) and vendors' private dictionaries, from pydicom's tables, as fast look-ups."""

from functools import lru_cache

from workers.dataset.pydicom_tables import PRIVATE, PUBLIC, REPEATERS

# PS3.5 6.2: VRs whose values are padded with a trailing space, or NUL for UI; the padding means nothing.
TEXT_VRS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)

SEQUENCE_TAGS = frozenset(tag for tag, entry in PUBLIC.items() if entry[0] == "SQ")
TEXT_TAGS = frozenset(tag for tag, entry in PUBLIC.items() if entry[0] in TEXT_VRS)
# Curves and overlays repeat over the even groups 5000-50FE and 6000-60FE (PS3.5 7.6).
_REPEATED_TEXT = frozenset(
    int(mask[:2] + "00" + mask[4:], 16)
    for mask, entry in REPEATERS.items()
    if mask[:4] in ("50xx", "60xx") and entry[0] in TEXT_VRS
)
_REPEATING = frozenset({0x50, 0x60})
# A repeating group's fixed digits, which of a tag's digits they are, and the VR.
_MASKS = tuple(
    (
        int(mask.replace("x", "0"), 16),
        int("".join("0" if digit == "x" else "F" for digit in mask), 16),
        entry[0],
    )
    for mask, entry in REPEATERS.items()
)


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
    entry = PUBLIC.get(tag)
    if entry is not None:
        return entry[0]
    if tag & 0x1_0000:
        return "UN"  # private
    return next((vr for digits, which, vr in _MASKS if tag & which == digits), "UN")


@lru_cache(maxsize=8192)
def private_vr(tag: int, creator: str) -> str:
    """VR of a private element (PS3.5 7.8.1) by the dictionary of its creator; ``UN`` where that is unknown."""
    entries = PRIVATE.get(creator, {})
    digits = f"{tag:08X}"
    # Most entries leave the block open that the creator has reserved, some the group too.
    for key in (digits, f"{digits[:4]}xx{digits[6:]}", f"{digits[:2]}xxxx{digits[6:]}"):
        if key in entries:
            vr = entries[key][0]
            return vr if len(vr) == 2 else "UN"  # noqa: PLR2004 - an entry that leaves the choice open names no VR
    return "UN"
