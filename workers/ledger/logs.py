"""What the ledger is made from: logs that are read from a position on, whichever kind they are of."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ingest.contract.records import Record


class Batch(NamedTuple):
    """What was read of one log."""

    log: str  # its name, the same for ever
    before: int  # position from which it was read
    after: int  # position up to which everything is in it
    records: Sequence[Record]
    lost: int = 0  # stretches that were gone or damaged


class Logs(Protocol):
    """All logs of the settings."""

    def read(self, positions: Mapping[str, int]) -> Sequence[Batch]:
        """What comes next in some of them; nothing when all is read. A log without a position is read from its start.

        Raises:
            KafkaUnreachable: brokers do not answer.
            SpoolMismatch: another release made the log.
            OSError: the disk's.
        """
        ...

    def close(self) -> None:
        """Let go of them."""
        ...
