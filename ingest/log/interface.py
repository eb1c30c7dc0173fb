"""The log as this side sees it: the spool of one machine, or Kafka."""

import asyncio
from typing import Protocol

from ingest.instance import RecordLog


class InstanceLog(RecordLog, Protocol):
    """What answers to C-STORE need of it.

    ``publishers`` is how many associations may publish at the moment; the receiver keeps it true.
    """

    publishers: int

    @property
    def receiver_id(self) -> int:
        """Names this receiver among those that write the log; 32 bits."""

    @property
    def epoch(self) -> int:
        """Grows with each start under this `receiver_id`, whatever the clock does; 48 bits."""

    def congested(self, *, full: bool) -> bool:
        """Whether a new association would only wait; ``full`` says that the budget is used up."""

    def refusal(self) -> str | None:
        """Why new instances must be refused now, or ``None``."""


class Log(InstanceLog, Protocol):
    """What the process that owns it needs besides.

    It keeps every record that lies at or above the low-water mark of its partition's checkpoint: what is
    acknowledged is nowhere else until then. A position, once given, never stands for another record.
    """

    @property
    def failed(self) -> asyncio.Future[Exception]:
        """Done when nothing can be acknowledged any more, and the process must end."""

    async def start(self) -> None:
        """Recover or connect; ``receiver_id`` and ``epoch`` are set when it returns.

        A log with one writer begins with an EPOCH record in each partition, which ends the uploads of its starts before;
        with several their uploads end by time: see ``expire_after`` of `workers.log.reassembly.Reassembler`.

        Raises:
            OSError, SpoolError, KafkaUnreachable, TopicMismatch: it cannot be had; the process ends.
        """

    async def close(self) -> None:
        """Write what waits, and let go."""
