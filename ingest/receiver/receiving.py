"""What a service makes of a data set while it comes in."""

import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ingest.association.events import Rows
from ingest.errors import Refused


class Peer(NamedTuple):
    """Where an association comes from."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    association_id: str = ""  # as in the log lines of the association


class Receiving(Protocol):
    """A data set being received, whether it is kept or only drained; ``size`` is what is kept, in bytes."""

    @property
    def size(self) -> int:
        """How much of it there is to keep; 0 for what is no instance."""

    @property
    def room(self) -> int:
        """How many bytes it would take now, at least."""

    def write(self, data: memoryview) -> int:
        """Take a fragment; fewer bytes than given when it must wait."""

    def write_run(self, rows: Rows) -> int:
        """Take whole rows of a run of fragments; fewer than given when they do not fit."""

    def finish(self, done: Callable[[Exception | None], None]) -> None:
        """The data set is complete."""

    def keep_alive(self, now: float, limit: float) -> None:
        """Let no more than ``limit`` seconds pass between two records of it, if its peer sends anything."""

    def abandon(self) -> None:
        """It will never be."""


class Drain:
    """Lets a refused data set pass, so that the association can go on."""

    size = 0
    room = sys.maxsize

    def __init__(self, failure: Refused) -> None:
        self.failure = failure

    def write(self, data: memoryview) -> int:
        """Take all, keep nothing."""
        return len(data)

    def write_run(self, rows: Rows) -> int:
        """Take all, keep nothing."""
        return len(rows)

    def finish(self, done: Callable[[Exception | None], None]) -> None:
        """The refusal is the answer."""
        done(self.failure)

    def keep_alive(self, now: float, limit: float) -> None:
        """Nothing was begun."""

    def abandon(self) -> None:
        """Nothing was begun."""
