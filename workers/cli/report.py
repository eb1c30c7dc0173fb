"""A day's reconciliation by source: what came, what became of it, who was silent."""

import csv
import datetime as dt
import io
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import click
import msgspec

from ingest.contract.command_columns import aligned
from ingest.contract.command_folder import warn_of_no_data
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.monitoring.sources import OTHER, Sources
from ingest.contract.settings import Settings
from workers.cli.backlog import Completed
from workers.cli.ledger_book import clear_ledger_failures, opened_ledger
from workers.cli.opened import print_json
from workers.cli.report_page import page_of
from workers.cli.waiting import waiting_uploads
from workers.ledger.day import Day, SourceDay, Waiting, read_day

_COUNTS = SourceDay.__struct_fields__
# Times are nanoseconds since 1970 in 64 bits, which end in 2262.
_FIRST, _LAST = dt.date(1970, 1, 1), dt.date(2261, 12, 31)


@click.command()
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), metavar="D", help="As 2026-11-28.  [default: yesterday]"
)
@click.option("--source", metavar="S", help=f"Only this one, a name of the settings or {OTHER}.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a line for each source, for spreadsheets.")
@click.option("--html", "as_html", is_flag=True, help="Print one page with plots, which needs no other file.")
@data_settings
@json_option
def report(
    settings: Settings,
    *,
    day: dt.datetime | None,
    source: str | None,
    as_csv: bool,
    as_html: bool,
    as_json: bool,
) -> None:
    """A day's reconciliation by source: what came, what became of it, who was silent.

    A day is one of ledger.time_zone, and an instance of the day on which it was received, whatever became of it since.
    """
    if as_csv + as_html + as_json > 1:
        raise click.UsageError("one of --csv, --html and --json")
    if source is not None and source != OTHER and source not in settings.sources:
        known = ", ".join([*settings.sources, OTHER])
        raise click.BadParameter(
            f"no source of the settings is called so; known: {known}", param_hint="--source"
        )
    if day is not None and not _FIRST <= day.date() <= _LAST:
        raise click.BadParameter(f"a day from {_FIRST} to {_LAST}", param_hint="--day")
    wanted = day.date() if day is not None else _yesterday(settings)
    if warn_of_no_data(settings):  # a ledger is not begun for a question
        raise click.exceptions.Exit(1)
    with clear_ledger_failures(settings):
        waiting = _waiting(settings)  # first: what is placed from now on is in the log below
        with opened_ledger(settings) as ledger:
            found = read_day(ledger, settings, wanted, waiting, source)
    if as_json:
        print_json(found)
    elif as_csv:
        click.echo(_csv(found), nl=False)
    elif as_html:
        click.echo(page_of(found))
    else:
        click.echo("\n".join(_lines(found)))


def _yesterday(settings: Settings) -> dt.date:
    zone = ZoneInfo(settings.ledger.time_zone) if settings.ledger.time_zone else None
    return dt.datetime.now(dt.UTC).astimezone(zone).date() - dt.timedelta(days=1)


def _waiting(settings: Settings) -> list[Waiting]:
    sources = Sources(settings)

    def source_of(upload: Completed) -> str:
        return OTHER if upload.instance is None else sources.of(upload.instance.calling_ae_title)

    return [
        Waiting(upload.upload_id.hex(), source_of(upload), upload.received_at, upload.size)
        for upload in waiting_uploads(settings)
    ]


def _csv(found: Day) -> str:
    output = io.StringIO()
    writer = csv.DictWriter(output, ["day", *_COUNTS], lineterminator="\n")
    writer.writeheader()
    for one in found.sources:
        row = msgspec.structs.asdict(one)
        # A spreadsheet takes what begins with a sign for a formula; source names may begin with a dash.
        row["source"] = f"'{one.source}" if one.source[:1] in "-+=@" else one.source
        writer.writerow({"day": found.day, **row, "silent": "yes" if one.silent else "no"})
    return output.getvalue()


def _lines(found: Day) -> Iterator[str]:
    """The report for people."""
    yield f"{found.day}, from {found.begin} to {found.end}"
    if not found.sources:
        yield "nothing was received"
    else:
        headings = [name.replace("_", " ") for name in _COUNTS if name != "silent"]
        rows = [[str(getattr(one, name)) for name in _COUNTS if name != "silent"] for one in found.sources]
        yield ""
        yield from aligned([headings, *rows])
    for name in found.silent_sources:
        yield f"silent: {name} was expected, and nothing came"
    if any(one.source == OTHER for one in found.sources):
        yield f"{OTHER}: all senders whose AE title no table [sources.NAME] of the settings has"
    if found.exceptions:
        yield "\nset apart"
        yield from aligned(
            [[one.source, one.place, one.reason, str(one.instances)] for one in found.exceptions]
        )
    if found.unidentified:
        yield "\npatient-unidentified: without Patient ID, name or accession number"
        yield from aligned(
            [
                [one.source, one.study_instance_uid or "(no study)", str(one.instances)]
                for one in found.unidentified
            ]
        )
    if found.alarms:
        yield "\nalarms"
        yield from aligned([[one.source, one.alarm, one.uid] for one in found.alarms])
