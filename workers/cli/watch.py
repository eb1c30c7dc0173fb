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
from ingest.contract.refusals import Refusal, read_refusals
from ingest.contract.running import Running, running_processes
from ingest.contract.settings import Settings
from workers.cli.rejected import refusal_row
from workers.cli.status import Report, read_offsets, read_report

ADMIN_PATIENCE: Final = 1.0  # s, for the page of one process
_REFUSALS: Final = 5  # shown, the newest
_RECEIVER: Final = "receiver"
_WORKER: Final = "worker-"
_PLACES: Final = ("received", "stored", "duplicates", "conflicts", "quarantined", "discarded", "backlog")
_ACKNOWLEDGED: Final = "acknowledged"


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
        what `status.read_report` raises.
    """
    before = look(settings)
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            now = look(settings)
            shown = view(before, now)
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


def view(before: Look, now: Look) -> RenderableType:
    """What happened between two looks."""
    seconds = max(now.at - before.at, 1e-3)
    head = Text(f"dicom-ingest  {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC  {now.waits}", style="bold")
    parts: list[RenderableType] = [head, _places(before, now, seconds)]
    sources, workers = _sources(before, now, seconds), _workers(before, now, seconds)
    silent = "nothing has come yet" if _RECEIVER in now.pages else "no receiver's admin port answers here"
    parts.append(sources if sources.row_count else Text(silent))
    parts.append(workers if workers.row_count else Text("no worker's admin port answers here"))
    parts += [Text(line) for line in _exceptions(before, now)]
    return Group(*parts)


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
        return Samples(connection.getresponse().read().decode())
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _waits(report: Report) -> str:
    age = report.spool.oldest_age_seconds
    oldest = "" if age is None else f", the oldest for {age:.0f} s"
    return f"{report.spool.instances} instances wait, {report.spool.bytes / 1e6:.1f} MB{oldest}"


def _places(before: Look, now: Look, seconds: float) -> Table:
    table = _table("place", "instances", "a second")
    for name, count in now.counts.items():
        rate = (count - before.counts.get(name, 0)) / seconds
        _row(table, name, f"{count}", f"{rate:+.1f}" if name == "backlog" else f"{rate:.1f}")
    return table


def _sources(before: Look, now: Look, seconds: float) -> Table:
    table = _table("source", "acknowledged", "a second", "MB/s", "mean ms", "not taken", "associations")
    page, earlier = now.pages.get(_RECEIVER, Samples()), before.pages.get(_RECEIVER, Samples())
    names = page.labels("associations_total", "source") | page.labels("received_instances_total", "source")
    for source in sorted(names):
        acknowledged = page.sum("received_instances_total", source=source, outcome=_ACKNOWLEDGED)
        taken = _more(earlier, page, "cstore_seconds_count", source=source)
        lasted = _more(earlier, page, "cstore_seconds_sum", source=source)
        moved = _more(earlier, page, "received_bytes_total", source=source, outcome=_ACKNOWLEDGED)
        came = _more(earlier, page, "received_instances_total", source=source, outcome=_ACKNOWLEDGED)
        _row(
            table,
            source,
            f"{acknowledged:.0f}",
            f"{came / seconds:.1f}",
            f"{moved / seconds / 1e6:.1f}",
            f"{lasted / taken * 1e3:.1f}" if taken else "",
            f"{page.sum('received_instances_total', source=source) - acknowledged:.0f}",
            f"{page.sum('associations_total', source=source):.0f}",
        )
    return table


def _workers(before: Look, now: Look, seconds: float) -> Table:
    table = _table(
        "worker", "pid", "partitions", "placed a second", "MB/s", "in work", "oldest s", "codec restarts"
    )
    for process in now.processes:
        page = now.pages.get(process.name)
        if page is None or not process.name.startswith(_WORKER):
            continue
        earlier = before.pages.get(process.name, page)
        _row(
            table,
            process.name,
            f"{process.pid}",
            f"{len(process.partitions)}",
            f"{_more(earlier, page, 'placed_instances_total') / seconds:.1f}",
            f"{_more(earlier, page, 'placed_bytes_total') / seconds / 1e6:.1f}",
            f"{page.sum('uploads_waiting'):.0f}",
            f"{page.sum('oldest_upload_seconds'):.0f}",
            f"{page.sum('codec_restarts_total'):.0f}",
        )
    return table


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
        yield "refused last (all: `status --rejected`)"
        yield from (f"  {'  '.join(refusal_row(refusal))}" for refusal in now.refusals)


def _more(before: Samples, now: Samples, name: str, **labels: str) -> float:
    """What was counted in between; a process that started anew counts from zero."""
    return max(0.0, now.sum(name, **labels) - before.sum(name, **labels))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _row(table: Table, *cells: str) -> None:
    """As it is: what stands in brackets is no markup."""
    table.add_row(*(Text(cell) for cell in cells))
