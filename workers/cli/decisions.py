"""What an administrator decides of an entry or a conflict, for the audit trail."""

from ingest.contract.audit.codes import Code
from ingest.contract.audit.events import Decision, decided
from ingest.contract.audit.message import Action
from ingest.contract.command_audit import audit_now
from ingest.contract.settings import Settings
from workers.storage.manifest import Manifest


def audit_decision(
    settings: Settings,
    what: Code,
    action: Action,
    manifest: Manifest | None,
    *,
    reason: str,
    outcome: str = "",
) -> None:
    """See `audit_now`; without a manifest it stays unknown whose data it is."""
    decision = Decision(
        what,
        action,
        reason,
        manifest.study_instance_uid if manifest else "",
        manifest.sop_class_uid if manifest else "",
        manifest.sop_instance_uid if manifest else "",
        manifest.source_digest if manifest else "",
        outcome,
    )
    audit_now(settings, decided(decision))
