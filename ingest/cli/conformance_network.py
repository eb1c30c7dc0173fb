"""What the conformance statement says of network communication: section 7."""

from collections.abc import Iterator
from typing import Final

from ingest.association import STORAGE_CLASSES, STORAGE_COMMITMENT, VERIFICATION, Rejection
from ingest.association.transfer_syntaxes import PLAIN, YOUNGER, preference_order
from ingest.cli.conformance_statuses import ACTION, FAILURE_REASONS, STORE, table
from ingest.cli.conformance_storage import durability
from ingest.contract.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ingest.contract.settings import Settings
from ingest.dimse.status import SUCCESS

_REJECTIONS: Final = {
    Rejection.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED: "another application context than DICOM's",
    Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED: "the calling AE title is none, of no source where those are refused, or comes from another address or certificate",
    Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED: "another AE title than ours is called, or none, or one that this source may not call",
    Rejection.PROTOCOL_VERSION_NOT_SUPPORTED: "another protocol version than 1",
    Rejection.TEMPORARY_CONGESTION: "the log or memory is full, or the receiver stops: try again later",
    Rejection.LOCAL_LIMIT_EXCEEDED: "as many associations are open as the receiver, or this source, may have",
}
_CALLING: Final = {
    "accept": "any calling AE title. One of a source must come as `sources.NAME` says.",
    "quarantine": "any calling AE title. One of a source must come as `sources.NAME` says; what others send is quarantined.",
    "refuse": "calling AE titles of the sources in the settings, which must come as `sources.NAME` says.",
}


def network(settings: Settings) -> Iterator[str]:
    """Section 7."""
    yield "## 7. Network and media communication details"
    for part in (_general, _sequence, _classes, _syntaxes, _initiation, _acceptance, _statuses):
        yield ""
        yield from part(settings)


def _general(settings: Settings) -> Iterator[str]:
    receiver = settings.receiver
    yield "### 7.1 General"
    yield ""
    yield "#### 7.1.1 General association parameters"
    yield ""
    yield "| parameter | value |"
    yield "|---|---|"
    yield "| application context | 1.2.840.10008.3.1.1.1 |"
    yield f"| Implementation Class UID | {IMPLEMENTATION_CLASS_UID} |"
    yield f"| Implementation Version Name | {IMPLEMENTATION_VERSION_NAME} |"
    yield f"| maximum PDU length announced | {receiver.maximum_pdu_length} bytes |"
    yield f"| associations at a time, as acceptor | {receiver.maximum_associations} |"
    yield "| asynchronous operations | none: one at a time (no 53H item is answered) |"
    yield "| SOP Class Extended Negotiation | not answered |"
    yield "| role selection | answered; a requestor is SCU, and SCP of nothing |"
    yield "| user identity | not verified, and not answered |"
    yield "| network | TCP over IPv4 or IPv6, by the addresses in the settings |"


def _sequence(settings: Settings) -> Iterator[str]:
    yield "### 7.2 Specifications"
    yield ""
    yield f"#### 7.2.1 Application entity `{settings.receiver.ae_title}`"
    yield ""
    yield "##### 7.2.1.1 Sequencing of real-world activities"
    yield ""
    yield "1. A peer stores instances; each success means that the instance is durable, and not yet that it is in the store."
    yield "2. Workers bring each to its place, usually within seconds."
    if settings.commitment.enabled:
        yield "3. A peer asks for storage commitment, at any time: what it has sent before is waited for."
        yield "4. A report says which instances are proved to be stored. Only then may a peer delete its copy."


def _classes(settings: Settings) -> Iterator[str]:
    yield "##### 7.2.1.2 SOP classes and transfer syntaxes"
    yield ""
    yield "Of the Storage Service Class, as SCP:"
    yield ""
    private = dict.fromkeys(
        settings.receiver.private_storage_classes, "private, by receiver.private_storage_classes"
    )
    yield from _named({**STORAGE_CLASSES, **private})
    yield ""
    yield "And any other, private or of a later edition, that the requestor declares to be of the Storage Service Class by"
    yield "SOP Class Common Extended Negotiation (PS3.7 D.3.3.6)."
    yield ""
    yield "Beside it, as SCP:"
    yield ""
    others = {VERIFICATION: "Verification"}
    if settings.commitment.enabled:
        others[STORAGE_COMMITMENT] = "Storage Commitment Push Model"
    yield from _named(others)


def _syntaxes(settings: Settings) -> Iterator[str]:
    from pydicom.uid import UID  # noqa: PLC0415 - its dictionary takes a moment, which other commands need not wait for

    yield "Of several transfer syntaxes in one presentation context the first of this list is accepted:"
    yield ""
    order = preference_order(settings.receiver.transfer_syntax_preference)
    yield from _named({uid: YOUNGER.get(uid) or UID(uid).name for uid in order})
    yield ""
    yield f"Storage Commitment: {', '.join(UID(uid).name for uid in order if uid in PLAIN)}."


def _named(uids: dict[str, str]) -> Iterator[str]:
    yield "| UID | name |"
    yield "|---|---|"
    yield from (f"| {uid} | {name} |" for uid, name in uids.items())


def _initiation(settings: Settings) -> Iterator[str]:
    yield "##### 7.2.1.3 Association initiation"
    yield ""
    if settings.commitment.enabled:
        yield "Only for reports of storage commitment; see 5.2.6."
    else:
        yield "None."


def _acceptance(settings: Settings) -> Iterator[str]:
    receiver = settings.receiver
    called = (
        "any called AE title" if receiver.accept_any_called_ae else f"called AE title `{receiver.ae_title}`"
    )
    yield "##### 7.2.1.4 Association acceptance"
    yield ""
    yield f"Accepted: {called}, {_CALLING[receiver.unknown_sources]}"
    yield "Rejected (PS3.8 9.3.4), each with result, source and reason:"
    yield ""
    yield "| RJ | when |"
    yield "|---|---|"
    yield from (f"| {', '.join(map(str, why.value))} | {when} |" for why, when in _REJECTIONS.items())
    yield ""
    yield "Aborted: a peer that breaks PS3.8 or PS3.7, and one that is silent or slow beyond the timers of 6.1. An instance"
    yield "that was not received whole is never kept."


def _statuses(settings: Settings) -> Iterator[str]:
    yield "### 7.3 Status codes"
    yield ""
    yield "#### 7.3.1 General"
    yield ""
    yield "A sender should send again what got A700H, was not answered, or was in an association that broke. The same instance"
    yield "twice does no harm."
    yield ""
    yield "#### 7.3.2 DIMSE services"
    yield ""
    yield "C-ECHO is answered with 0000H. C-STORE is answered with:"
    yield ""
    yield from table({SUCCESS: f"Every byte is durable. {durability(settings)}", **STORE})
    if settings.commitment.enabled:
        yield ""
        yield "N-ACTION is answered with:"
        yield ""
        yield from table(ACTION)
        yield ""
        yield "Failure Reason (0008,1197) of N-EVENT-REPORT is:"
        yield ""
        yield from table(FAILURE_REASONS)
