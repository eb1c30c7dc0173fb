"""Where every received instance is, counted from what is on disk: received = the sum of all places + backlog.

The numbers are true while receiver and workers go on, by the order of the reads:

    1. the moves that administrators made
    2. the checkpoints' marks, where the scan starts
    3. the durable end, where it stops
    4. the scan: every upload completed between them
    5. the checkpoints again, whose counters count

An upload completed before step 3 is then counted exactly once: by its checkpoint of step 5, or, if that does
not settle it, as backlog. A segment recycled during the scan held only what step 5 counts. A move of step 1
belongs to an upload that was complete by then; while that upload is still in the backlog it has no place to be
moved from, and the move waits. What a worker sets aside is moved before the upload that met it is counted: a look
between the two has the right sum, and counts what was set aside where it was.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ingest.contract.checkpoint import Checkpoint, read_checkpoints
from ingest.contract.records import Place
from workers.cli.backlog import Completed, completed_uploads


class Move(NamedTuple):
    """An administrator has moved an upload from one place to another."""

    upload_id: bytes
    source: Place
    target: Place


class Account(NamedTuple):
    """The instances received since the data folder was made, by where they are now."""

    places: Mapping[Place, int]
    reasons: Mapping[str, int]  # "<place>/<reason>" as the workers counted, whatever was moved since
    backlog: int  # completely received, not yet at a place
    backlog_size: int  # bytes
    oldest: int | None  # when the oldest of the backlog was received, nanoseconds since 1970-01-01 UTC

    @property
    def received(self) -> int:
        """All of them."""
        return sum(self.places.values()) + self.backlog


def read_account(data: Path, moves: Iterable[Move]) -> Account:
    """Count; ``moves`` must have been read before the call.

    Raises:
        CorruptCheckpoint, SpoolMismatch: an administrator must decide what follows.
        OSError: the disk's.
    """
    marks = {number: checkpoint.low_water_mark for number, checkpoint in read_checkpoints(data).items()}
    completed = list(completed_uploads(data / "spool", marks))
    return balance(completed, read_checkpoints(data), moves)


def balance(
    completed: Iterable[Completed], checkpoints: Mapping[int, Checkpoint], moves: Iterable[Move]
) -> Account:
    """The account of these readings. Pure."""
    places = Counter(dict.fromkeys(Place, 0))
    reasons: Counter[str] = Counter()
    for checkpoint in checkpoints.values():
        places.update(checkpoint.counters)
        reasons.update(checkpoint.reasons)
    waiting = open_uploads(completed, checkpoints)
    for move in moves:
        if move.upload_id not in waiting:
            places[move.source] -= 1
            places[move.target] += 1
    return Account(
        places,
        reasons,
        len(waiting),
        sum(upload.size for upload in waiting.values()),
        min((upload.received_at for upload in waiting.values()), default=None),
    )


def open_uploads(
    completed: Iterable[Completed], checkpoints: Mapping[int, Checkpoint]
) -> dict[bytes, Completed]:
    """Of the completed uploads, those that no checkpoint settles, by upload id. Pure."""
    return {
        upload.upload_id: upload
        for upload in completed
        if upload.partition not in checkpoints or not upload.settled_in(checkpoints[upload.partition])
    }
