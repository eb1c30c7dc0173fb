"""The HTTP server of the admin port: Python's own, in threads beside the event loop, and bounded.

Whoever reaches the port can cost this process no more than ``admin.connections`` small threads, each for ``admin.deadline``
seconds, and ``admin.rate`` answers a second. When all are taken, the oldest connection is closed for the newest: a probe gets
through between peers that hold theirs.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, Final

import structlog

from ingest.contract.admin_settings import AdminSettings
from ingest.contract.monitoring.pages import Page, Pages

PROCESS_HEADER: Final = "Process-Id"  # who answers: the port may be that of another installation
_BURST: Final = 20.0  # connections at once before the rate holds
_BACKLOG: Final = 16
_BIND_AGAIN: Final = 5.0  # s; the port may be that of a process that is about to end
_POLL: Final = 0.5  # s between looks for connections past their deadline
_ACCEPT_PAUSE: Final = 0.1  # s, when the system has no more descriptors

logger = structlog.get_logger(__name__)


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, and the connection is closed."""

    server: "_Server"
    server_version = "dicom-ingest"
    sys_version = ""

    def setup(self) -> None:
        """Of one connection."""
        super().setup()
        self.connection.settimeout(self.server.settings.deadline)

    def do_GET(self) -> None:
        """The page of the path."""
        page = self.server.pages.get(self.path.partition("?")[0], self.headers.get("Accept", ""))
        self._answer(
            page or Page(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /livez and /readyz are here\n")
        )

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _answer(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header(PROCESS_HEADER, str(os.getpid()))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the library's signature
        """What the library says against a request, without repeating it."""
        self.close_connection = True
        self._answer(Page(code, "text/plain", b"not understood\n"))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing: a probe every few seconds is no event, and what a peer asks for is not for the log."""


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self, address: tuple[str, int], pages: Pages, settings: AdminSettings) -> None:
        self.settings = settings
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.pages = pages
        self._open: dict[socket.socket, float] = {}  # since when, oldest first
        self._lock = threading.Lock()
        self._allowance, self._allowed_at = _BURST, time.monotonic()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the library's look for a host name, which may ask the network."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; one that cannot be accepted would be tried again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_ACCEPT_PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own; see `AdminSettings`."""
        self._keep_to_rate()
        with self._lock:
            if len(self._open) >= self.settings.connections:
                oldest = next(iter(self._open))
                _break(oldest)
                del self._open[oldest]
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """It is over."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def end_late(self) -> None:
        """End what is past its deadline, however busily it goes on; to be called again and again."""
        with self._lock:
            for request, since in list(self._open.items()):
                if time.monotonic() - since > self.settings.deadline:
                    _break(request)
                    del self._open[request]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's signature
        """A peer that went away, as a rule; the library would print what it sent."""
        logger.debug("an admin connection has failed", error=type(sys.exception()).__name__)

    def _keep_to_rate(self) -> None:
        now = time.monotonic()
        self._allowance = min(_BURST, self._allowance + (now - self._allowed_at) * self.settings.rate)
        self._allowed_at = now
        self._allowance -= 1
        if self._allowance < 0:
            time.sleep(1 / self.settings.rate)


def _break(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class AdminServer:
    """Serves `Pages` from `start` to `stop`. A port that is taken is tried again and again: reception comes first."""

    def __init__(self, address: tuple[str, int], pages: Pages, settings: AdminSettings) -> None:
        self._address = address
        self._settings = settings
        self._pages = pages
        self._server: _Server | None = None
        self._stopping = threading.Event()
        self._told = False  # that the port cannot be had
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    @property
    def port(self) -> int:
        """The TCP port in use; 0 while there is none."""
        return 0 if self._server is None else self._server.server_port

    def start(self) -> None:
        """Listen, if the port can be had at once, and serve."""
        self._bind()
        self._thread.start()

    def stop(self) -> None:
        """Close the port; returns when it is closed."""
        self._stopping.set()
        self._thread.join()

    def _bind(self) -> bool:
        try:
            self._server = _Server(self._address, self._pages, self._settings)
        except OSError as error:
            if not self._told:
                self._told = True
                logger.warning(
                    "the admin port cannot be had yet: no metrics and no probes; see the setting admin.listen",
                    host=self._address[0],
                    port=self._address[1],
                    reason=error.strerror,
                )
            return False
        logger.info("admin port", host=self._address[0], port=self._server.server_port)
        return True

    def _run(self) -> None:
        while self._server is None:
            if self._stopping.wait(_BIND_AGAIN):
                return
            self._bind()
        with self._server as server:
            server.timeout = _POLL
            while not self._stopping.is_set():
                server.handle_request()
                server.end_late()
