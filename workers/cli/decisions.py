"""What an administrator decides by a command, for the audit trail."""

import click

from ingest.contract.audit.codes import Code
from ingest.contract.audit.events import Decision, decided
from ingest.contract.audit.message import Action
from ingest.contract.audit.trail import record_now
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
    """Write it, after the deed: the deed has a record of its own, and must not fail for want of this one."""
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
    try:
        record_now(settings, [decided(decision)])
    except OSError as error:
        click.echo(f"warning: not in the audit trail: {error.strerror}", err=True)
