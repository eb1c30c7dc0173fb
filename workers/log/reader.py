"""What a worker needs of the log, whichever it is: `SpoolReader` and `KafkaReader` are it."""

from collections.abc import Sequence
from typing import Protocol

from workers.log.entries import Entry


class Reader(Protocol):
    """The log, read for several partitions at once, each from where its checkpoint says."""

    def read_to(self, partition: int) -> int:
        """Everything of the partition below this position was handed out."""
        ...

    def read(self) -> Sequence[Entry]:
        """Some further entries; none when there are none.

        Raises:
            OSError: the disk's; the next read tries the same again.
        """
        ...

    async def end_of(self, partition: int) -> int:
        """Where the partition ends now, by a question put to the log after the call.

        Raises:
            Unavailable: the log does not answer.
        """
        ...

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on idleness, not on an operation
        """Return when there may be more, at the latest after ``timeout`` seconds."""
        ...
