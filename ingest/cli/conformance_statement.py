"""The conformance statement's text, section by section in the order of PS3.2: all of it from the code and the settings.

A sentence that depends on a setting is made from that setting, and each list is the one that the code goes by.
"""

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Final

from ingest.association import STORAGE_CLASSES, STORAGE_COMMITMENT, VERIFICATION, Rejection
from ingest.association.transfer_syntaxes import PLAIN, preference_order
from ingest.cli.conformance_commitment import commitment
from ingest.cli.conformance_statuses import STORE, table
from ingest.contract.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ingest.contract.kafka import is_single_copy
from ingest.contract.settings import Settings
from ingest.contract.settings_keys import settings_fields, unit_of
from ingest.dimse.status import SUCCESS

_REJECTIONS: Final = {
    Rejection.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED: "another application context than DICOM's",
    Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED: "the calling AE title is none",
    Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED: "another AE title than ours is called, or none",
    Rejection.PROTOCOL_VERSION_NOT_SUPPORTED: "another protocol version than 1",
    Rejection.TEMPORARY_CONGESTION: "the log or memory is full, or the receiver stops: try again later",
    Rejection.LOCAL_LIMIT_EXCEEDED: "as many associations as receiver.maximum_associations are open",
}
_TABLES: Final = ("receiver", "transcode", "commitment")  # of the settings, that a peer can notice


def statement(settings: Settings) -> Iterator[str]:
    """The whole of it, as lines."""
    yield "# DICOM Conformance Statement: dicom-ingest"
    yield ""
    yield f"Version {version('dicom-ingest')}, with the settings of this installation. The order is that of PS3.2."
    for section in (
        _overview, _model, _storage, _classes, _syntaxes, _policies, _acceptance, _initiation, commitment,
        _configuration, _rest,
    ):  # fmt: skip
        yield ""
        yield from section(settings)


def _overview(settings: Settings) -> Iterator[str]:
    served = "yes" if settings.commitment.enabled else "no: commitment.enabled is off"
    yield "## 1. Overview"
    yield ""
    yield "Instances are received, checked, transcoded where that is proved to lose nothing, and stored once."
    yield "There is no query, no retrieval, no worklist, no printing and no DICOM media."
    yield ""
    yield "| service | as SCP | as SCU |"
    yield "|---|---|---|"
    yield "| Verification | yes | `dicom-ingest echo` |"
    yield "| Storage | yes, all classes of 2.2.2 | `dicom-ingest send`, for trying |"
    yield f"| Storage Commitment Push Model | {served} | `dicom-ingest send --commit`, for trying |"


def _model(settings: Settings) -> Iterator[str]:
    yield "## 2. Networking"
    yield ""
    yield "### 2.1 Implementation model"
    yield ""
    yield f"One application entity, `{settings.receiver.ae_title}`, receives instances into a log. Workers, which speak no"
    yield "DICOM, check each and put it into the store, a duplicate's count, the conflict lane or quarantine."
    yield f"{_durability(settings)}"


def _durability(settings: Settings) -> str:
    kafka = settings.kafka
    if settings.log.kind == "spool":
        return (
            "The log is a spool on this machine's disk: what is acknowledged has been synced to it, in one copy, and is "
            "as safe as that disk until a worker has stored it."
        )
    text = (
        f"The log is Apache Kafka: what is acknowledged is held by {kafka.min_insync_replicas} brokers at least, of "
        f"{kafka.replication_factor}."
    )
    return (
        f"{text} This is a single copy: the loss of one broker may lose it."
        if is_single_copy(settings)
        else text
    )


def _storage(settings: Settings) -> Iterator[str]:
    yield "### 2.2 Application entity specification"
    yield ""
    yield "#### 2.2.1 Storage"
    yield ""
    yield "What is received is kept whole, private and unknown elements, too (Level 2, full, of PS3.4 B.4.1). No element is"
    yield "coerced. SOP Instance UIDs are never changed."
    yield from _transcoding(settings)
    yield "The same content again is one instance. Other content under a known SOP Instance UID is kept beside it, and the"
    yield "first stays until an administrator decides. What cannot be read or identified is kept in quarantine. All of these"
    yield "are answered with success, since they are found out after the answer."
    yield ""
    yield "C-STORE is answered with:"
    yield ""
    yield from table({SUCCESS: f"Every byte is durable. {_durability(settings)}", **STORE})


def _transcoding(settings: Settings) -> Iterator[str]:
    if not settings.transcode.enabled:
        yield "Instances are stored in the transfer syntax that they were received in."
        return
    compressed = "".join(f", {name}" for name in settings.transcode.decode_lossless)
    yield f"Pixel data in these forms become JPEG 2000 Lossless: native{compressed}. Each result is decoded again and"
    yield "compared bit by bit; where it is not proved to be the same, the instance is stored as received."


def _classes(settings: Settings) -> Iterator[str]:
    yield "#### 2.2.2 SOP classes"
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

    yield "#### 2.2.3 Transfer syntaxes"
    yield ""
    yield "Of several in one presentation context the first of this list is accepted:"
    yield ""
    order = preference_order(settings.receiver.transfer_syntax_preference)
    yield from _named({uid: UID(uid).name for uid in order})
    yield ""
    yield f"Storage Commitment: {', '.join(UID(uid).name for uid in order if uid in PLAIN)}."


def _named(uids: dict[str, str]) -> Iterator[str]:
    yield "| UID | name |"
    yield "|---|---|"
    yield from (f"| {uid} | {name} |" for uid, name in uids.items())


def _policies(settings: Settings) -> Iterator[str]:
    receiver = settings.receiver
    yield "#### 2.2.4 Association policies"
    yield ""
    yield "| | |"
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


def _acceptance(settings: Settings) -> Iterator[str]:
    receiver = settings.receiver
    called = (
        "any called AE title" if receiver.accept_any_called_ae else f"called AE title `{receiver.ae_title}`"
    )
    yield "#### 2.2.5 Association acceptance"
    yield ""
    yield f"Accepted: {called}, any calling AE title, from any address that reaches the port."
    yield "Rejected (PS3.8 9.3.4), each with result, source and reason:"
    yield ""
    yield "| RJ | when |"
    yield "|---|---|"
    yield from (f"| {', '.join(map(str, why.value))} | {when} |" for why, when in _REJECTIONS.items())
    yield ""
    yield "Aborted: a peer that breaks PS3.8 or PS3.7, and one that is silent or slow beyond the timers of 2.4. An instance"
    yield "that was not received whole is never kept."


def _initiation(settings: Settings) -> Iterator[str]:
    yield "#### 2.2.6 Association initiation"
    yield ""
    if settings.commitment.enabled:
        yield "Only for reports of storage commitment; see 2.3."
    else:
        yield "None."


def _configuration(settings: Settings) -> Iterator[str]:
    receiver = settings.receiver
    yield "### 2.4 Configuration"
    yield ""
    yield f"`{receiver.ae_title}` listens on {receiver.host}, port {receiver.port}, TCP/IP. What peers can notice:"
    yield ""
    yield "| setting | value | meaning |"
    yield "|---|---|---|"
    values = settings.model_dump(mode="json")
    for key, field in settings_fields().items():
        section, _, name = key.partition(".")
        if section in _TABLES:
            yield f"| `{key}` | {_words(values[section][name], unit_of(field))} | {field.description} |"


def _words(value: object, unit: str) -> str:
    if isinstance(value, list):
        return _joined(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{number} {unit}".strip() or "none"


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def _rest(settings: Settings) -> Iterator[str]:
    yield "## 3. Media interchange"
    yield ""
    yield "None."
    yield ""
    yield "## 4. Character sets"
    yield ""
    yield "All: text is kept as the bytes that came, and never converted."
    yield ""
    yield "## 5. Security"
    yield ""
    secure = [name for name, listener in settings.listeners.items() if listener.certificate_file]
    if secure:
        yield f"TLS by the BCP 195 profile (PS3.15 B.12) on {len(secure)} of {len(settings.listeners) + bool(settings.receiver.host)}"
        yield "addresses; on others DICOM goes over TCP, neither encrypted nor authenticated. No attribute confidentiality"
    else:
        yield "DICOM goes over TCP without TLS: it is neither encrypted nor authenticated here. No attribute confidentiality"
    yield "profile is applied, and no digital signature is made, checked or broken: signed instances are stored as received."
