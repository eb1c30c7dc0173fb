"""A TCP proxy on loopback that can lose answers, go silent, or cut: what networks do between two live processes."""

import contextlib
import enum
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


class Mode(enum.Enum):
    """What happens to the bytes."""

    PASS = enum.auto()
    SILENT = enum.auto()  # nothing is forwarded either way; connections stay open
    LOSE_ANSWERS = enum.auto()  # what the client sends arrives; what is answered does not
    REFUSE = enum.auto()  # open connections are reset, new ones too


class TcpProxy:
    """Listens on ``port`` and forwards to ``target``; `set` changes what it does from now on."""

    def __init__(self, target: int) -> None:
        """``target``: a port on loopback."""
        self._target = target
        self._mode = Mode.PASS
        self._changed = threading.Condition()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.lost = 0  # bytes of answers that did not arrive

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def set(self, mode: Mode) -> None:
        """From now on; back from `Mode.LOSE_ANSWERS`, connections that lost bytes are reset."""
        with self._changed:
            before, self._mode = self._mode, mode
            self._changed.notify_all()
        if mode is Mode.REFUSE or before is Mode.LOSE_ANSWERS:
            self.cut()

    def cut(self) -> None:
        """Reset every open connection."""
        with self._changed:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            pair = client, server
            with self._changed:
                self._pairs.add(pair)
                refused = self._mode is Mode.REFUSE
            if refused:
                self._end(pair)
                continue
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(pair, source, sink, answers), daemon=True).start()

    def _pump(
        self,
        pair: tuple[socket.socket, socket.socket],
        source: socket.socket,
        sink: socket.socket,
        answers: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                with self._changed:
                    self._changed.wait_for(lambda: self._mode is not Mode.SILENT or pair not in self._pairs)
                    lose = answers and self._mode is Mode.LOSE_ANSWERS
                    self.lost += len(data) if lose else 0
                if not lose:
                    sink.sendall(data)
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._changed:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
            self._changed.notify_all()
        for end in pair:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)
            end.close()
