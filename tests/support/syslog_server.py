"""A syslog receiver over TLS (RFC 5425), which can go away and come back on its port."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast


class SyslogServer:
    """Keeps the messages that it gets. Ask for client certificates with ``client_ca``."""

    def __init__(self, certificate: tuple[Path, Path], client_ca: Path | None = None, port: int = 0) -> None:
        self.messages: list[bytes] = []
        self.peers: list[str] = []  # common names of client certificates
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_ca)
        self._listening = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listening.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Away: what is connected is cut."""
        accepting, *_ = self._threads
        _shut_down(self._listening)
        accepting.join(60)  # after which there are no more connections
        for connection in self._connections:
            _shut_down(connection)
        for thread in self._threads:
            thread.join(60)
        for one in (self._listening, *self._connections):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            try:
                connection = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            except OSError:
                continue  # it has gone again
            self._connections.append(connection)
            thread = threading.Thread(target=self._read, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _read(self, connection: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as file:
            connection.do_handshake()
            self.peers += _common_names(connection)
            while length := _length(file.read(1), file):
                message = file.read(length)
                if len(message) == length:
                    self.messages.append(message)


def _shut_down(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(one, socket.SHUT_RDWR)  # not TLS's, which unmakes what its thread reads from


def _common_names(connection: ssl.SSLSocket) -> list[str]:
    """Of the peer's certificate, if it has shown one."""
    subject = cast(
        "tuple[tuple[tuple[str, str], ...], ...]", (connection.getpeercert() or {}).get("subject", ())
    )
    return [value for part in subject for name, value in part if name == "commonName"]


def _length(first: bytes, file: BinaryIO) -> int:
    """MSG-LEN SP (RFC 5425 4.3); 0 at the end."""
    digits = b""
    while first and first != b" ":
        assert first.isdigit()
        digits += first
        first = file.read(1)
    return int(digits or b"0")
