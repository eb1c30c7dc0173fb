"""What happens here as audit messages of PS3.15 A.5.3.

The standard has no event for storage commitment nor for decisions about quarantine and conflicts: they are DICOM
Instances Accessed (A.5.3.2) with an event type of ours, as A.5 lets extensions be.
"""

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ingest.contract.audit import codes
from ingest.contract.audit.codes import Code
from ingest.contract.audit.message import (
    JOB_KIND,
    NODE_KIND,
    PATIENT_KIND,
    STUDY_KIND,
    Action,
    Message,
    Object,
    Outcome,
    Participant,
)
from ingest.contract.commitments import CommitAccepted, CommitClosed
from ingest.contract.records import Place
from ingest.contract.refusals import shown

UNKNOWN_STUDY: Final = "unknown"  # a data set that cannot be read that far
WITHHELD: Final = "withheld"  # audit.patient_id is off

_ACTIONS: Final = {
    Place.STORED: Action.CREATE,  # A.5.3.7: the receiver did not hold the instances
    Place.DUPLICATE: Action.READ,  # it did, and nothing has changed
    Place.CONFLICT: Action.CREATE,
    Place.QUARANTINED: Action.CREATE,
}


class Transfer(NamedTuple):
    """Instances that are told of in one message: from one peer, of one study, with one fate."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    study_instance_uid: str  # empty: unknown
    patient_id: str  # empty: withheld, or none
    place: Place
    reason: str


@dataclass(frozen=True)
class Decision:
    """What an administrator has decided of an instance."""

    what: Code
    action: Action
    reason: str  # the administrator's
    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    source_digest: str
    outcome: str = ""  # what became of it


def application(name: str, *, started: bool, description: str = "") -> Message:
    """Application Activity (A.5.3.1)."""
    return Message(
        codes.APPLICATION_ACTIVITY,
        Action.EXECUTE,
        (_process(name, codes.APPLICATION), _user(codes.APPLICATION_LAUNCHER)),
        (codes.APPLICATION_START if started else codes.APPLICATION_STOP,),
        Outcome.MINOR_FAILURE if description else Outcome.SUCCESS,
        description,
    )


def transferred(transfer: Transfer, instances: Mapping[str, int], at: float) -> Message:
    """DICOM Instances Transferred (A.5.3.7), of ``instances`` by SOP Class UID."""
    kept_apart = transfer.place in (Place.CONFLICT, Place.QUARANTINED)
    where = "conflict lane" if transfer.place is Place.CONFLICT else str(transfer.place)
    return Message(
        codes.INSTANCES_TRANSFERRED,
        _ACTIONS.get(transfer.place, Action.READ),
        (
            _node(transfer.calling_ae_title, codes.SOURCE, transfer.address, requestor=True),
            _node(transfer.called_ae_title, codes.DESTINATION),
        ),
        outcome=Outcome.MINOR_FAILURE if kept_apart else Outcome.SUCCESS,
        description=f"{where}: {transfer.reason}" if kept_apart else "",
        objects=(_study(transfer.study_instance_uid, instances), _patient(transfer.patient_id)),
        at=at,
    )


def refused(calling: str, called: str, address: str, why: str) -> Message:
    """Security Alert (A.5.3.11): somebody calls and may not."""
    return Message(
        codes.SECURITY_ALERT,
        Action.EXECUTE,
        (
            _node(called or "receiver", codes.DESTINATION),
            _node(calling or address, codes.SOURCE, address, requestor=True),
        ),
        (codes.NODE_AUTHENTICATION,),
        Outcome.SERIOUS_FAILURE,
        why,
        (Object(address or "unknown", codes.NODE, NODE_KIND, shown(calling) or "unknown"),),
    )


def settings_changed(name: str, keys: Sequence[str], problem: str = "") -> Message:
    """Security Alert, Software Configuration: settings were read again. Their keys, never their values."""
    return Message(
        codes.SECURITY_ALERT,
        Action.EXECUTE,
        (_process(name, None), _user(None)),
        (codes.SOFTWARE_CONFIGURATION,),
        Outcome.MINOR_FAILURE if problem else Outcome.SUCCESS,
        problem or f"settings taken: {', '.join(keys) or 'none has changed'}",
    )


def commitment_reported(accepted: CommitAccepted, closed: CommitClosed) -> Message:
    """What a requester was told of its instances (PS3.4 J.3.3)."""
    calling, called = accepted.calling_ae_title, accepted.called_ae_title
    committed, failed = closed.committed, closed.failed
    return _commitment(
        accepted,
        (_node(calling, codes.DESTINATION, requestor=True), _node(called, codes.SOURCE)),
        f"{failed} of {committed + failed} instances not committed" if failed else "",
        (("committed", str(committed)), ("failed", str(failed))),
    )


def commitment_given_up(accepted: CommitAccepted) -> Message:
    """An administrator has decided that a requester is never told."""
    return _commitment(
        accepted,
        (_user(None, requestor=True), _node(accepted.calling_ae_title, codes.DESTINATION)),
        "given up: the requester is never told",
        (("instances", str(accepted.references)),),
    )


def decided(decision: Decision) -> Message:
    """A decision by a command."""
    uid = decision.sop_instance_uid
    study = _study(decision.study_instance_uid, {decision.sop_class_uid: 1})
    return Message(
        codes.INSTANCES_ACCESSED,
        decision.action,
        (_user(None, requestor=True),),
        (decision.what,),
        description=decision.outcome,
        objects=(
            study._replace(
                details=(("reason", decision.reason), ("source-digest", decision.source_digest)),
                instance_uids={decision.sop_class_uid: (uid,)} if uid else {},
            ),
            _patient(""),
        ),
    )


def _commitment(
    accepted: CommitAccepted,
    participants: Sequence[Participant],
    failure: str,
    details: Sequence[tuple[str, str]],
) -> Message:
    job = Object(accepted.transaction_uid, codes.TRANSACTION, JOB_KIND, "storage commitment", details)
    return Message(
        codes.INSTANCES_ACCESSED,
        Action.READ,
        participants,
        (codes.STORAGE_COMMITMENT,),
        Outcome.MINOR_FAILURE if failure else Outcome.SUCCESS,
        failure,
        (job,),
    )


def _process(name: str, role: Code | None) -> Participant:
    return Participant(name, role, str(os.getpid()))  # A.5.2.1: the process id


def _user(role: Code | None, *, requestor: bool = False) -> Participant:
    """Whoever runs this process, and whom sudo names behind it."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # as in a container
        name = f"uid {number}"
    return Participant(name, role, os.environ.get("SUDO_USER", ""), requestor)


def _node(ae_title: str, role: Code, address: str = "", *, requestor: bool = False) -> Participant:
    title = shown(ae_title.strip(" "))
    return Participant(title, role, f"AETITLES={title}", requestor, address)  # A.5.2.2


def _study(uid: str, instances: Mapping[str, int]) -> Object:
    return Object(uid or UNKNOWN_STUDY, codes.STUDY, STUDY_KIND, "study", instances=instances)


def _patient(patient_id: str) -> Object:
    """A.5.3.7 wants one; its ID only where the settings want it, its name never."""
    return Object(patient_id or WITHHELD, codes.PATIENT, PATIENT_KIND, WITHHELD)
