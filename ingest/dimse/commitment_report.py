"""The Event Information of storage commitment: what is kept and what is not (PS3.4 J.3.3, Table J.3-2).

Here, below all that use it: the receiver and the sender write it, the sender reads it too.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ingest.contract.commitments import Finding, Found, Reference
from ingest.contract.identifiers import InvalidIdentifier, check_ae_title
from ingest.dimse.commitment_request import (
    IN_ITEMS,
    REFERENCED_SOP_SEQUENCE,
    TRANSACTION_UID,
    elements_of,
    encode_reference,
    reference_of,
)
from ingest.dimse.data_set import Scanner, Values, Wanted, encode_element, encode_item, uid_of
from ingest.dimse.status import (
    CLASS_INSTANCE_CONFLICT,
    NO_SUCH_SOP_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
)
from ingest.errors import Refused

# Event Type IDs
ALL_COMMITTED: Final = 1
FAILURES_EXIST: Final = 2

RETRIEVE_AE_TITLE: Final = 0x0008_0054
FAILURE_REASON: Final = 0x0008_1197
FAILED_SOP_SEQUENCE: Final = 0x0008_1198

_WANTED: Final = Wanted(
    {
        RETRIEVE_AE_TITLE: b"AE",
        TRANSACTION_UID: b"UI",
        FAILED_SOP_SEQUENCE: b"SQ",
        REFERENCED_SOP_SEQUENCE: b"SQ",
    },
    {**IN_ITEMS, FAILURE_REASON: b"US"},
)

# PS3.3 C.14.1.1 enumerates the reasons: absent and of another class have their own, all else is a failure here.
_REASONS: Final = {
    Finding.ABSENT: NO_SUCH_SOP_INSTANCE,
    Finding.CLASS_MISMATCH: CLASS_INSTANCE_CONFLICT,
}


class Failed(NamedTuple):
    """An item of the Failed SOP Sequence (0008,1198)."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int  # Failure Reason (0008,1197); 0 where a peer gave none


class Report(NamedTuple):
    """What became of a transaction, or of a part of it."""

    transaction_uid: str
    committed: Sequence[Reference | Found]
    failed: Sequence[Failed]
    retrieve_ae_title: str = ""  # empty: none

    @property
    def event_type_id(self) -> int:
        """Which of the two events it is."""
        return FAILURES_EXIST if self.failed else ALL_COMMITTED


def report_of(
    transaction_uid: str, committed: Sequence[Found], failed: Iterable[Found], retrieve_ae_title: str
) -> Report:
    """The report of what was found."""
    return Report(transaction_uid, committed, [_failed(found) for found in failed], retrieve_ae_title)


def encode_report(report: Report, *, explicit: bool) -> bytes:
    """The data set of an N-EVENT-REPORT-RQ.

    Each sequence is there only with items (PS3.4 Table J.3-2: of event type 1 there is no Failed SOP Sequence).
    """
    pieces = []
    if report.retrieve_ae_title:
        title = report.retrieve_ae_title.encode("ascii")
        pieces.append(encode_element(RETRIEVE_AE_TITLE, b"AE", title, explicit=explicit))
    uid = report.transaction_uid.encode("ascii")
    pieces.append(encode_element(TRANSACTION_UID, b"UI", uid, explicit=explicit))
    for tag, items in (
        (FAILED_SOP_SEQUENCE, b"".join(_failed_item(each, explicit=explicit) for each in report.failed)),
        (REFERENCED_SOP_SEQUENCE, b"".join(_item(each, explicit=explicit) for each in report.committed)),
    ):
        if items:
            pieces.append(encode_element(tag, b"SQ", items, explicit=explicit))
    return b"".join(pieces)


def parse_report(data: bytes | bytearray, *, explicit: bool, maximum: int) -> Report:
    """Read a peer's report of at most ``maximum`` instances.

    Raises:
        Refused: 0115H for a data set that cannot be read or lacks what it must have, 0213H for too many items.
    """
    committed: list[Reference | Found] = []
    failed: list[Failed] = []
    own: Values = {}
    for sequence, values in Scanner(
        data, explicit=explicit, wanted=_WANTED, maximum=elements_of(maximum)
    ).items():
        if len(committed) + len(failed) > maximum:
            raise Refused(RESOURCE_LIMITATION, f"more than {maximum} instances in one report")
        if sequence == REFERENCED_SOP_SEQUENCE:
            committed.append(reference_of(values))
        elif sequence == FAILED_SOP_SEQUENCE:
            failed.append(_failed_of(values))
        else:
            own = values
    return Report(uid_of(own, TRANSACTION_UID), committed, failed, _title_of(own))


def _title_of(values: Values) -> str:
    """An AE title that cannot be one is none: nothing depends on it."""
    try:
        return check_ae_title(values.get(RETRIEVE_AE_TITLE, b"").decode("latin-1").strip(" \0"))
    except InvalidIdentifier:
        return ""


def _failed(found: Found) -> Failed:
    reason = _REASONS.get(found.finding, PROCESSING_FAILURE)
    return Failed(found.sop_class_uid, found.sop_instance_uid, reason)


def _failed_of(values: Values) -> Failed:
    reference = reference_of(values)
    reason = int.from_bytes(values.get(FAILURE_REASON, b"")[:2], "little")
    return Failed(reference.sop_class_uid, reference.sop_instance_uid, reason)


def _item(each: Reference | Found, *, explicit: bool) -> bytes:
    return encode_item(encode_reference(each.sop_class_uid, each.sop_instance_uid, explicit=explicit))


def _failed_item(each: Failed, *, explicit: bool) -> bytes:
    content = encode_reference(each.sop_class_uid, each.sop_instance_uid, explicit=explicit)
    reason = encode_element(FAILURE_REASON, b"US", each.reason.to_bytes(2, "little"), explicit=explicit)
    return encode_item(content + reason)
