"""TLS before DICOM: accept, shake hands within the limits, and only then begin the association's connection."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from ingest.contract import audit
from ingest.contract.audit.events import refused
from ingest.contract.settings import ReceiverSettings
from ingest.contract.tls import reason_of
from ingest.receiver.addresses import Addresses
from ingest.receiver.credentials import Credentials

logger = structlog.get_logger(__name__)

# An honest handshake takes milliseconds: at the limit, one that lasts this long gives way to a new one.
_GIVES_WAY: Final = 1.0  # s
_ACCEPT_PAUSE: Final = 0.1  # s, when the system has no more descriptors
# Ciphertext that waits in memory while an association may not read; its plain bytes count for the byte budget.
_READ_AHEAD: Final = 64 * 1024  # bytes


class _Begun(NamedTuple):
    """A handshake under way."""

    at: float  # s, monotonic
    address: str


class Handshakes:
    """Accepts the connections of one listening socket, with whatever certificate is in force then."""

    def __init__(
        self,
        name: str,
        listening: socket.socket,
        credentials: Credentials,
        settings: ReceiverSettings,
        *,
        protocol: Callable[[], asyncio.BaseProtocol],
        has_room: Callable[[], bool],
        refused: Callable[[str], None],
        failed: Callable[[str, str], None],
    ) -> None:
        """``refused`` is told the address of a peer without room, ``failed`` that of one without TLS, and why."""
        self._name = name
        self._listening = listening
        self._credentials = credentials
        self._settings = settings
        self._protocol = protocol
        self._has_room = has_room
        self._refused = refused
        self._failed = failed
        self._addresses: Addresses[socket.socket] = Addresses(settings.maximum_connections_per_address)
        self._begun: dict[socket.socket, _Begun] = {}  # the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def __len__(self) -> int:
        return len(self._begun)

    def close(self) -> None:
        """No more of them; those under way are dropped."""
        self._accepting.cancel()
        self._listening.close()
        for task in self._tasks:
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listening)
            except OSError as error:
                logger.warning("no connection accepted", listener=self._name, why=reason_of(error))
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            if not self._begin(connection, str(address[0])):
                connection.close()
                self._refused(str(address[0]))

    def _begin(self, connection: socket.socket, address: str) -> bool:
        within = self._addresses.enter(connection, address)
        if not within or not self._has_room() or not self._make_way():
            self._addresses.leave(connection)
            return False
        self._begun[connection] = _Begun(time.monotonic(), address)
        task = asyncio.create_task(self._shake(connection, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _make_way(self) -> bool:
        """Whether there is room for another; a peer that stalls must not keep others out."""
        if len(self._begun) < self._settings.maximum_handshakes:
            return True
        oldest, begun = next(iter(self._begun.items()))
        if time.monotonic() - begun.at < _GIVES_WAY:
            return False
        self._ended(oldest)
        with contextlib.suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)
        self._refused(begun.address)
        return True

    def _ended(self, connection: socket.socket) -> None:
        self._begun.pop(connection, None)
        self._addresses.leave(connection)

    async def _shake(self, connection: socket.socket, address: str) -> None:
        limits = self._settings
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._credentials.context,
                ssl_handshake_timeout=limits.handshake_timeout,
                ssl_shutdown_timeout=limits.shutdown_timeout,
            )
        except OSError as error:  # with ssl.SSLError, which is one
            logger.info("TLS handshake failed", listener=self._name, peer=address, why=reason_of(error))
            audit.record(refused("", "", address, f"TLS handshake failed: {reason_of(error)}"))
            if isinstance(error, ssl.SSLError):  # who only looks whether the port is open is refused nothing
                self._failed(address, reason_of(error))
        else:
            transport.set_read_buffer_limits(high=_READ_AHEAD)  # type: ignore[attr-defined]  # of TLS transports alone
        finally:
            self._ended(connection)
