"""The ledger of all instances: keep it, or make it anew from logs and stores."""

import asyncio
from pathlib import Path

import click

from ingest.contract.command_folder import refuse_other_user
from ingest.contract.command_options import config_option, data_option, data_settings, settings_or_exit
from ingest.contract.settings import Settings
from ingest.contract.supervision import die_with, end_when_hung, supervisor_option
from ingest.contract.telemetry import configure_telemetry
from ingest.contract.uncaught import report_uncaught
from workers.cli.ledger_book import clear_ledger_failures
from workers.cli.opened import opened_stores
from workers.ledger.consumer import logs_of
from workers.ledger.database import open_database
from workers.ledger.process import run_ledger
from workers.ledger.rebuild import rebuild as rebuild_ledger


@click.group()
def ledger() -> None:
    """The ledger of all instances: keep it, or make it anew from logs and stores.

    `serve` keeps it on one machine; `find`, `report` and `get --study` ask it.
    """


@ledger.command()
@config_option
@data_option
@supervisor_option
def run(config: Path | None, data: Path | None, supervisor: int | None) -> None:
    """Keep it until SIGTERM or Ctrl-C: read on as the logs of outcomes and commitments grow.

    Any number may run on one database; one is enough.
    """
    die_with(supervisor)
    settings = settings_or_exit(config, {"data": data}).settings
    configure_telemetry(settings.telemetry, "ledger")
    with clear_ledger_failures(settings), asyncio.Runner() as runner:
        report_uncaught(runner.get_loop())
        end_when_hung(supervisor, runner.get_loop(), settings.admin.liveness_limit)
        code = runner.run(run_ledger(settings))
    raise SystemExit(code)


@ledger.command()
@data_settings
def rebuild(settings: Settings) -> None:
    """Make it anew: of what the logs still hold, heads of objects, lanes and move records.

    Takes a look at every object. Others see the old ledger until the new one is whole; nothing else need be stopped.
    """
    if not settings.ledger.database:
        refuse_other_user(settings)
    with clear_ledger_failures(settings), opened_stores(settings) as stores:
        engine, logs = open_database(settings, remake=True), logs_of(settings)
        try:
            found = asyncio.run(rebuild_ledger(engine, logs, stores, settings, _show))
        finally:
            logs.close()
            engine.dispose()
    click.echo(
        f"{found.records} records of the logs, {found.objects} objects and entries of lanes, {found.moves} moves"
    )
    if found.unreadable:
        click.echo(f"{found.unreadable} have no readable manifest and are left out: see `verify`", err=True)


def _show(objects: int) -> None:
    click.echo(f"{objects} objects", err=True)
