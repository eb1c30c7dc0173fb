"""The schema of PS3.15 A.5.1 as tables, and a check of messages against it: order, number, attributes, values."""

import base64
import re
from collections.abc import Mapping
from typing import NamedTuple
from xml.etree import ElementTree as ET

# CID 400 of PS3.16
EVENT_IDS = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110102": "Begin Transferring DICOM Instances",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110105": "DICOM Study Deleted",
    "110106": "Export",
    "110107": "Import",
    "110108": "Network Entry",
    "110109": "Order Record",
    "110110": "Patient Record",
    "110111": "Procedure Record",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
}
ANY = re.compile(r".*\Z", re.DOTALL)
TOKEN = re.compile(r"\S(.*\S)?\Z")
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
NUMBER = re.compile(r"\d+\Z")
UID = re.compile(r"[0-9.]{1,64}\Z")
BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}\Z")


class Element(NamedTuple):
    """What an element may have: attributes (``?`` for optional ones) and children in their order, with how often."""

    attributes: Mapping[str, re.Pattern[str]] = {}
    children: tuple[tuple[str, str], ...] = ()  # name, and "" for one, "?", "*" or "+"
    text: re.Pattern[str] | None = None


def one_of(*values: str) -> re.Pattern[str]:
    return re.compile("(" + "|".join(values) + r")\Z")


CODE = Element({"csd-code": TOKEN, "codeSystemName": TOKEN, "originalText": TOKEN, "displayName?": TOKEN})
SCHEMA = {
    "AuditMessage": Element(
        children=(
            ("EventIdentification", ""),
            ("ActiveParticipant", "+"),
            ("AuditSourceIdentification", ""),
            ("ParticipantObjectIdentification", "*"),
        )
    ),
    "EventIdentification": Element(
        {
            "EventActionCode?": one_of("C", "R", "U", "D", "E"),
            "EventDateTime": DATE_TIME,
            "EventOutcomeIndicator": one_of("0", "4", "8", "12"),
        },
        (("EventID", ""), ("EventTypeCode", "*"), ("EventOutcomeDescription", "?")),
    ),
    "EventID": CODE,
    "EventTypeCode": CODE,
    "EventOutcomeDescription": Element(text=ANY),
    "ActiveParticipant": Element(
        {
            "UserID": ANY,
            "AlternativeUserID?": ANY,
            "UserName?": ANY,
            "UserIsRequestor": one_of("true", "false"),
            "NetworkAccessPointID?": TOKEN,
            "NetworkAccessPointTypeCode?": one_of("1", "2", "3", "4", "5"),
        },
        (("RoleIDCode", "*"), ("MediaIdentifier", "?")),
    ),
    "RoleIDCode": CODE,
    "AuditSourceIdentification": Element(
        {"AuditEnterpriseSiteID?": TOKEN, "AuditSourceID": TOKEN}, (("AuditSourceTypeCode", "*"),)
    ),
    "AuditSourceTypeCode": Element({"csd-code": one_of(*"123456789")}),
    "ParticipantObjectIdentification": Element(
        {
            "ParticipantObjectID": TOKEN,
            "ParticipantObjectTypeCode?": one_of(*"1234"),
            "ParticipantObjectTypeCodeRole?": one_of(*map(str, range(1, 27))),
            "ParticipantObjectDataLifeCycle?": one_of(*map(str, range(1, 16))),
            "ParticipantObjectSensitivity?": TOKEN,
        },
        (
            ("ParticipantObjectIDTypeCode", ""),
            ("ParticipantObjectName", ""),
            ("ParticipantObjectDetail", "*"),
            ("ParticipantObjectDescription", "*"),
        ),
    ),
    "ParticipantObjectIDTypeCode": CODE,
    "ParticipantObjectName": Element(text=TOKEN),
    "ParticipantObjectDetail": Element({"type": TOKEN, "value": BASE64}),
    "ParticipantObjectDescription": Element(
        children=(
            ("MPPS", "*"),
            ("Accession", "*"),
            ("SOPClass", "*"),
            ("Encrypted", "?"),
            ("Anonymized", "?"),
        )
    ),
    "SOPClass": Element({"UID?": UID, "NumberOfInstances": NUMBER}, (("Instance", "*"),)),
    "Instance": Element({"UID": UID}),
}
HOW_OFTEN = {"": (1, 1), "?": (0, 1), "*": (0, 1 << 30), "+": (1, 1 << 30)}


def check_message(text: bytes) -> ET.Element:
    """The message, if it is one.

    Raises:
        AssertionError: it is not, and why.
    """
    root = ET.fromstring(text)
    assert root.tag == "AuditMessage"
    _check(root)
    event = root.find("EventIdentification/EventID")
    assert event is not None
    assert event.get("codeSystemName") == "DCM"
    assert EVENT_IDS[event.attrib["csd-code"]] == event.get("originalText")
    requestors = [one for one in root.findall("ActiveParticipant") if one.get("UserIsRequestor") == "true"]
    assert len(requestors) <= 1  # A.5.2: several are never named
    return root


def details(message: ET.Element) -> dict[str, str]:
    """All details of the message's objects, decoded."""
    found = message.iter("ParticipantObjectDetail")
    return {one.attrib["type"]: base64.b64decode(one.attrib["value"]).decode() for one in found}


def _check(element: ET.Element) -> None:
    rules = SCHEMA[element.tag]
    known = {name.rstrip("?"): pattern for name, pattern in rules.attributes.items()}
    for name, value in element.attrib.items():
        assert name in known, f"{element.tag} has {name}"
        assert known[name].match(value), f"{element.tag} {name}={value!r}"
    for name in rules.attributes:
        assert name.endswith("?") or name in element.attrib, f"{element.tag} lacks {name}"
    assert rules.text is not None or not (element.text or "").strip(), f"{element.tag} has text"
    assert rules.text is None or rules.text.match(element.text or ""), f"{element.tag}: {element.text!r}"
    left = [child.tag for child in element]
    for name, often in rules.children:
        number = 0
        while left and left[0] == name:
            left.pop(0)
            number += 1
        least, most = HOW_OFTEN[often]
        assert least <= number <= most, f"{element.tag} has {number} {name}"
    assert not left, f"{element.tag} has {left[0]} where it may not be"
    for child in element:
        _check(child)
