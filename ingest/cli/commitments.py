"""List storage commitment transactions, show one, retry or expire its report."""

import json
import re
import time
from contextlib import closing
from typing import Final

import click

from ingest.cli.commitment_view import View, opened_view
from ingest.commitment.transaction import Transaction
from ingest.commitment.transactions import State
from ingest.contract.audit.events import commitment_given_up
from ingest.contract.command_audit import audit_now
from ingest.contract.command_columns import aligned
from ingest.contract.command_failures import clear_failures
from ingest.contract.command_folder import refuse_other_user, warn_of_no_data
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.settings import Settings
from ingest.log.commitment_log import Request

_ID: Final = re.compile(r"[0-9a-f]{4,32}\Z")
_HEADINGS: Final = ("transaction", "state", "source", "AE title", "instances", "age", "tries", "problem")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def _prefix(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _ID.match(value):
        raise click.BadParameter(
            "the first 4 to 32 hex digits of a transaction, as `commitments list` prints them"
        )
    return value


_id_argument = click.argument("transaction", callback=_prefix)


@click.group()
def commitments() -> None:
    """List storage commitment transactions, show one, retry or expire its report.

    All from the log, so it is true whether the receiver runs or not; what is asked for waits for it.
    """


@commitments.command("list")
@data_settings
@json_option
def list_transactions(settings: Settings, *, as_json: bool) -> None:
    """List the transactions that are not closed, the oldest first."""
    warn_of_no_data(settings)
    with clear_failures(settings), closing(opened_view(settings)) as view:
        facts = [_facts(view, one) for one in sorted(view.transactions, key=lambda one: one.accepted_at)]
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    elif facts:
        click.echo("\n".join(aligned([_HEADINGS, *map(_row, facts)])))
    else:
        click.echo("no open transactions")


@commitments.command()
@_id_argument
@data_settings
@json_option
def show(settings: Settings, *, transaction: str, as_json: bool) -> None:
    """Show one transaction and what is known of each of its instances so far."""
    with clear_failures(settings), closing(opened_view(settings)) as view:
        found = _one(view, transaction)
        facts = _facts(view, found)
        items = [
            {
                "sop_class_uid": item.sop_class_uid,
                "sop_instance_uid": item.sop_instance_uid,
                "finding": item.finding.name.lower().replace("_", " "),
            }
            for item in view.items(found)
        ]
    if as_json:
        click.echo(json.dumps({**facts, "items": items}, indent=2))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {'-' if value is None else value}")
    for item in items:
        click.echo(f"{item['finding']:<15}  {item['sop_instance_uid']}")


@commitments.command()
@_id_argument
@data_settings
def retry(settings: Settings, *, transaction: str) -> None:
    """Have the report of a decided transaction sent again now, and as long again as the first time."""
    refuse_other_user(settings)
    with clear_failures(settings), closing(opened_view(settings)) as view:
        found = _one(view, transaction)
        if found.decided is None:
            raise click.ClickException("it is not decided yet, so that there is no report to send")
        view.request(found.id, Request.RETRY)
    click.echo(f"{found.id.hex()}: the report will be sent again")


@commitments.command()
@_id_argument
@data_settings
@click.option("--yes", is_flag=True, help="Do not ask.")
def expire(settings: Settings, *, transaction: str, yes: bool) -> None:
    """Give a transaction up: its report is never sent, and its UID is used up."""
    refuse_other_user(settings)
    with clear_failures(settings), closing(opened_view(settings)) as view:
        found = _one(view, transaction)
        if not yes:
            click.confirm(f"Give {found.id.hex()} up, so that its peer never hears of it?", abort=True)
        view.request(found.id, Request.EXPIRE)
        if found.accepted is not None:
            audit_now(settings, commitment_given_up(found.accepted))
    click.echo(f"{found.id.hex()}: given up")


def _one(view: View, prefix: str) -> Transaction:
    found = [one for one in view.transactions if one.id.hex().startswith(prefix)]
    if len(found) != 1:
        raise click.ClickException(f"{len(found)} open transactions begin with {prefix}")
    return found[0]


def _facts(view: View, transaction: Transaction) -> dict[str, object]:
    accepted, attempted = transaction.accepted, transaction.attempted
    assert accepted is not None
    state = view.transactions.state_of(transaction)
    waits = state is State.RETRYING
    return {
        "transaction": transaction.id.hex(),
        "transaction_uid": accepted.transaction_uid,
        "state": str(state),
        "source": accepted.source or None,
        "calling_ae_title": accepted.calling_ae_title,
        "called_ae_title": accepted.called_ae_title,
        "instances": accepted.references,
        "age_seconds": _ago(accepted.accepted_at),
        "rounds": transaction.round + 1,
        "absent": transaction.absent,
        "unavailable": transaction.unavailable,
        "decided_seconds_ago": _ago(transaction.decided.decided_at) if transaction.decided else None,
        "attempts": attempted.attempts if attempted else 0,
        "problem": attempted.problem if attempted else None,
        "next_attempt_in_seconds": max(0, round(transaction.next_attempt - view.now)) if waits else None,
        "requested": view.requested(transaction.id),
    }


def _ago(stamp: int) -> int:
    """Seconds; a clock that was set back since makes it no less than 0."""
    return max(0, round((time.time_ns() - stamp) / 1e9))


def _row(facts: dict[str, object]) -> tuple[str, ...]:
    age = facts["age_seconds"]
    assert isinstance(age, int)
    return (
        str(facts["transaction"])[:12],
        f"{facts['state']} ({facts['requested']})" if facts["requested"] else str(facts["state"]),
        str(facts["source"] or "-"),
        str(facts["calling_ae_title"]),
        str(facts["instances"]),
        _duration(age),
        str(facts["attempts"]),
        str(facts["problem"] or "-"),
    )


def _duration(seconds: int) -> str:
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min" if seconds >= _MINUTE else f"{seconds} s"
    return f"{seconds // _HOUR} h" if seconds < _DAY else f"{seconds // _DAY} d"
