"""Audit messages are those of PS3.15 A.5: schema, codes, and what each event must have."""

import dataclasses
import re
from typing import Any

import pytest

from ingest.contract.audit import codes, events
from ingest.contract.audit.events import Decision, Transfer
from ingest.contract.audit.message import Action, AuditSource, Message, encode
from ingest.contract.audit.syslog import syslog_line
from ingest.contract.commitments import CommitAccepted, CommitClosed
from ingest.contract.records import Place
from tests.support.audit_schema import EVENT_IDS, check_message, details
from tests.support.audit_trail import parsed

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
SOURCE = AuditSource("archive-1", 'Ward <7> & "co"')
ACCEPTED = CommitAccepted("2.25.9", "CONSOLE", "DICOM-INGEST", "", 7, b"", 1, 1, 1, 0.0, 0)
DISCARD = Decision(codes.QUARANTINE_DISCARD, Action.DELETE, "not <ours>\n", "1.2.3", CT, "1.2.4", "ab" * 32)


def transfer(place: Place = Place.STORED, **changes: Any) -> Transfer:
    return Transfer("MODALITY", "DICOM-INGEST", "10.1.2.3", "1.2.3", "", place, "")._replace(**changes)


ALL = {
    "start": events.application("receiver", started=True),
    "stop": events.application("worker-0", started=False, description="OSError"),
    **{
        str(place): events.transferred(transfer(place, reason="truncated"), {CT: 3, MR: 1}, 0.0)
        for place in Place
    },
    "unknown study": events.transferred(transfer(study_instance_uid=""), {CT: 1}, 1e9),
    "patient": events.transferred(transfer(patient_id="Öztürk-4711"), {CT: 1}, 1e9),
    "refused": events.refused("SCANNER", "ARCHIVE", "10.9.9.9", "association refused: calling-ae-title"),
    "refused handshake": events.refused("", "", "::1", "TLS handshake failed: no certificate"),
    "hostile": events.refused("A\x1b[2J\0\n<x>", "B\ud800", "10.9.9.9", "why\r\n\x00"),
    "settings": events.settings_changed("receiver", ["sources.ct1"]),
    "settings refused": events.settings_changed("receiver", [], "settings refused"),
    "committed": events.commitment_reported(ACCEPTED, CommitClosed("reported", 7, 0, 0)),
    "commitment failed": events.commitment_reported(ACCEPTED, CommitClosed("reported", 4, 3, 0)),
    "given up": events.commitment_given_up(ACCEPTED),
    "decided": events.decided(DISCARD),
    "decided of nothing known": events.decided(dataclasses.replace(DISCARD, sop_class_uid="", sop_instance_uid="")),
}  # fmt: skip


@pytest.mark.parametrize("message", ALL.values(), ids=list(ALL))
def test_schema(message: Message) -> None:
    """Order and number of elements, attributes and values of A.5.1; one line; an event of CID 400."""
    parsed(syslog_line(message, SOURCE))
    text = encode(message, SOURCE)
    assert not re.search(rb"[\x00-\x1f]", text)
    source = check_message(text).find("AuditSourceIdentification")
    assert source is not None
    assert source.attrib == {"AuditSourceID": "archive-1", "AuditEnterpriseSiteID": 'Ward <7> & "co"'}


def test_the_check_of_the_schema_can_fail() -> None:
    """A message with a child out of order, one without an attribute, and one with an unknown value."""
    good = encode(ALL["stored"], SOURCE)
    check_message(good)
    for old, new in (
        (b' EventOutcomeIndicator="0"', b""),
        (b'EventActionCode="C"', b'EventActionCode="X"'),
        (b"<ParticipantObjectName>study</ParticipantObjectName>", b""),
        (b'csd-code="110104"', b'csd-code="110105"'),
        (b"</AuditSourceIdentification>", b"</AuditSourceIdentification><EventIdentification />"),
    ):
        assert old in good
        with pytest.raises(AssertionError):
            check_message(good.replace(old, new, 1))


def test_codes_are_those_of_the_standard() -> None:
    """Every event that we name is of CID 400, with its meaning."""
    ours = [
        codes.APPLICATION_ACTIVITY,
        codes.INSTANCES_ACCESSED,
        codes.INSTANCES_TRANSFERRED,
        codes.SECURITY_ALERT,
    ]
    assert all(EVENT_IDS[code.value] == code.meaning for code in ours)
    for code in vars(codes).values():
        if isinstance(code, codes.Code):
            assert (code.system == "DCM") == code.value.startswith("110")


@pytest.mark.parametrize(
    ("place", "action", "outcome"),
    [(Place.STORED, "C", "0"), (Place.DUPLICATE, "R", "0"), (Place.CONFLICT, "C", "4"), (Place.QUARANTINED, "C", "4")],
)  # fmt: skip
def test_instances_transferred(place: Place, action: str, outcome: str) -> None:
    """A.5.3.7: C for what was not held, R for what was, unchanged; source, destination, study with its numbers, patient."""
    message = check_message(encode(events.transferred(transfer(place), {CT: 3, MR: 1}, 5.0), SOURCE))
    event = message.find("EventIdentification")
    assert event is not None
    assert (event.attrib["EventActionCode"], event.attrib["EventOutcomeIndicator"]) == (action, outcome)
    assert event.attrib["EventDateTime"] == "1970-01-01T00:00:05.000Z"
    source, destination = message.findall("ActiveParticipant")
    assert source.find("RoleIDCode").attrib["csd-code"] == "110153"  # type: ignore[union-attr]
    assert (source.attrib["NetworkAccessPointID"], source.attrib["UserIsRequestor"]) == ("10.1.2.3", "true")
    assert source.attrib["AlternativeUserID"] == "AETITLES=MODALITY"
    assert destination.find("RoleIDCode").attrib["csd-code"] == "110152"  # type: ignore[union-attr]
    study, patient = message.findall("ParticipantObjectIdentification")
    assert study.attrib["ParticipantObjectID"] == "1.2.3"
    classes = {one.attrib["UID"]: one.attrib["NumberOfInstances"] for one in study.iter("SOPClass")}
    assert classes == {CT: "3", MR: "1"}
    assert patient.attrib["ParticipantObjectID"] == "withheld"


def test_a_decision_has_who_and_why() -> None:
    """The user of the process is the requestor; the reason is whole."""
    message = check_message(encode(events.decided(DISCARD), SOURCE))
    assert [one.attrib["UserIsRequestor"] for one in message.iter("ActiveParticipant")] == ["true"]
    assert details(message) == {"reason": "not <ours>\n", "source-digest": "ab" * 32}
    assert [one.attrib["UID"] for one in message.iter("Instance")] == ["1.2.4"]
