"""What `status` shows, read from disk or from Kafka: true with every process down, too."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from ingest.contract.kafka import is_single_copy
from ingest.contract.records import Place
from ingest.contract.running import Running, running_processes
from ingest.contract.settings import Settings
from ingest.contract.unknown_sources import read_taken
from workers.cli.account import Account, Move, read_account
from workers.cli.moves import read_moves
from workers.cli.store_sizes import ShardGroup, shard_groups
from workers.storage.root import Root
from workers.storage.roots import roots_of
from workers.storage.shard_map import MAP_FILE

if TYPE_CHECKING:
    from workers.cli.group_account import Member


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


class Log(msgspec.Struct, frozen=True):
    """Which log it is, and what it has promised and kept."""

    kind: str
    single_copy: bool  # the loss of one broker may lose what was acknowledged
    lost: int  # records that retention took before a worker had read them


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
    spool: Spool  # of Kafka, too
    store: list[ShardGroup]
    log: Log
    notes: list[str] = []  # what an administrator should know


class Offsets(msgspec.Struct, frozen=True):
    """What `status --offsets --json` prints; keys stay, new ones may come."""

    workers: list[RunningWorker]
    stored: int
    duplicates: int
    conflicts: int
    quarantined: int
    records_waiting: dict[int, int]  # by partition
    lost: int


def read_offsets(settings: Settings) -> Offsets:
    """What a consumer group has counted, and how many records wait, without reading those.

    Raises:
        ForeignCommit: an administrator must decide what follows.
        KafkaUnreachable: no broker answers.
    """
    # The client is an extra that one machine does not need.
    from workers.cli.group_account import read_waiting  # noqa: PLC0415

    found = read_waiting(settings)
    return Offsets(
        workers=_group_workers(found.members),
        stored=found.places.get(Place.STORED, 0),
        duplicates=found.places.get(Place.DUPLICATE, 0),
        conflicts=found.places.get(Place.CONFLICT, 0),
        quarantined=found.places.get(Place.QUARANTINED, 0),
        records_waiting=dict(found.records),
        lost=found.lost,
    )


def read_report(settings: Settings, *, quick: bool = False) -> Report:
    """Read everything; see `account` for why the sum holds while processes go on.

    Raises:
        CorruptCheckpoint, DamagedMove, ForeignCommit, SpoolError: an administrator must decide what follows.
        KafkaUnreachable: the log is Kafka, and no broker answers.
        OSError: the disk's.
    """
    roots = roots_of(settings.store_locations, settings.store)
    moves = read_moves(roots)
    processes = running_processes(settings.data)
    account, workers, lost = _read_log(settings, moves, processes)
    receiver = next((found for found in processes if found.name == "receiver"), None)
    notes = [settings.commitment_note, _unknown_note(settings)]
    if sum(account.places.values()):
        notes += map(_away_note, roots)
    return Report(
        data=str(settings.data.resolve()),
        listening=None if receiver is None else _listening(receiver),
        workers=workers,
        received=account.received,
        stored=account.places[Place.STORED],
        duplicates=account.places[Place.DUPLICATE],
        conflicts=account.places[Place.CONFLICT],
        quarantined=account.places[Place.QUARANTINED],
        discarded=account.places[Place.DISCARDED],
        backlog=account.backlog,
        reasons=dict(sorted(account.reasons.items())),
        spool=Spool(account.backlog, account.backlog_size, _age(account)),
        store=[] if quick else list(shard_groups(roots)),
        log=Log(settings.log.kind, is_single_copy(settings), lost),
        notes=[note for note in notes if note],
    )


def _away_note(root: Root) -> str:
    """That a store is not there, though something was placed: a folder whose disk is not mounted is an empty one."""
    if root.read(MAP_FILE) is not None:
        return ""
    return f"{root} has no shard map: is it mounted? What administrators have moved there is not counted"


def _unknown_note(settings: Settings) -> str:
    """What unknown sources have sent to the receiver of this data folder; empty where that is nothing."""
    limits = settings.receiver
    try:
        taken = read_taken(settings.data)
    except ValueError as error:
        return str(error)
    if not taken.instances or time.time() - taken.begun_at >= limits.unknown_period:
        return ""
    return (
        f"unknown sources: at most {taken.instances} instances of {limits.unknown_instances}, {taken.bytes / 1e6:.1f} MB of "
        f"{limits.unknown_bytes / 1e6:.1f} MB into quarantine in this period; see `quarantine list`"
    )


def _read_log(
    settings: Settings, moves: Iterable[Move], processes: Iterable[Running]
) -> tuple[Account, list[RunningWorker], int]:
    """The account, who works, and what retention took."""
    match settings.log.kind:
        case "spool":
            return read_account(settings.data, moves), _local_workers(processes), 0
        case "kafka":
            return _read_group(settings, moves)


def _local_workers(processes: Iterable[Running]) -> list[RunningWorker]:
    return [
        RunningWorker(found.name, found.pid, found.partitions)
        for found in processes
        if found.name.startswith("worker-")
    ]


def _read_group(settings: Settings, moves: Iterable[Move]) -> tuple[Account, list[RunningWorker], int]:
    # The client is an extra that one machine does not need.
    from workers.cli.group_account import read_group_account  # noqa: PLC0415

    found = read_group_account(settings, moves)
    return found.account, _group_workers(found.members), found.lost


def _group_workers(members: "Iterable[Member]") -> list[RunningWorker]:
    return [RunningWorker(member.name, _pid(member.name), member.partitions) for member in members]


def _pid(name: str) -> int:
    """Ours are called ``worker-<host>-<pid>``; 0 where the settings give a name, or another program is a member."""
    start, _, end = name.rpartition("-")
    return int(end) if start.startswith("worker-") and end.isascii() and end.isdecimal() else 0


def _listening(receiver: Running) -> Listening:
    return Listening(receiver.host, receiver.port, receiver.ae_title, receiver.pid)


def _age(account: Account) -> float | None:
    """Seconds; a clock that was set back since makes it no less than 0."""
    return None if account.oldest is None else max(0.0, round(time.time() - account.oldest / 1e9, 3))
