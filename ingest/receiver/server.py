"""Listen, keep count, watch the clocks, and stop without losing an instance."""

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ingest.commitment.interface import Commitments
from ingest.contract.peer_settings import ListenerSettings
from ingest.contract.settings import CommitmentSettings, ReceiverSettings, Settings, SourceSettings
from ingest.instance import ChunkPool, Shares
from ingest.log import InstanceLog
from ingest.receiver.addresses import Addresses
from ingest.receiver.admission import NO_SOURCES, Admission
from ingest.receiver.clock import LATE
from ingest.receiver.commitment import CommitmentService
from ingest.receiver.connection import RECEIVE_BUFFER, SPARE_BUFFER, Connection
from ingest.receiver.listeners import Bound, Listeners
from ingest.receiver.operations import Services
from ingest.receiver.storage import StorageService
from ingest.receiver.telemetry import Telemetry
from ingest.receiver.unknown_sources import UnknownQuota

# Idle, stall and rate limits are tens of seconds; looking twice a second is precise enough and costs nothing
# per message.
WATCH_INTERVAL = 0.5  # s
# A peer that means well asks for its association at once, and closes after it: at the limit of connections, one that has not
# for so long gives way to a new one.
GIVES_WAY = 1.0  # s
# For the log's segments and marks, the listener, the event loop and the standard streams.
_OWN_DESCRIPTORS = 64

NO_LISTENERS: Final[Mapping[str, ListenerSettings]] = MappingProxyType({})


def _spare_descriptors(log: InstanceLog) -> int:
    """How many connections leave this process the descriptors that it needs itself; the log wakes each partition."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, limit - log.partitions - _OWN_DESCRIPTORS)


class Server:
    """The DICOM listener: accepts connections within its limits and owns what they share.

    Storage commitment is served where ``commitments`` are given, within the limits of ``commitment_settings``.

    Raises:
        WrongCertificate: the files of a listener cannot be used.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        log: InstanceLog,
        commitments: Commitments | None = None,
        commitment_settings: CommitmentSettings | None = None,
        telemetry: Telemetry | None = None,
        *,
        listeners: Mapping[str, ListenerSettings] = NO_LISTENERS,
        sources: Mapping[str, SourceSettings] = NO_SOURCES,
        quota: UnknownQuota | None = None,
    ) -> None:
        self.settings = settings
        self.maximum_connections = min(settings.maximum_connections, _spare_descriptors(log))
        self.log = log
        self.pool = ChunkPool(settings.buffer_budget)
        self.shares = Shares(self.pool, settings.fair_window, settings.fair_memory)
        self.telemetry = telemetry or Telemetry(Settings())
        commitment = CommitmentService(
            commitments, commitment_settings or CommitmentSettings(), self.telemetry.commitment_refused
        )
        self.admission = Admission(
            settings,
            log,
            self.pool,
            self.shares,
            commitment=commitment.offered,
            sources=sources,
            quota=quota,
        )
        self.services = Services(StorageService(log), commitment, settings.maximum_command_length)
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self.small_buffer = self.receive_buffer[:SPARE_BUFFER]
        # Connections that await their turn with bytes unhandled; while there are any, nobody else is given many to keep.
        self.turns = 0
        self.connections: set[Connection] = set()
        # Those without an association, and since when (s, monotonic); the oldest first. And the bytes that they have sent,
        # which are kept until a request is whole.
        self._silent: dict[Connection, float] = {}
        self._requesting: dict[Connection, int] = {}
        self._requested = 0  # bytes of all of them
        self.unused = asyncio.Event()  # set while there is no connection
        self.unused.set()
        self._addresses: Addresses[Connection] = Addresses(settings.maximum_connections_per_address)
        self.listeners = Listeners(
            settings,
            listeners,
            lambda: Connection(self),
            self._has_room,
            refused=self.telemetry.connection_refused,
            failed=self.telemetry.handshake_failed,
        )
        self.bound: list[Bound] = []
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; returns the first address and port in use. ``bound`` has all of them.

        Raises:
            OSError: an address cannot be bound.
        """
        self.bound = await self.listeners.open()
        self._watch = asyncio.create_task(self._watch_clocks())
        return self.bound[0].host, self.bound[0].port

    async def reload(self, settings: ReceiverSettings, sources: Mapping[str, SourceSettings]) -> None:
        """Take the policy for unknown sources, the sources, and certificate files that have changed."""
        self.admission.sources.reload(settings, sources)
        await self.listeners.refresh()

    def opened(self, connection: Connection, address: str) -> bool:
        """A connection was accepted; whether it may stay."""
        self.connections.add(connection)
        self.unused.clear()
        self._silent[connection] = time.monotonic()
        within = self._addresses.enter(connection, address)
        return within and (len(self.connections) <= self.maximum_connections or self._make_way())

    def requesting(self, connection: Connection, count: int) -> None:
        """It has sent bytes, and has no association; who has sent most makes room when all have sent too many."""
        self._requesting[connection] = self._requesting.get(connection, 0) + count
        self._requested += count
        while self._requested > self.settings.associate_budget:
            largest = max(self._requesting, key=self._requesting.__getitem__)
            self._requested -= self._requesting.pop(largest)
            self.telemetry.connection_refused(largest.address)
            largest.abort("its request takes too much room")

    def associated(self, connection: Connection) -> None:
        """It has an association."""
        self._silent.pop(connection, None)
        self._requested -= self._requesting.pop(connection, 0)

    def dissociated(self, connection: Connection) -> None:
        """Its association is over, and its peer is to close it (PS3.8, Sta13)."""
        if connection in self.connections:
            self._silent[connection] = time.monotonic()

    def _has_room(self, handshakes: int) -> bool:
        return len(self.connections) + handshakes <= self.maximum_connections or self._make_way()

    def _make_way(self) -> bool:
        """Whether a connection could be closed for another: peers that say nothing, or do not close, must not keep others out."""
        oldest = next(iter(self._silent), None)
        if oldest is None or time.monotonic() - self._silent[oldest] < GIVES_WAY:
            return False
        del self._silent[oldest]
        self.telemetry.connection_refused(oldest.address)
        oldest.abort("gave way")
        return True

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self._silent.pop(connection, None)
        self._requested -= self._requesting.pop(connection, 0)
        self._addresses.leave(connection)
        if not self.connections:
            self.unused.set()

    async def drain(self) -> None:
        """Stop listening, let instances in progress finish and be answered, then end every association."""
        self.admission.draining = True
        self.listeners.close()
        for connection in list(self.connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_timeout):
                await self.unused.wait()
        for connection in list(self.connections):
            connection.abort("shutdown")
        if self._watch is not None:
            self._watch.cancel()

    async def _watch_clocks(self) -> None:
        now = time.monotonic()
        while True:
            due = now + WATCH_INTERVAL
            await asyncio.sleep(WATCH_INTERVAL)
            now = time.monotonic()
            self.shares.watch(now)
            for connection in list(self.connections):
                connection.watch(now, late=now - due > LATE)
