"""What an administrator decides by a command, for the audit trail."""

import click

from ingest.contract.audit.message import Message
from ingest.contract.audit.trail import record_now
from ingest.contract.settings import Settings


def audit_now(settings: Settings, message: Message) -> None:
    """Write it, after the deed: the deed has a record of its own, and must not fail for want of this one."""
    try:
        record_now(settings, [message])
    except OSError as error:
        click.echo(f"warning: not in the audit trail: {error.strerror}", err=True)
