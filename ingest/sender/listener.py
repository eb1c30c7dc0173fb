"""Where an SCP of storage commitment reports to us on associations that it opens (PS3.4 J.3.3.1.2)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from ingest.association import (
    AcceptorPolicy,
    AssociateRequested,
    Association,
    CloseTransport,
    Event,
    Fragment,
    FragmentRun,
    ReleaseRequested,
    SendData,
    SendPdu,
    negotiate,
)
from ingest.sender.inbox import Inbox, Took

_READ: Final = 64 * 1024  # bytes
_CONNECTIONS: Final = 16  # one peer is waited for; more than this at a time is somebody else
_GRACE: Final = 5.0  # seconds for a peer to release once we have what we wait for


@contextlib.asynccontextmanager
async def listening(
    address: tuple[str, int], ae_title: str, took: Took, *, silence: float
) -> AsyncIterator[int]:
    """Listen while the context lasts; the port in use.

    Args:
        address: host and port to bind.
        ae_title: ours: associations that call another are rejected.
        took: gets each report.
        silence: seconds after which a connection that says nothing is closed.

    Raises:
        OSError: the address cannot be bound.
    """
    policy = AcceptorPolicy(ae_title, storage=False, commitment_scu=True)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # asyncio runs this in a task of its own
        if len(tasks) >= _CONNECTIONS:
            writer.close()
            return
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await _Incoming(reader, writer, policy, took).run(silence)

    server = await asyncio.start_server(accept, *address)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_GRACE)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)


@dataclass
class _Incoming:
    """One connection of a peer, and its association."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    policy: AcceptorPolicy
    took: Took
    association: Association = field(default_factory=Association)

    async def run(self, silence: float) -> None:
        """Serve it until it ends, or says nothing."""
        self.inbox = Inbox(self.association, _passed_over, self.took)
        self.association.transport_opened()
        self._perform_events()
        try:
            with contextlib.suppress(OSError):  # a TimeoutError is one too
                while data := await asyncio.wait_for(self.reader.read(_READ), silence):
                    self.association.receive_data(memoryview(data))
                    self._perform_events()
        finally:
            self.writer.close()
            with contextlib.suppress(OSError):
                await self.writer.wait_closed()

    def _perform_events(self) -> None:
        while (event := self.association.next_event()) is not None:
            self._perform(event)

    def _perform(self, event: Event) -> None:
        if isinstance(event, Fragment | FragmentRun):
            self.inbox.take(event)
        elif isinstance(event, SendPdu):
            self.writer.write(event.pdu)
        elif isinstance(event, SendData):
            self.writer.writelines(event.buffers)
        elif isinstance(event, AssociateRequested):
            self.association.answer(negotiate(event.request, self.policy))
        elif isinstance(event, ReleaseRequested):
            self.association.release_response()
        elif isinstance(event, CloseTransport):
            self.writer.close()
        # ARTIM is the timeout of each read; how an association ends changes nothing here.


def _passed_over(_message: object) -> None:
    """A response to nothing: nothing is asked on these associations."""
