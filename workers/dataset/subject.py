"""Subject: whose instance it is and of which study, for the audit trail and the ledger's keyed hashes.

The values are a patient's. They are shown nowhere: no repr, no log; who keeps one keeps its keyed hash.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ingest.contract.identifiers import InvalidIdentifier, check_uid
from workers.dataset.character_sets import CODECS
from workers.dataset.deflated import RAW
from workers.dataset.elements import Kind, Limits, Token, Walker
from workers.dataset.identity import PATIENT_TAGS, SERIES_INSTANCE_UID, STUDY_INSTANCE_UID, is_empty
from workers.dataset.payload import EndOfPayload, MemoryPayload, Payload
from workers.dataset.transfer_syntax import DEFLATED, encoding_of
from workers.dataset.values import LONGEST, SPECIFIC_CHARACTER_SET
from workers.errors import Rejected

ACCESSION_NUMBER: Final = 0x0008_0050
PATIENT_ID: Final = 0x0010_0020
ISSUER_OF_PATIENT_ID: Final = 0x0010_0021
SUBJECT_TAGS: Final = frozenset(
    (SPECIFIC_CHARACTER_SET, *PATIENT_TAGS, ISSUER_OF_PATIENT_ID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
)
HEAD: Final = 64 * 1024  # bytes of a data set that hold these, but for icons or the like before them

_LIMITS: Final = Limits(
    elements=10_000
)  # before (0020,000E), and in values that are tried; real ones have some hundred
_PAD: Final = b" \0"
_ESCAPE: Final = b"\x1b"  # ISO 2022: what follows is in another set


@dataclass(frozen=True, slots=True, repr=False)
class Subject:
    """UIDs are checked; all are empty where the data set has none that can be read."""

    study_instance_uid: str = ""
    series_instance_uid: str = ""
    patient_id: str = ""
    issuer: str = ""  # of the Patient ID, (0010,0021)
    accession_number: str = ""
    is_unidentified: bool = False  # Patient ID, name or Accession Number is absent or empty


def subject_of(values: Mapping[int, bytes]) -> Subject:
    """The subject in these top-level values of `SUBJECT_TAGS`."""
    terms = values.get(SPECIFIC_CHARACTER_SET, b"")
    return Subject(
        _uid(values.get(STUDY_INSTANCE_UID, b"")),
        _uid(values.get(SERIES_INSTANCE_UID, b"")),
        _text(values.get(PATIENT_ID, b""), terms),
        _text(values.get(ISSUER_OF_PATIENT_ID, b""), terms),
        _text(values.get(ACCESSION_NUMBER, b""), terms),
        any(is_empty(values.get(tag, b"")) for tag in PATIENT_TAGS),
    )


def read_subject(payload: Payload, transfer_syntax_uid: str) -> Subject:
    """The subject, as far as the first elements can be read; ``payload`` may end early. Blocks.

    A duplicate is settled by its digest before anything is read of it, and what is in quarantine may not be readable.
    """
    encoding = encoding_of(transfer_syntax_uid)
    if encoding is None:
        return Subject()
    found: dict[int, bytes] = {}
    try:
        if transfer_syntax_uid in DEFLATED:
            payload = _inflated_head(payload)
        walker = Walker(payload, encoding, _LIMITS)
        for token in walker:
            if not token.depth and token.tag > SERIES_INSTANCE_UID:
                break
            if _is_wanted(token):
                found[token.tag] = bytes(walker.value(token))
    except (Rejected, EndOfPayload, OSError, zlib.error):
        pass  # what was found before stands
    return subject_of(found)


def _inflated_head(payload: Payload) -> Payload:
    deflated = payload.read(0, min(payload.size, HEAD))
    return MemoryPayload([zlib.decompressobj(RAW).decompress(deflated, HEAD)])


def _is_wanted(token: Token) -> bool:
    return (
        token.depth == 0
        and token.kind is Kind.VALUE
        and token.tag in SUBJECT_TAGS
        and 0 < token.length <= LONGEST
    )


def _uid(value: bytes) -> str:
    try:
        return check_uid(value.rstrip(_PAD).decode("ascii", "replace"))
    except InvalidIdentifier:
        return ""


def _text(value: bytes, terms: bytes) -> str:
    """By the Specific Character Set; leading and trailing spaces are not significant (PS3.5 6.2, LO and SH)."""
    value = value.strip(_PAD)
    if value.isascii() and _ESCAPE not in value:
        return value.decode("ascii")
    # Of several sets, with escapes between, a number is at least always the same. Nothing here warns, as pydicom would
    # with the sender's own words.
    term = terms.strip(_PAD).decode("ascii", "replace")
    try:
        return value.decode(CODECS.get(term, "ascii"))
    except UnicodeDecodeError:
        return value.decode("ascii", "backslashreplace")
