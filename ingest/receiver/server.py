"""Listen, keep count, watch the clocks, and stop without losing an instance."""

import asyncio
import contextlib
import resource
import sys
import time

from ingest.contract.settings import ReceiverSettings
from ingest.instance import ChunkPool
from ingest.receiver.admission import Admission
from ingest.receiver.connection import RECEIVE_BUFFER, SPARE_BUFFER, Connection
from ingest.receiver.storage import InstanceLog, StorageService

# Idle, stall and rate limits are tens of seconds; looking twice a second is precise enough and costs nothing
# per message.
WATCH_INTERVAL = 0.5  # s


# For the log's segments and marks, the listener, the event loop and the standard streams.
_OWN_DESCRIPTORS = 64


def _spare_descriptors(log: InstanceLog) -> int:
    """How many connections leave this process the descriptors that it needs itself; the log wakes each partition."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, limit - log.partitions - _OWN_DESCRIPTORS)


class Server:
    """The DICOM listener: accepts connections within its limits and owns what they share."""

    def __init__(self, settings: ReceiverSettings, log: InstanceLog) -> None:
        self.settings = settings
        self.maximum_connections = min(settings.maximum_connections, _spare_descriptors(log))
        self.admission = Admission(settings, log)
        self.pool = ChunkPool(settings.buffer_budget)
        self.storage = StorageService(log, self.pool)
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self.small_buffer = self.receive_buffer[:SPARE_BUFFER]
        self.connections: set[Connection] = set()
        self.unused = asyncio.Event()  # set while there is no connection
        self.unused.set()
        self._listener: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; returns the address and port in use.

        Raises:
            OSError: the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), self.settings.host, self.settings.port, backlog=self.settings.backlog
        )
        self._watch = asyncio.create_task(self._watch_clocks())
        host, port = self._listener.sockets[0].getsockname()[:2]
        return str(host), int(port)

    def opened(self, connection: Connection) -> None:
        """A connection was accepted."""
        self.connections.add(connection)
        self.unused.clear()

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self.unused.set()

    async def drain(self) -> None:
        """Stop listening, let instances in progress finish and be answered, then end every association."""
        self.admission.draining = True
        if self._listener is not None:
            self._listener.close()
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
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            now = time.monotonic()
            for connection in list(self.connections):
                connection.watch(now)
