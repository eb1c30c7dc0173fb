"""The ingest side of the log: `Log` is the promise, ``spool_writer`` keeps it on one machine.

writer = SpoolWriter(settings)
await writer.start()                      # recovered; epoch and receiver_id are set
if (why := writer.refusal()): ...         # answer A700H to a new instance
await writer.publish(partition, records.encode_header(...), [payload])   # durable when it returns
await writer.failed                       # a sync failed: end the process, the next start recovers
await writer.close()
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ingest.instance import Header
from ingest.log.spool_writer import SpoolWriter

if TYPE_CHECKING:
    import asyncio


class Log(Protocol):
    """Records go in; what was acknowledged survives."""

    @property
    def partitions(self) -> int:
        """How many partitions the log has."""
        ...

    def refusal(self) -> str | None:
        """Why no new instance should be taken now; None when there is room."""
        ...

    def publish(
        self, partition: int, header: Header, payload: Sequence[memoryview]
    ) -> "asyncio.Future[None]":
        """Append one record; the future is done when it is durable, and only then may payload be reused."""
        ...


__all__ = ["Log", "SpoolWriter"]
