"""Run one worker alone: the given partitions of the log into the store."""

import asyncio
from pathlib import Path

import click
import uvloop

from ingest.contract.allocator import keep_freed_memory
from ingest.contract.command_failures import clear_failures
from ingest.contract.command_options import config_option, data_option, settings_or_exit
from ingest.contract.settings import Settings
from ingest.contract.supervision import die_with, end_when_hung, supervisor_option
from ingest.contract.telemetry import configure_telemetry
from ingest.contract.uncaught import report_uncaught
from workers.errors import Unavailable
from workers.process import run_worker
from workers.storage.in_flight import leave_behind
from workers.storage.shard_map import WrongStores
from workers.threads import take_short_turns


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

    A partition of the spool has one worker at a time, which a lock ensures; `serve` shares them out.
    """
    die_with(supervisor)
    keep_freed_memory()
    take_short_turns()
    settings = settings_or_exit(config, {"data": data}).settings
    grouped = settings.log.kind == "kafka"
    if grouped and partitions != "all":
        raise click.BadParameter("with log.kind = kafka the consumer group shares the partitions out")
    owned = partitions_of(partitions, settings.log.partitions)
    configure_telemetry(settings.telemetry, "worker" if grouped else f"worker-{owned[0]}")
    with clear_failures(settings):
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report_uncaught(runner.get_loop())
                end_when_hung(supervisor, runner.get_loop(), settings.admin.liveness_limit)
                code = runner.run(_run_in_group(settings) if grouped else run_worker(settings, owned))
                leave_behind(code)
        except (WrongStores, Unavailable) as error:
            raise click.ClickException(str(error)) from None
    raise SystemExit(code)


async def _run_in_group(settings: Settings) -> int:
    # The client is an extra that one machine does not need.
    from workers.grouped_process import run_grouped_worker  # noqa: PLC0415

    return await run_grouped_worker(settings)


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
