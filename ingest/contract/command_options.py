"""What every command shares: the options that load the settings, and the exit codes.

Exit codes: 0 success, 1 failure, 2 wrong usage or settings, as click has them.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypedDict, TypeVar

import click

from ingest.contract.settings_base import host_and_port
from ingest.contract.settings_sources import CONFIG_VARIABLE, LoadedSettings, WrongSettings, load_settings
from ingest.contract.telemetry import configure_command

R = TypeVar("R")

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


def host_port(value: str | tuple[str, int]) -> tuple[str, int]:
    """HOST:PORT as host and port; an IPv6 address stands in brackets.

    Raises:
        click.BadParameter: it is not.
    """
    if isinstance(value, tuple):
        return value
    try:
        return host_and_port(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    metavar="FILE",
    help="TOML file of settings. Default: ./dicom-ingest.toml or ~/.config/dicom-ingest/config.toml, if there.",
)
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Data folder: spool, checkpoints, lanes and the default store.",
)
listen_option = click.option("--listen", type=host_port, metavar="HOST:PORT", help="Address to listen on.")
ae_title_option = click.option("--ae-title", metavar="NAME", help="Called AE title to answer to.")
workers_option = click.option(
    "--workers", type=click.IntRange(min=0), metavar="N", help="Worker processes; 0 means one a core."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def serve_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the flags of `serve` that are settings: ``--data --listen --ae-title --workers``."""
    return data_option(listen_option(ae_title_option(workers_option(command))))


class ServeFlags(TypedDict):
    """What `serve_options` hands to a command; None was not given."""

    data: Path | None
    listen: tuple[str, int] | None
    ae_title: str | None
    workers: int | None


def serve_flags(flags: ServeFlags) -> dict[str, object]:
    """These flags as settings by dotted key."""
    host, port = flags["listen"] or (None, None)
    return {
        "data": flags["data"],
        "receiver.host": host,
        "receiver.port": port,
        "receiver.ae_title": flags["ae_title"],
        "worker.processes": flags["workers"],
    }


def given_flags(flags: Mapping[str, object]) -> dict[str, object]:
    """Those that were given."""
    return {key: value for key, value in flags.items() if value is not None}


def settings_or_exit(config: Path | None, flags: Mapping[str, object]) -> LoadedSettings:
    """Load the settings, or say in one line each what is wrong with them and exit with 2.

    Raises:
        click.exceptions.Exit: exit code 2: they are wrong.
    """
    try:
        return load_settings(config, given_flags(flags))
    except WrongSettings as error:
        for problem in error.problems:
            click.echo(f"dicom-ingest: {problem}", err=True)
        raise click.exceptions.Exit(EXIT_USAGE) from None


def data_settings(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command ``--config`` and ``--data``, and the loaded settings as its first argument."""

    @config_option
    @data_option
    @functools.wraps(command)
    def with_settings(config: Path | None, data: Path | None, **parameters: object) -> R:
        settings = settings_or_exit(config, {"data": data}).settings
        configure_command(settings.telemetry)
        return command(settings, **parameters)

    return with_settings
