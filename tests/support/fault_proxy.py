"""A proxy in front of a real S3 server that does to chosen requests what networks and stores do.

Requests pass unchanged (their signature covers the Host header, which stays), so what is stored is what a real
server stored; only the answers lie, come late, or do not come.
"""

import enum
import http.client
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import ClassVar, NamedTuple, Self
from urllib.parse import urlsplit

RATE = 1024  # bytes a second of a slow store
LATE = 1.5  # seconds
_WRONG_AT = 600  # the byte that is another; of our objects one of the manifest


class Action(enum.Enum):
    """What happens to a request."""

    PASS = enum.auto()
    ERROR_503 = enum.auto()  # nothing is stored
    STORE_500 = enum.auto()  # the server does it, and 500 is answered
    STORE_SILENCE = enum.auto()  # the server does it, and nothing is answered
    STORE_RESET = enum.auto()  # the server does it, and the connection is reset
    MISSING_404 = enum.auto()  # nothing is stored; as of an object that is not there
    CONFLICT_409 = enum.auto()  # nothing is stored; as AWS answers concurrent conditional writes
    HANG = enum.auto()  # nothing is stored, nothing is answered
    HELD = enum.auto()  # the server gets it when the proxy heals, whoever still waits for the answer
    SLOW_REQUEST = enum.auto()  # the body is taken at 1 KB/s
    LATE = enum.auto()  # the server does it, and the answer comes some time later
    SLOW_ANSWER = enum.auto()  # the answer's body goes out at 1 KB/s
    WRONG = enum.auto()  # a byte of the answer's body is another
    TRUNCATED = enum.auto()  # the answer ends early, its length says otherwise
    SHORT = enum.auto()  # the answer is shorter, and its length agrees
    NO_CHECKSUM = enum.auto()  # the answer lacks checksums, as of a store that keeps none
    LIE_200 = enum.auto()  # "done" is answered, whatever the server answered


class Request(NamedTuple):
    """What a fault is chosen by."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case


class Fault(NamedTuple):
    """Do ``action`` to the next ``times`` requests that match."""

    matches: Callable[[Request], bool]
    action: Action
    times: int


def puts_of(part: str) -> Callable[[Request], bool]:
    """PUTs whose path contains ``part``."""
    return lambda request: request.method == "PUT" and part in request.path


def gets_of(part: str) -> Callable[[Request], bool]:
    """GETs whose path contains ``part``."""
    return lambda request: request.method == "GET" and part in request.path


def everything(_: Request) -> bool:
    """All requests."""
    return True


class FaultProxy:
    """Listens on loopback; `fault` scripts what is next."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint``: the server behind it."""
        address = urlsplit(endpoint)
        self.behind = (str(address.hostname), int(address.port or 80))
        self.faults: list[Fault] = []
        self.requests: list[tuple[Request, Action]] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, matches: Callable[[Request], bool], action: Action, times: int = 1_000_000) -> None:
        """Script one more fault; the first that matches counts."""
        with self._lock:
            self.faults.append(Fault(matches, action, times))

    def heal(self) -> None:
        """No more faults; what hangs is let go."""
        with self._lock:
            self.faults.clear()
        self.stopping.set()
        self.stopping = threading.Event()

    def action_for(self, request: Request) -> Action:
        """What to do with a request."""
        with self._lock:
            action = Action.PASS
            for index, fault in enumerate(self.faults):
                if fault.matches(request):
                    action = fault.action
                    self.faults[index] = fault._replace(times=fault.times - 1)
                    if fault.times == 1:
                        del self.faults[index]
                    break
            self.requests.append((request, action))
            return action

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that goes away is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[FaultProxy]

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers)
        action = self.proxy.action_for(request)
        stopping = self.proxy.stopping
        length = int(headers.get("content-length", 0))
        body = self._slowly(length, stopping) if action is Action.SLOW_REQUEST else self.rfile.read(length)
        if len(body) < length:  # broken off: half a request would keep the server waiting, its object locked
            self.close_connection = True
            return
        self._act(action, body, stopping)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Nothing: the requests are recorded."""

    def _slowly(self, length: int, stopping: threading.Event) -> bytes:
        taken = b""
        while len(taken) < length and not stopping.wait(0.1):
            piece = self.rfile.read(min(RATE // 10, length - len(taken)))
            if not piece:
                break
            taken += piece
        return taken

    def _act(self, action: Action, body: bytes, stopping: threading.Event) -> None:
        if action is Action.HANG:
            self._hang(stopping)
        elif action is Action.HELD:
            stopping.wait()
            self._pass(Action.PASS, body, stopping)
        elif action is Action.ERROR_503:
            self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
        elif action is Action.MISSING_404:
            self._answer(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
        elif action is Action.CONFLICT_409:
            self._answer(409, {}, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
        else:
            self._pass(action, body, stopping)

    def _pass(self, action: Action, body: bytes, stopping: threading.Event) -> None:
        upstream = http.client.HTTPConnection(*self.proxy.behind, timeout=60)
        try:
            upstream.request(self.command, self.path, body=body or None, headers=dict(self.headers.items()))
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        headers = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection", "content-length")
        }
        if action is Action.NO_CHECKSUM:
            headers = {name: headers[name] for name in headers if "checksum" not in name.lower()}
        if self.command == "HEAD" and answer.getheader("content-length"):
            headers["Content-Length"] = str(answer.getheader("content-length"))
        if action is Action.STORE_500:
            self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
        elif action is Action.LATE:
            stopping.wait(LATE)
            self._answer(answer.status, headers, content)
        elif action is Action.STORE_SILENCE:
            self._hang(stopping)
        elif action is Action.STORE_RESET:
            self._reset()
        elif action is Action.LIE_200:
            done = b'<CompleteMultipartUploadResult><ETag>"lie"</ETag></CompleteMultipartUploadResult>'
            self._answer(200, {**headers, "ETag": '"lie"'}, done if self.command == "POST" else b"")
        elif action is Action.WRONG and content:
            at = min(len(content) - 1, _WRONG_AT)
            self._answer(answer.status, headers, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        elif action is Action.SHORT and content:
            self._answer(answer.status, headers, content[:-1])
        elif action is Action.TRUNCATED:
            self._answer(answer.status, headers, content[: len(content) // 2], len(content))
            self.close_connection = True
        else:
            self._answer(
                answer.status, headers, content, slow=stopping if action is Action.SLOW_ANSWER else None
            )

    def _answer(
        self,
        status: int,
        headers: dict[str, str],
        content: bytes,
        length: int | None = None,
        slow: threading.Event | None = None,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and status not in (204, 304):
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        step = RATE // 10 if slow else max(len(content), 1)
        for offset in range(0, len(content), step):
            self.wfile.write(content[offset : offset + step])
            if slow and slow.wait(0.1):
                break

    def _hang(self, stopping: threading.Event) -> None:
        stopping.wait()
        self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
