"""Run the receiver alone: associations in, instances into the log."""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click
import uvloop

from ingest.contract.command_failures import clear_failures
from ingest.contract.command_options import (
    ServeFlags,
    ae_title_option,
    config_option,
    data_option,
    given_flags,
    listen_option,
    serve_flags,
    settings_or_exit,
)
from ingest.contract.settings import Settings
from ingest.contract.settings_sources import load_settings
from ingest.contract.supervision import die_with, end_when_hung, supervisor_option
from ingest.contract.telemetry import configure_telemetry
from ingest.contract.uncaught import report_uncaught
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
    flags = serve_flags(ServeFlags(data=data, listen=listen, ae_title=ae_title, workers=None))
    settings = settings_or_exit(config, flags).settings
    configure_telemetry(settings.telemetry, "receiver")
    with clear_failures(settings), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report_uncaught(runner.get_loop())
        end_when_hung(supervisor, runner.get_loop(), settings.admin.liveness_limit)
        code = runner.run(run_receiver(settings, partial(_load, config, flags)))
    raise SystemExit(code)


def _load(config: Path | None, flags: Mapping[str, object]) -> Settings:
    return load_settings(config, given_flags(flags)).settings
