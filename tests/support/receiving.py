"""The receiver in the test's own process, on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager

from ingest.commitment.interface import Commitments
from ingest.contract.peer_settings import ListenerSettings
from ingest.contract.settings import CommitmentSettings, ReceiverSettings, SourceSettings
from ingest.receiver.connection import Connection
from ingest.receiver.operations import Operations
from ingest.receiver.server import Server
from ingest.receiver.telemetry import Telemetry
from tests.support.memory_log import MemoryLog
from tests.support.scu import Scu


@asynccontextmanager
async def receiver(
    log: MemoryLog,
    commitments: Commitments | None = None,
    commitment_settings: CommitmentSettings | None = None,
    telemetry: Telemetry | None = None,
    *,
    listeners: Mapping[str, ListenerSettings] | None = None,
    sources: Mapping[str, SourceSettings] | None = None,
    **settings: object,
) -> AsyncIterator[tuple[int, Server]]:
    """A receiver on a free port of loopback."""
    limits = ReceiverSettings.model_validate({"port": 0, "drain_timeout": 5.0, **settings})
    server = Server(
        limits,
        log,
        commitments,
        commitment_settings,
        telemetry,
        listeners=listeners or {},
        sources=sources or {},
    )
    _, port = await server.start()
    try:
        yield port, server
    finally:
        await Scu.close_all()
        await server.drain()


def run(scenario: Coroutine[None, None, None]) -> None:
    asyncio.run(scenario)


def limit(server: Server, **changes: object) -> None:
    """From now on: what comes before is not to meet a short timer on a busy machine. A message's own are its connection's."""
    server.settings = server.settings.model_copy(update=changes)


def unsent(connection: Connection) -> int:
    """Bytes that its peer does not read."""
    return connection.transport.get_write_buffer_size() if connection.transport else 0


def operations(connection: Connection) -> Operations:
    """What is asked on its association, which it has."""
    assert connection._operations is not None
    return connection._operations
