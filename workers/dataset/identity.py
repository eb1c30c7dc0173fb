"""Whose object it is and which: UIDs checked (PS3.5 9.1), patient values only looked at for presence.

Names, numbers and accession stay bytes here; as text they are in `subject` alone, which shows them nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ingest.contract.identifiers import InvalidIdentifier, check_uid, has_leading_zero
from workers.dataset.elements import Token
from workers.dataset.findings import Finding, Findings, tag_text
from workers.errors import Reason, Rejected

SOP_CLASS_UID = 0x0008_0016
SOP_INSTANCE_UID = 0x0008_0018
STUDY_INSTANCE_UID = 0x0020_000D
SERIES_INSTANCE_UID = 0x0020_000E
UID_TAGS = (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
# Accession Number, Patient's Name, Patient ID
PATIENT_TAGS = (0x0008_0050, 0x0010_0010, 0x0010_0020)

_PAD = b" \0"
_EMPTY_NAME = b" \0^="  # PS3.5 6.2, PN: delimiters alone name nobody


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs of an instance, each checked, as the strings that were sent."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


def is_empty(value: bytes) -> bool:
    """Whether a value of `PATIENT_TAGS` names nobody."""
    return not value.strip(_EMPTY_NAME)


def _uid(tag: int, values: Mapping[int, tuple[Token, bytes]], findings: Findings) -> str:
    if tag not in values:
        raise Rejected(Reason.IDENTITY, 0, f"{tag_text(tag)} is missing")
    token, value = values[tag]
    try:
        # A byte that is not ASCII becomes a character that no UID may hold.
        uid = check_uid(value.rstrip(_PAD).decode("ascii", "replace"))
    except InvalidIdentifier as error:
        raise Rejected(Reason.IDENTITY, token.value, f"{tag_text(tag)}: {error}") from None
    if has_leading_zero(uid):
        findings.note(Finding.UID_LEADING_ZERO, tag)
    return uid


def identify(values: Mapping[int, tuple[Token, bytes]], findings: Findings) -> Identity:
    """Read the identity from top-level ``values``: for each tag its token and its bytes.

    Raises:
        Rejected: IDENTITY, a UID is missing or is none.
    """
    for tag in PATIENT_TAGS:
        if tag not in values or is_empty(values[tag][1]):
            findings.note(Finding.PATIENT_UNIDENTIFIED, tag)
    identity = Identity(*(_uid(tag, values, findings) for tag in UID_TAGS))
    seen = {identity.sop_instance_uid}
    for tag, uid in (
        (STUDY_INSTANCE_UID, identity.study_instance_uid),
        (SERIES_INSTANCE_UID, identity.series_instance_uid),
    ):
        if uid in seen:
            findings.note(Finding.UID_SHARED, tag)
        seen.add(uid)
    return identity
