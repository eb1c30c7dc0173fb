"""Run one worker alone: the given partitions of the log into the store."""

import asyncio
from pathlib import Path

import click

from ingest.contract.command_failures import clear_failures
from ingest.contract.command_options import config_option, data_option, settings_or_exit
from ingest.contract.supervision import die_with, supervisor_option
from ingest.contract.telemetry import configure_telemetry
from workers.process import run_worker
from workers.storage.shard_map import WrongStores


@click.command()
@config_option
@data_option
@click.option(
    "--partitions",
    default="all",
    show_default=True,
    metavar="LIST",
    help="Partitions of the log that this worker owns, as 0,4,8, or all.",
)
@supervisor_option
def worker(config: Path | None, data: Path | None, partitions: str, supervisor: int | None) -> None:
    """Run one worker alone: the given partitions of the log into the store.

    A partition has one worker at a time, which a lock ensures; `serve` shares them out.
    """
    die_with(supervisor)
    settings = settings_or_exit(config, {"data": data}).settings
    owned = partitions_of(partitions, settings.log.partitions)
    configure_telemetry(settings.telemetry, f"worker-{owned[0]}")
    with clear_failures(settings):
        try:
            code = asyncio.run(run_worker(settings, owned))
        except WrongStores as error:
            raise click.ClickException(str(error)) from None
    raise SystemExit(code)


def partitions_of(text: str, count: int) -> tuple[int, ...]:
    """The partitions that ``text`` names, of ``count`` there are.

    Raises:
        click.BadParameter: not a list of their numbers.
    """
    if text == "all":
        return tuple(range(count))
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) < count for part in parts):
        raise click.BadParameter(f"{text!r}; allowed: all, or numbers from 0 to {count - 1} with commas")
    return tuple(sorted({int(part) for part in parts}))
