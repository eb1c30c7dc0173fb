"""What runs, what waits, and where every received instance is."""

import time
from collections.abc import Iterator

import click
import msgspec

from ingest.contract.command_failures import clear_failures
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.records import Place
from ingest.contract.running import Running, running_processes
from ingest.contract.settings import Settings
from workers.cli.account import Account, read_account
from workers.cli.moves import DamagedMove, read_moves
from workers.cli.store_sizes import ShardGroup, shard_groups


class Listening(msgspec.Struct, frozen=True):
    """Where the receiver accepts associations."""

    host: str
    port: int
    ae_title: str
    pid: int


class RunningWorker(msgspec.Struct, frozen=True):
    """A worker process and its partitions of the log."""

    name: str
    pid: int
    partitions: tuple[int, ...]


class Spool(msgspec.Struct, frozen=True):
    """What waits in the log: completely received, not yet at a place."""

    instances: int
    bytes: int
    oldest_age_seconds: float | None


class Report(msgspec.Struct, frozen=True):
    """What `status --json` prints; keys stay, new ones may come."""

    data: str
    listening: Listening | None
    workers: list[RunningWorker]
    received: int
    stored: int
    duplicates: int
    conflicts: int
    quarantined: int
    discarded: int
    backlog: int
    reasons: dict[str, int]
    spool: Spool
    store: list[ShardGroup]


@click.command()
@data_settings
@click.option("--quick", is_flag=True, help="Leave out the store's size, which takes a look at every object.")
@json_option
def status(settings: Settings, *, quick: bool, as_json: bool) -> None:
    """What runs, what waits, and where every received instance is.

    All from what is on disk, so it is true with every process down, too, and
    received = stored + duplicates + conflicts + quarantined + discarded + backlog.
    """
    with clear_failures(settings):
        try:
            report = read_report(settings, quick=quick)
        except DamagedMove as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        click.echo("\n".join(_lines(report)))


def read_report(settings: Settings, *, quick: bool = False) -> Report:
    """Read everything; see `account` for why the sum holds while processes go on.

    Raises:
        CorruptCheckpoint, DamagedMove, SpoolError: an administrator must decide what follows.
        OSError: the disk's.
    """
    account = read_account(settings.data, list(read_moves(settings.store_directories)))
    processes = running_processes(settings.data)
    receiver = next((found for found in processes if found.name == "receiver"), None)
    return Report(
        data=str(settings.data.resolve()),
        listening=None if receiver is None else _listening(receiver),
        workers=[
            RunningWorker(found.name, found.pid, found.partitions)
            for found in processes
            if found.name.startswith("worker-")
        ],
        received=account.received,
        stored=account.places[Place.STORED],
        duplicates=account.places[Place.DUPLICATE],
        conflicts=account.places[Place.CONFLICT],
        quarantined=account.places[Place.QUARANTINED],
        discarded=account.places[Place.DISCARDED],
        backlog=account.backlog,
        reasons=dict(sorted(account.reasons.items())),
        spool=Spool(account.backlog, account.backlog_size, _age(account)),
        store=[] if quick else list(shard_groups(settings.store_directories)),
    )


def _listening(receiver: Running) -> Listening:
    return Listening(receiver.host, receiver.port, receiver.ae_title, receiver.pid)


def _age(account: Account) -> float | None:
    """Seconds; a clock that was set back since makes it no less than 0."""
    return None if account.oldest is None else max(0.0, round(time.time() - account.oldest / 1e9, 3))


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
    yield f"\nspool        {report.spool.instances} instances, {report.spool.bytes / 1e6:.1f} MB{waits}"
    for group in report.store:
        yield f"store        {group.store} {group.shards}: {group.objects} objects, {group.bytes / 1e6:.1f} MB"
