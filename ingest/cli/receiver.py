"""Run the receiver alone: associations in, instances into the log."""

import asyncio
from pathlib import Path

import click
import uvloop

from ingest.contract.command_failures import clear_failures
from ingest.contract.command_options import (
    ServeFlags,
    ae_title_option,
    config_option,
    data_option,
    listen_option,
    serve_flags,
    settings_or_exit,
)
from ingest.contract.supervision import die_with, supervisor_option
from ingest.contract.telemetry import configure_telemetry
from ingest.receiver import run_receiver


@click.command()
@config_option
@data_option
@listen_option
@ae_title_option
@supervisor_option
def receiver(
    config: Path | None,
    data: Path | None,
    listen: tuple[str, int] | None,
    ae_title: str | None,
    supervisor: int | None,
) -> None:
    """Run the receiver alone: associations in, instances into the log.

    It acknowledges an instance when the log holds it durably. Workers may run or not; `serve` starts both.
    """
    die_with(supervisor)
    settings = settings_or_exit(
        config, serve_flags(ServeFlags(data=data, listen=listen, ae_title=ae_title, workers=None))
    ).settings
    configure_telemetry(settings.telemetry, "receiver")
    with clear_failures(settings), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(run_receiver(settings))
    raise SystemExit(code)
