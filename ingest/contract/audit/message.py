"""An audit message and its XML, by the schema of PS3.15 A.5.1."""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple
from xml.etree import ElementTree as ET

from ingest.contract.audit.codes import Code

_LONGEST: Final = 256  # characters of a text; none of ours is near
_APPLICATION_SERVER: Final = "4"  # A.5.1.2.1
_IP_ADDRESS: Final = "2"  # A.5.1.1, NetworkAccessPointTypeCode


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(IntEnum):
    """EventOutcomeIndicator."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


class Participant(NamedTuple):
    """Who took part (ActiveParticipant)."""

    user_id: str
    role: Code | None = None
    alternative_id: str = ""
    requestor: bool = False
    address: str = ""  # IP address


class Kind(NamedTuple):
    """What an object is: ParticipantObjectTypeCode and its role (A.5.1.2.2)."""

    type_code: str
    role: str


PATIENT_KIND: Final = Kind("1", "1")
STUDY_KIND: Final = Kind("2", "3")
JOB_KIND: Final = Kind("2", "20")
NODE_KIND: Final = Kind("2", "13")  # security resource


class Object(NamedTuple):
    """What it was about (ParticipantObjectIdentification)."""

    id: str
    id_type: Code
    kind: Kind
    name: str
    details: Sequence[tuple[str, str]] = ()
    instances: Mapping[str, int] = {}  # number by SOP Class UID
    instance_uids: Mapping[str, Sequence[str]] = {}  # SOP Instance UIDs by SOP Class UID, where they are few


@dataclass(frozen=True)
class Message:
    """One event."""

    event: Code
    action: Action
    participants: Sequence[Participant]  # at least one
    types: Sequence[Code] = ()
    outcome: Outcome = Outcome.SUCCESS
    description: str = ""  # of the outcome
    objects: Sequence[Object] = ()
    at: float = field(default_factory=time.time)  # seconds since 1970-01-01 UTC


class AuditSource(NamedTuple):
    """Who reports (AuditSourceIdentification)."""

    id: str
    enterprise_site: str = ""


def encode(message: Message, source: AuditSource) -> bytes:
    """The message as UTF-8 XML on one line."""
    root = ET.Element("AuditMessage")
    event = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=timestamp(message.at),
        EventOutcomeIndicator=str(int(message.outcome)),
    )
    _code(event, "EventID", message.event)
    for code in message.types:
        _code(event, "EventTypeCode", code)
    if message.description:
        ET.SubElement(event, "EventOutcomeDescription").text = _clean(message.description)
    for participant in message.participants:
        _participant(root, participant)
    site = {"AuditEnterpriseSiteID": _clean(source.enterprise_site)} if source.enterprise_site else {}
    identified = ET.SubElement(root, "AuditSourceIdentification", site, AuditSourceID=_clean(source.id))
    ET.SubElement(identified, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for thing in message.objects:
        _object(root, thing)
    return ET.tostring(root, encoding="unicode").encode()


def timestamp(at: float) -> str:
    """A time as XML Schema and RFC 5424 both have it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _participant(root: ET.Element, participant: Participant) -> None:
    attributes = {
        "UserID": _clean(participant.user_id) or "unknown",
        "UserIsRequestor": "true" if participant.requestor else "false",
    }
    if participant.alternative_id:
        attributes["AlternativeUserID"] = _clean(participant.alternative_id)
    if participant.address:
        attributes |= {
            "NetworkAccessPointID": _clean(participant.address),
            "NetworkAccessPointTypeCode": _IP_ADDRESS,
        }
    element = ET.SubElement(root, "ActiveParticipant", attributes)
    if participant.role is not None:
        _code(element, "RoleIDCode", participant.role)


def _object(root: ET.Element, thing: Object) -> None:
    element = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(thing.id),
        ParticipantObjectTypeCode=thing.kind.type_code,
        ParticipantObjectTypeCodeRole=thing.kind.role,
    )
    _code(element, "ParticipantObjectIDTypeCode", thing.id_type)
    ET.SubElement(element, "ParticipantObjectName").text = _clean(thing.name)
    for kind, value in thing.details:
        encoded = base64.b64encode(value.encode()).decode()
        ET.SubElement(element, "ParticipantObjectDetail", type=kind, value=encoded)
    if thing.instances:
        described = ET.SubElement(element, "ParticipantObjectDescription")
        for sop_class, number in thing.instances.items():
            uids = thing.instance_uids.get(sop_class, ())
            _sop_class(described, sop_class, number, uids)


def _sop_class(described: ET.Element, uid: str, number: int, instances: Sequence[str]) -> None:
    attributes = {"UID": _clean(uid)} if uid else {}
    element = ET.SubElement(described, "SOPClass", attributes, NumberOfInstances=str(number))
    for instance in instances:
        ET.SubElement(element, "Instance", UID=_clean(instance))


def _code(parent: ET.Element, tag: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "originalText": code.meaning, "codeSystemName": code.system}
    ET.SubElement(parent, tag, attributes)


def _clean(text: str) -> str:
    """One line that XML 1.0 can hold: what cannot be printed is escaped."""
    safe = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return safe[:_LONGEST]
