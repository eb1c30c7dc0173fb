"""Values against their VR, their character set and their private creator (PS3.5 section 6 and 7.8.1).

Top level only, and short values only: enough to tell an administrator which sender is careless. Whatever is
wrong is a finding; real senders break every one of these rules.
"""

import re
from collections.abc import Sequence

from workers.dataset.dictionary import public_vr
from workers.dataset.elements import Element
from workers.dataset.findings import Finding, Findings

SPECIFIC_CHARACTER_SET = 0x0008_0005
LONGEST = 1024  # bytes; longer values are not looked at

# PS3.5 6.2: characters of one value, and the most of them. Padding and the number of values are free.
_FORMS: dict[bytes, tuple[bytes, int]] = {
    b"AE": (rb"[ -\[\]-~]", 16),
    b"CS": (rb"[A-Z0-9 _]", 16),
    b"DA": (rb"[0-9]", 8),
    b"DS": (rb"[0-9+\-Ee. ]", 16),
    b"DT": (rb"[0-9+\-. ]", 26),
    b"IS": (rb"[0-9+\- ]", 12),
    b"TM": (rb"[0-9. ]", 16),
    b"UI": (rb"[0-9.]", 64),
}
_VALID = {
    vr: re.compile(rb"%b{0,%d}(?:\\%b{0,%d})*[ \0]*\Z" % (characters, most, characters, most)).match
    for vr, (characters, most) in _FORMS.items()
}
_AGE = re.compile(rb"(?:[0-9]{3}[DWMY])?(?:\\[0-9]{3}[DWMY])*[ \0]*\Z").match
_VALID[b"AS"] = _AGE
_WIDTHS = {b"AT": 4, b"FD": 8, b"FL": 4, b"SL": 4, b"SS": 2, b"SV": 8, b"UL": 4, b"US": 2, b"UV": 8}
_UNSAID = frozenset({b"", b"UN"})
_TEXT = frozenset({b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"})
_LONGEST_TEXT = {b"LO": 64, b"SH": 16}  # characters of one value

# PS3.3 C.12.1.1.2, Tables C.12-2 to C.12-5. ISO_IR 6 is the default and has no term, though some write it.
_ISO_IR = (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 203)
_CHARACTER_SETS = frozenset(
    [b"", b"ISO_IR 192", b"GB18030", b"GBK"]
    + [b"ISO_IR %d" % number for number in _ISO_IR]
    + [b"ISO 2022 IR %d" % number for number in (6, 58, 87, 149, 159, *_ISO_IR)]
)
_DEFAULT = "ascii"
# The sets in which a run of bytes can be no text. In the single-byte ones nearly every byte is a character.
_CODECS = {b"": _DEFAULT, b"ISO_IR 192": "utf-8", b"GB18030": "gb18030", b"GBK": "gbk"}


class ValueCheck:
    """Takes the top-level elements in order and notes what is wrong with each."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._codec: str | None = _DEFAULT
        self._creators: set[int] = set()  # group and block: the upper 24 bits of their elements' tags

    def check(self, tag: int, vr: bytes, value: memoryview) -> None:
        """The next element; ``value`` is its whole value, of at most `LONGEST` bytes."""
        if tag & 0x1_0000:
            self._private(tag)
        if vr in _UNSAID:
            vr = public_vr(tag).encode("ascii")
        valid = _VALID.get(vr)
        if valid is not None:
            if valid(value) is None:
                self._findings.note(_fault(vr, bytes(value)), tag)
        elif vr in _TEXT:
            self._text(tag, vr, bytes(value))
        elif len(value) % _WIDTHS.get(vr, 1):
            self._findings.note(Finding.VALUE_LENGTH, tag)
        if tag == SPECIFIC_CHARACTER_SET:
            self._character_set(bytes(value))

    def _private(self, tag: int) -> None:
        number = tag & 0xFFFF
        if 0x10 <= number <= 0xFF:  # noqa: PLR2004 - PS3.5 7.8.1: private creators
            self._creators.add((tag >> 16) << 8 | number)
        elif number and tag >> 8 not in self._creators:
            self._findings.note(Finding.NO_PRIVATE_CREATOR, tag)

    def _text(self, tag: int, vr: bytes, value: bytes) -> None:
        most = _LONGEST_TEXT.get(vr)
        if value.isascii():
            if most is not None and len(value) > most and _longest(value) > most:
                self._findings.note(Finding.VALUE_LENGTH, tag)
        elif self._codec is not None:
            try:
                value.decode(self._codec)
            except UnicodeDecodeError:
                self._findings.note(Finding.TEXT_ENCODING, tag)

    def _character_set(self, value: bytes) -> None:
        terms = [term.strip(b" \0") for term in value.split(b"\\")]
        if any(term not in _CHARACTER_SETS for term in terms):
            self._findings.note(Finding.CHARACTER_SET, SPECIFIC_CHARACTER_SET)
            self._codec = None
        else:
            # PS3.5 6.1.2.5: with several values, escape sequences switch between sets; that is not followed.
            self._codec = _CODECS.get(terms[0]) if len(terms) == 1 else None


def _fault(vr: bytes, value: bytes) -> Finding:
    """Whether a value is too long for its VR or of another form."""
    most = _FORMS[vr][1] if vr in _FORMS else 4  # PS3.5 6.2: AS has four characters
    return Finding.VALUE_LENGTH if _longest(value) > most else Finding.VALUE_SYNTAX


def _longest(value: bytes) -> int:
    return max(len(part) for part in value.rstrip(b" \0").split(b"\\"))


def check_group_lengths(elements: Sequence[Element], lengths: dict[int, int], findings: Findings) -> None:
    """Note group lengths (PS3.5 7.2) that are not. ``lengths``: the values of (gggg,0000) at top level, by tag."""
    ends: dict[int, int] = {}
    for element in elements:
        ends[element.tag >> 16] = element.end
    for element in elements:
        if element.tag in lengths and ends[element.tag >> 16] - element.end != lengths[element.tag]:
            findings.note(Finding.GROUP_LENGTH, element.tag)
