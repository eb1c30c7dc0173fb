"""What the poller's thread tells the event loop: partitions that come and go, and what was read of them."""

from dataclasses import dataclass
from typing import Protocol

from workers.log.commit_metadata import OffsetCheckpoint
from workers.log.entries import Entry
from workers.log.leader_epochs import LeaderEpochs


@dataclass(eq=False)
class Ownership:
    """One partition from being given to us until it is taken; another time it is another ownership."""

    partition: int
    offered: OffsetCheckpoint  # set by the event loop, read by the client's thread
    next_position: int
    member: str  # who we were in the group then
    epochs: LeaderEpochs
    gone: bool = False


@dataclass(eq=False)
class Batch:
    """Entries that came together, of one ownership."""

    ownership: Ownership
    entries: list[Entry]
    size: int  # bytes
    lost: int  # records that should have come before them


class Listening(Protocol):
    """Who hears of it, on the event loop's thread."""

    def on_taken(self, ownership: Ownership, checkpoint: OffsetCheckpoint, end: int) -> None:
        """A partition is ours, with its account and where it ends."""
        ...

    def on_gone(self, ownership: Ownership) -> None:
        """It is ours no more."""
        ...

    def on_batch(self, batch: Batch) -> None:
        """Entries of one that may still be ours."""
        ...

    def on_failure(self, error: Exception) -> None:
        """Nothing more comes."""
        ...
