"""A log in memory that acknowledges when a test lets it, and remembers what it was given."""

import asyncio
from collections.abc import Sequence

from ingest.contract.records import Instance, Kind, Record, decode, instance_of
from ingest.instance import Header


class MemoryLog:
    """Keeps records; ``hold`` keeps their acknowledgement back, ``failure`` answers with an error."""

    partitions = 4
    receiver_id = 7
    epoch = 1
    publishers = 0

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.failure: Exception | None = None
        self.reason: str | None = None
        self.hold = False
        self.away = False
        self._held: list[asyncio.Future[None]] = []

    def congested(self, *, full: bool) -> bool:
        return self.away

    def refusal(self) -> str | None:
        return self.reason

    def publish(self, partition: int, header: Header, payload: Sequence[memoryview]) -> asyncio.Future[None]:
        assert 0 <= partition < self.partitions
        made = header if isinstance(header, bytes) else header()
        self.records.append(decode(made + b"".join(payload)))
        future = asyncio.get_running_loop().create_future()
        if self.failure is not None:
            future.set_exception(self.failure)
        elif self.hold:
            self._held.append(future)
        else:
            future.set_result(None)
        return future

    def acknowledge(self) -> None:
        """Everything so far is durable."""
        held, self._held = self._held, []
        for future in held:
            if not future.done():
                future.set_result(None)

    def fail(self) -> None:
        """Nothing so far will be durable: all learn of ``failure``."""
        assert self.failure is not None
        held, self._held = self._held, []
        for future in held:
            if not future.done():
                future.set_exception(self.failure)

    def kinds(self) -> list[Kind]:
        return [record.kind for record in self.records]

    def instances(self) -> dict[str, tuple[Instance, bytes]]:
        """Complete instances by UID, reassembled."""
        parts: dict[bytes, bytearray] = {}
        found = {}
        for record in self.records:
            parts.setdefault(record.upload_id, bytearray()).extend(record.payload)
            if record.kind in (Kind.INSTANCE, Kind.END):
                instance = instance_of(record)
                found[instance.sop_instance_uid] = instance, bytes(parts[record.upload_id])
        return found
