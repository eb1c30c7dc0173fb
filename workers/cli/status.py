"""What runs, what waits, and where every received instance is."""

import contextlib
import signal
from collections.abc import Iterator

import click

from ingest.contract.command_failures import clear_failures
from ingest.contract.command_folder import warn_of_no_data
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.refusals import read_refusals
from ingest.contract.settings import Settings
from workers.cli.moves import DamagedMove
from workers.cli.opened import print_json
from workers.cli.rejected import rejected_lines
from workers.cli.status_report import Report, read_offsets, read_report
from workers.errors import Unavailable
from workers.log.commit_metadata import ForeignCommit
from workers.storage.shard_map import WrongStores


@click.command()
@data_settings
@click.option("--quick", is_flag=True, help="Leave out the store's size, which takes a look at every object.")
@click.option(
    "--rejected", is_flag=True, help="Show instead what was refused last, why, and the setting to change."
)
@click.option(
    "--offsets",
    is_flag=True,
    help="With Kafka, show instead what is counted and how many records wait, without reading those.",
)
@click.option("--watch", is_flag=True, help="Show what goes on now, until interrupted.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.2),
    default=2.0,
    show_default=True,
    help="Of --watch, in seconds.",
)
@json_option
def status(
    settings: Settings,
    *,
    quick: bool,
    rejected: bool,
    offsets: bool,
    watch: bool,
    interval: float,
    as_json: bool,
) -> None:
    """What runs, what waits, and where every received instance is.

    All from what is on disk or in Kafka, so it is true with every process down, too, and
    received = stored + duplicates + conflicts + quarantined + discarded + backlog.
    """
    warn_of_no_data(settings)
    if rejected:
        _show_rejected(settings, as_json=as_json)
        return
    if offsets:
        _show_offsets(settings, as_json=as_json)
        return
    if watch:
        _watch(settings, interval)
        return
    with clear_failures(settings):
        try:
            report = read_report(settings, quick=quick)
        except (DamagedMove, ForeignCommit, WrongStores, Unavailable) as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        print_json(report)
    else:
        click.echo("\n".join(_lines(report)))


def _show_rejected(settings: Settings, *, as_json: bool) -> None:
    with clear_failures(settings):
        refusals = read_refusals(settings.data)
    if as_json:
        print_json(refusals)
    else:
        click.echo("\n".join(rejected_lines(refusals)))


def _watch(settings: Settings, interval: float) -> None:
    # Half of what a command takes to start, for this one alone.
    from rich.console import Console  # noqa: PLC0415

    from workers.cli.watch import watch  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born ignoring it
    with clear_failures(settings), contextlib.suppress(KeyboardInterrupt):
        try:
            watch(settings, Console(), interval)
        except (DamagedMove, ForeignCommit, WrongStores, Unavailable) as error:
            raise click.ClickException(str(error)) from None


def _show_offsets(settings: Settings, *, as_json: bool) -> None:
    if settings.log.kind != "kafka":
        raise click.UsageError("--offsets is for log.kind = kafka")
    with clear_failures(settings):
        try:
            offsets = read_offsets(settings)
        except ForeignCommit as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        print_json(offsets)
        return
    click.echo(f"workers      {len(offsets.workers)} running")
    for name in ("stored", "duplicates", "conflicts", "quarantined"):
        click.echo(f"{name:<13}{getattr(offsets, name):>12}")
    click.echo(f"records waiting {sum(offsets.records_waiting.values())}, lost to retention {offsets.lost}")


def _lines(report: Report) -> Iterator[str]:
    """The report for people."""
    yield f"data         {report.data}"
    listening = report.listening
    yield "listening    " + (
        f"{listening.host}:{listening.port}, AE title {listening.ae_title}" if listening else "nobody"
    )
    yield f"workers      {len(report.workers)} running"
    yield ""
    yield f"received     {report.received:>12}"
    for name in ("stored", "duplicates", "conflicts", "quarantined", "discarded", "backlog"):
        yield f"  {name:<11}{getattr(report, name):>12}"
    if report.reasons:
        yield "\nreasons, as counted by the workers"
        yield from (f"  {reason:<40}{count:>8}" for reason, count in report.reasons.items())
    age = report.spool.oldest_age_seconds
    waits = f"; the oldest waits for {age:.1f} s" if age is not None else ""
    copies = ", single copy" if report.log.single_copy else ""
    lost = f", {report.log.lost} records lost to retention" if report.log.lost else ""
    yield f"\n{report.log.kind:<13}{report.spool.instances} instances, {report.spool.bytes / 1e6:.1f} MB{waits}{copies}{lost}"
    yield from (f"note         {note}" for note in report.notes)
    for group in report.store:
        yield f"store        {group.store} {group.shards}: {group.objects} objects, {group.bytes / 1e6:.1f} MB"
