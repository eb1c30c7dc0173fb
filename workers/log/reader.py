"""What a worker needs of the log, whichever it is: `SpoolReader` and `KafkaReader` are it."""

from collections.abc import Sequence
from typing import Protocol

from workers.log.entries import Entry


class Reader(Protocol):
    """The log, read for several partitions at once, each from where its checkpoint says, by nobody else meanwhile.

    Only what is durable is handed out, each partition in its order, every record once. Positions grow within a
    partition, and are the same for whoever reads it later.
    """

    def read_to(self, partition: int) -> int:
        """Everything of the partition below this position was handed out; it goes on where others' records are read over."""
        ...

    def read(self) -> Sequence[Entry]:
        """Some further entries; none when there are none. Called in the event loop's thread, so at most some MiB.

        Acknowledged bytes that are no record any more are handed out, too, as `DamagedRecord`: never passed over.

        Raises:
            NewerRecord: the next record is another release's; again each time, after all entries before it.
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
        """Return at once where there is more, else when there may be, at the latest after ``timeout`` seconds.

        Only the time-out is a promise: what wakes may be missed, and then costs that time.
        """
        ...
