"""Why something is refused, in a word for metrics and logs, and what an administrator can do about it."""

from typing import Final, NamedTuple

from ingest.association import (
    Accepted,
    AssociateReject,
    Rejection,
)
from ingest.association.negotiation import ABSTRACT_SYNTAX_NOT_SUPPORTED, Answer
from ingest.association.storage_classes import STORAGE_CLASSES, STORAGE_COMMITMENT
from ingest.dimse.status import (
    CANNOT_UNDERSTAND,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    DUPLICATE_TRANSACTION_UID,
    INVALID_OBJECT_INSTANCE,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SOP_CLASS_NOT_SUPPORTED,
)
from ingest.errors import InstanceTooLong, LogUnavailable, OutOfResources, QuotaUsedUp, Refused


class Reason(NamedTuple):
    """A word from a closed list, and the remedy: the setting to change, or what else helps."""

    word: str
    remedy: str


_SENDER: Final = "none here: the sender must be changed"
_LOG: Final = "free disk, or log.maximum_size, log.reserve; with Kafka, its brokers: see /readyz"

CONNECTIONS: Final = Reason(
    "too-many-connections",
    "receiver.maximum_connections, receiver.maximum_connections_per_address, receiver.maximum_handshakes",
)
HANDSHAKE: Final = Reason(
    "tls-handshake",
    "listeners.NAME.certificate_file, client_certificate, client_ca_file, client_crl_file; or the sender's TLS",
)
MALFORMED: Final = Reason("malformed", _SENDER)
DRAINING: Final = Reason("draining", "none: the receiver was told to stop")
CONGESTED: Final = Reason("congested", "Kafka's brokers or the workers: see /readyz; receiver.buffer_budget")
REJECTIONS: Final = {
    Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED: Reason(
        "called-ae-title", "receiver.ae_title, or receiver.accept_any_called_ae = true"
    ),
    Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED: Reason(
        "calling-ae-title",
        "sources.NAME.ae_titles, sources.NAME.addresses, sources.NAME.certificates, or receiver.unknown_sources",
    ),
    Rejection.TEMPORARY_CONGESTION: CONGESTED,
    Rejection.LOCAL_LIMIT_EXCEEDED: Reason(
        "too-many-associations",
        "receiver.maximum_associations, receiver.unknown_associations, sources.NAME.maximum_associations",
    ),
    Rejection.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED: Reason("application-context", _SENDER),
    Rejection.PROTOCOL_VERSION_NOT_SUPPORTED: Reason("protocol-version", _SENDER),
    Rejection.NO_REASON_GIVEN: Reason("no-reason", _SENDER),
}
# A peer that is not whom we know, or not made as one: for auditors, too (PS3.15 A.5.3.11).
SECURITY: Final = frozenset(
    {
        MALFORMED,
        REJECTIONS[Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED],
        REJECTIONS[Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED],
    }
)
TRANSFER_SYNTAX: Final = Reason(
    "transfer-syntax", "none here: the sender must offer a transfer syntax of PS3.5"
)
SERVICE: Final = Reason("service", "none here: this service is not offered")
PRIVATE_CLASS: Final = Reason("sop-class", "receiver.private_storage_classes, if this is a storage class")
CLASS_OF_SOURCE: Final = Reason("sop-class-of-source", "sources.NAME.sop_classes")
COMMITMENT_OFF: Final = Reason(
    "commitment-off", "commitment.enabled = true; of an unknown source in quarantine: a table sources.NAME"
)

NO_RESOURCES: Final = Reason("out-of-resources", _LOG)
NO_LOG: Final = Reason("log-unavailable", _LOG)
TOO_LONG: Final = Reason(
    "instance-too-long",
    "receiver.maximum_instance_size, receiver.maximum_association_size, sources.NAME.maximum_instance_size",
)
UNKNOWN_QUOTA: Final = Reason(
    "unknown-quota",
    "sources.NAME.ae_titles, if it is known; receiver.unknown_bytes, unknown_instances, unknown_period",
)
# By the status that says so: the sender is wrong, and this is in what.
REFUSED: Final = {
    OUT_OF_RESOURCES: NO_RESOURCES,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS: Reason(
        "other-uids",
        "none here: the data set has another SOP Class or Instance UID than the sender's request (A900H)",
    ),
    CANNOT_UNDERSTAND: Reason(
        "unreadable",
        "none here: the data set is cut short, or not in the transfer syntax of its context (C000H)",
    ),
    INVALID_OBJECT_INSTANCE: Reason(
        "invalid-uid", "none here: the SOP Instance UID breaks PS3.5 9.1 (0117H)"
    ),
    SOP_CLASS_NOT_SUPPORTED: Reason(
        "other-context",
        "none here: the sender's request is of a SOP Class that was not accepted, or that is none to store (0122H)",
    ),
}
COMMITMENT_REQUEST: Final = Reason("commitment-request", "none here: the request breaks PS3.4 J.3.2")
# By the status that says so.
COMMITMENT: Final = {
    DUPLICATE_TRANSACTION_UID: Reason(
        "transaction-uid", "none here: the sender has used this Transaction UID before (0131H)"
    ),
    RESOURCE_LIMITATION: Reason(
        "commitment-limits",
        "commitment.maximum_references, maximum_request, maximum_open; free disk, or log.maximum_size (0213H)",
    ),
    PROCESSING_FAILURE: Reason(
        "commitment-failed",
        "a table sources.NAME for the sender, or commitment.without_address; else the log (0110H)",
    ),
}
DEFECT: Final = Reason("error", "none: a defect; see the log of the receiver")

_DICOM_ROOT: Final = "1.2.840.10008."


def of_answer(answer: Answer, *, draining: bool) -> Reason | None:
    """Why an association is not accepted; None where it is."""
    if isinstance(answer, Accepted):
        return None
    if not isinstance(answer, AssociateReject):
        return MALFORMED
    reason = REJECTIONS[Rejection((answer.result, answer.source, answer.reason))]
    return DRAINING if draining and reason is CONGESTED else reason


def of_context(abstract_syntax: str, result: int) -> Reason:
    """Why a presentation context is not accepted (PS3.8 Table 9-18)."""
    if result != ABSTRACT_SYNTAX_NOT_SUPPORTED:
        return TRANSFER_SYNTAX
    if abstract_syntax == STORAGE_COMMITMENT:
        return COMMITMENT_OFF
    if abstract_syntax.startswith(_DICOM_ROOT) and abstract_syntax not in STORAGE_CLASSES:
        return SERVICE
    return CLASS_OF_SOURCE if abstract_syntax in STORAGE_CLASSES else PRIVATE_CLASS


def of_failure(failure: Exception) -> Reason:
    """Why an instance is not taken."""
    if isinstance(failure, OutOfResources):
        return NO_RESOURCES
    if isinstance(failure, LogUnavailable):
        return NO_LOG
    if isinstance(failure, InstanceTooLong):
        return TOO_LONG
    if isinstance(failure, QuotaUsedUp):
        return UNKNOWN_QUOTA
    if isinstance(failure, Refused):
        return REFUSED.get(failure.status, DEFECT)
    return DEFECT


def of_commitment(failure: Exception) -> Reason:
    """Why a request of storage commitment is refused."""
    if isinstance(failure, Refused):
        return COMMITMENT.get(failure.status, COMMITMENT_REQUEST)
    return DEFECT
