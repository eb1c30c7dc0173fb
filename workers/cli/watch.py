"""`status --watch`: what goes on now, in a terminal, from where `status` reads and from the admin ports of this machine.

Two looks make one view: what was counted between them, by the seconds between them. What an admin port does not say, as
there is none or its process is down, is left out; what was received and where it is comes from disk or from Kafka.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ingest.contract.monitoring.exposition import PREFIX
from ingest.contract.monitoring.server import PROCESS_HEADER
from ingest.contract.refusals import Refusal, read_refusals
from ingest.contract.running import Running, running_processes
from ingest.contract.settings import Settings
from workers.cli.rejected import refusal_row
from workers.cli.status_report import Report, read_offsets, read_report

ADMIN_PATIENCE: Final = 1.0  # s, for the page of one process
_REFUSALS: Final = 3  # shown, the newest
_CLOCK: Final = len("12:34:56")
_RECEIVER: Final = "receiver"
_WORKER: Final = "worker-"
_PLACES: Final = ("received", "stored", "duplicates", "conflicts", "quarantined", "discarded", "backlog")
_ACKNOWLEDGED: Final = "acknowledged"

Row = tuple[str, ...]
_SOURCE: Final = ("source", "acknowledged", "a second", "MB/s", "mean ms", "not taken", "associations")
_WORKERS: Final = ("worker", "pid", "partitions", "a second", "MB/s", "in work", "oldest s", "codec restarts")
_OTHER_LINES: Final = 6  # the head, the places, and a head of each table
_LEAST_ROWS: Final = 2  # of either table, however low the terminal is


class Samples:
    """What one page of metrics says."""

    def __init__(self, page: str = "") -> None:
        self._values: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                self._values.setdefault(sample.name, []).append((sample.labels, sample.value))

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples of ``name``, without its prefix, that have these labels."""
        return sum(
            value for found, value in self._values.get(PREFIX + name, []) if labels.items() <= found.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """The values of one label."""
        return {found[label] for found, _ in self._values.get(PREFIX + name, []) if label in found}


class Look(NamedTuple):
    """One look at everything."""

    at: float  # s, monotonic
    counts: Mapping[str, int]
    reasons: Mapping[str, int]
    waits: str
    notes: Sequence[str]
    processes: Sequence[Running]
    pages: Mapping[str, Samples]  # by process
    refusals: Sequence[Refusal]


def watch(settings: Settings, console: Console, interval: float) -> None:
    """Show until interrupted, anew after ``interval`` seconds; where there is no terminal, one view below the other.

    Raises:
        what `read_report` raises.
    """
    before = look(settings)
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            now = look(settings)
            shown = view(before, now, console.height if console.is_terminal else None)
            if console.is_terminal:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
            before = now


def look(settings: Settings) -> Look:
    """Read everything once."""
    processes = running_processes(settings.data)
    pages = {process.name: page for process in processes if (page := _page(settings, process)) is not None}
    refusals = read_refusals(settings.data)[-_REFUSALS:]
    if settings.log.kind == "kafka":
        offsets = read_offsets(settings)
        counts = {name: int(getattr(offsets, name)) for name in _PLACES if hasattr(offsets, name)}
        waits = f"{sum(offsets.records_waiting.values())} records wait"
        return Look(time.monotonic(), counts, {}, waits, [], processes, pages, refusals)
    report = read_report(settings, quick=True)
    counts = {name: int(getattr(report, name)) for name in _PLACES}
    waits = _waits(report)
    return Look(time.monotonic(), counts, report.reasons, waits, report.notes, processes, pages, refusals)


def view(before: Look, now: Look, height: int | None = None) -> RenderableType:
    """What happened between two looks, in ``height`` lines: what may need somebody is not cut off, sources and workers are."""
    seconds = max(now.at - before.at, 1e-3)
    head = f"dicom-ingest  {datetime.now(UTC):%H:%M:%S} UTC  {now.waits}"
    exceptions = list(_exceptions(before, now))
    sources, workers = _sources(before, now, seconds), _workers(before, now, seconds)
    if height is not None:
        room = max(height - _OTHER_LINES - len(exceptions), 2 * _LEAST_ROWS)
        workers = _cut(workers, max(room - len(sources), room // 3, _LEAST_ROWS))
        sources = _cut(sources, room - len(workers))
    silent = "nothing has come yet" if _RECEIVER in now.pages else "no receiver's admin port answers here"
    return Group(
        _line(head, "bold"),
        _places(before, now, seconds),
        _table(_SOURCE, sources) if sources else Text(silent),
        _table(_WORKERS, workers) if workers else Text("no worker's admin port answers here"),
        *map(_line, exceptions),
    )


def _page(settings: Settings, process: Running) -> Samples | None:
    """What a process of this machine says of itself; None where it says nothing."""
    if process.name == _RECEIVER:
        number = 0
    elif process.name.startswith(_WORKER) and process.name.removeprefix(_WORKER).isdecimal():
        number = 1 + int(process.name.removeprefix(_WORKER))
    else:
        return None
    address = settings.admin.address(number)
    if address is None or not address[1]:
        return None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104 - it is not listened on
    connection = HTTPConnection(host, address[1], timeout=ADMIN_PATIENCE)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.headers[PROCESS_HEADER] != str(process.pid):
            return None  # another installation's, which had the port first
        return Samples(answer.read().decode())
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _waits(report: Report) -> str:
    age = report.spool.oldest_age_seconds
    oldest = "" if age is None else f", the oldest for {age:.0f} s"
    return f"{report.spool.instances} instances wait, {report.spool.bytes / 1e6:.1f} MB{oldest}"


def _places(before: Look, now: Look, seconds: float) -> Table:
    rates = [
        f"{(count - before.counts.get(name, 0)) / seconds:{'+.1f' if name == 'backlog' else '.1f'}}"
        for name, count in now.counts.items()
    ]
    return _table(("", *now.counts), [("instances", *map(str, now.counts.values())), ("a second", *rates)])


def _sources(before: Look, now: Look, seconds: float) -> list[Row]:
    """Those that have sent most first."""
    rows: list[tuple[float, Row]] = []
    page, earlier = now.pages.get(_RECEIVER, Samples()), before.pages.get(_RECEIVER, Samples())
    names = page.labels("associations_total", "source") | page.labels("received_instances_total", "source")
    for source in sorted(names):
        acknowledged = page.sum("received_instances_total", source=source, outcome=_ACKNOWLEDGED)
        taken = _more(earlier, page, "cstore_seconds_count", source=source)
        lasted = _more(earlier, page, "cstore_seconds_sum", source=source)
        moved = _more(earlier, page, "received_bytes_total", source=source, outcome=_ACKNOWLEDGED)
        came = _more(earlier, page, "received_instances_total", source=source, outcome=_ACKNOWLEDGED)
        row = (
            source,
            f"{acknowledged:.0f}",
            f"{came / seconds:.1f}",
            f"{moved / seconds / 1e6:.1f}",
            f"{lasted / taken * 1e3:.1f}" if taken else "",
            f"{page.sum('received_instances_total', source=source) - acknowledged:.0f}",
            f"{page.sum('associations_total', source=source):.0f}",
        )
        rows.append((-acknowledged, row))
    return [row for _, row in sorted(rows)]


def _workers(before: Look, now: Look, seconds: float) -> list[Row]:
    rows: list[Row] = []
    for process in now.processes:
        page = now.pages.get(process.name)
        if page is None or not process.name.startswith(_WORKER):
            continue
        earlier = before.pages.get(process.name, page)
        row = (
            process.name,
            f"{process.pid}",
            f"{len(process.partitions)}",
            f"{_more(earlier, page, 'placed_instances_total') / seconds:.1f}",
            f"{_more(earlier, page, 'placed_bytes_total') / seconds / 1e6:.1f}",
            f"{page.sum('uploads_waiting'):.0f}",
            f"{page.sum('oldest_upload_seconds'):.0f}",
            f"{page.sum('codec_restarts_total'):.0f}",
        )
        rows.append(row)
    return rows


def _exceptions(before: Look, now: Look) -> Iterator[str]:
    """What somebody may have to look at."""
    if now.pages.get(_RECEIVER, Samples()).sum("log_refusing"):
        yield "the receiver refuses instances: the log has no room (A700H)"
    yield from (f"note: {note}" for note in now.notes)
    for reason, count in now.reasons.items():
        if reason.startswith(("conflict", "quarantine")):
            more = count - before.reasons.get(reason, 0)
            yield f"{reason}: {count}" + (f" (+{more})" if more else "")
    if now.refusals:
        yield "refused last (all, and what to change: `status --rejected`)"
        yield from (f"  {_refusal_line(refusal)}" for refusal in now.refusals)


def _refusal_line(refusal: Refusal) -> str:
    """The reason first: a narrow terminal cuts the rest."""
    at, times, refused, calling, called, address, reason, subject = refusal_row(refusal)
    return "  ".join((at[-_CLOCK:], f"{times}x", reason, calling, address, refused, called, subject)).rstrip()


def _more(before: Samples, now: Samples, name: str, **labels: str) -> float:
    """What was counted in between; a process that started anew counts from zero."""
    return max(0.0, now.sum(name, **labels) - before.sum(name, **labels))


def _cut(rows: list[Row], most: int) -> list[Row]:
    """No more rows than that, the last of them telling how many there are besides."""
    return rows if len(rows) <= most else [*rows[: most - 1], (f"and {len(rows) - most + 1} more",)]


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _table(headings: Row, rows: Sequence[Row]) -> Table:
    """Cells as they are: what stands in brackets is no markup."""
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for name in headings:
        table.add_column(name, justify="right" if name and name is not headings[0] else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
