"""All addresses that the receiver listens on: plain ones by the event loop itself, those with TLS by `Handshakes`."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog

from ingest.contract.peer_settings import ListenerSettings
from ingest.contract.settings import ReceiverSettings
from ingest.receiver.credentials import Credentials
from ingest.receiver.handshakes import Handshakes

logger = structlog.get_logger(__name__)


class Bound(NamedTuple):
    """An address in use."""

    name: str  # of the listener; empty for the receiver's own
    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + (" with TLS" if self.tls else "")


class Listeners:
    """Opens and closes them together."""

    def __init__(
        self,
        settings: ReceiverSettings,
        listeners: Mapping[str, ListenerSettings],
        protocol: Callable[[], asyncio.BaseProtocol],
        has_room: Callable[[int], bool],
        *,
        refused: Callable[[str], None],
        failed: Callable[[str, str], None],
    ) -> None:
        """Prepare to listen.

        ``protocol`` makes what handles a connection; ``has_room`` tells whether so many handshakes fit beside the
        connections that there are; ``refused`` and ``failed`` as for `Handshakes`.

        Raises:
            WrongCertificate: the files of a listener cannot be used.
        """
        self._settings = settings
        self._listeners = listeners
        self._protocol = protocol
        self._has_room = has_room
        self._refused = refused
        self._failed = failed
        self._credentials = {
            name: Credentials(name, listener)
            for name, listener in listeners.items()
            if listener.certificate_file
        }
        self._servers: list[asyncio.Server] = []
        self._handshakes: list[Handshakes] = []
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> list[Bound]:
        """Listen on all of them.

        Raises:
            OSError: one cannot be bound; then none is.
        """
        places = [("", self._settings.host, self._settings.port)] if self._settings.host else []
        places += [(name, listener.host, listener.port) for name, listener in self._listeners.items()]
        try:
            bound = [await self._open(*place) for place in places]
        except OSError:
            self.close()
            raise
        if self._credentials:
            self._watch = asyncio.create_task(self._watch_certificates())
        return bound

    async def _open(self, name: str, host: str, port: int) -> Bound:
        loop = asyncio.get_running_loop()
        credentials = self._credentials.get(name)
        if credentials is None:
            server = await loop.create_server(self._protocol, host, port, backlog=self._settings.backlog)
            self._servers.append(server)
            used = server.sockets[0].getsockname()
        else:
            listening = _bind(name, host, port, self._settings.backlog)
            used = listening.getsockname()
            self._handshakes.append(
                Handshakes(
                    name,
                    listening,
                    credentials,
                    self._settings,
                    protocol=self._protocol,
                    has_room=self._room,
                    refused=self._refused,
                    failed=self._failed,
                )
            )
        return Bound(name, str(used[0]), int(used[1]), credentials is not None)

    def _room(self) -> bool:
        return self._has_room(sum(map(len, self._handshakes)) + 1)

    async def refresh(self) -> None:
        """Take certificate files that have changed."""
        for credentials in self._credentials.values():
            await asyncio.to_thread(credentials.refresh)

    def close(self) -> None:
        """Listen no more; established connections go on."""
        for server in self._servers:
            server.close()
        for handshakes in self._handshakes:
            handshakes.close()
        if self._watch is not None:
            self._watch.cancel()

    async def _watch_certificates(self) -> None:
        while True:
            await asyncio.sleep(self._settings.certificate_interval)
            await self.refresh()


def _bind(name: str, host: str, port: int, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        where = f"listeners.{name}, {host}:{port}"
        number = error.errno or 0
        # Python puts the address into its text; a resolver's number, below 0, is none of the system's.
        raise OSError(number, os.strerror(number) if number > 0 else error.strerror, where) from None
    listening.setblocking(False)
    return listening
