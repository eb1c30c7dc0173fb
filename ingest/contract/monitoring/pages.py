"""What the admin port shows: ``/metrics``, ``/livez``, ``/readyz``."""

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.monitoring.health import Health, Verdict

_KEPT: Final = 1.0  # s that a page of metrics serves again, so that many readers cost no more than one
_KEPT_AT_MOST: Final = 4  # forms of it: Prometheus asks for one
_MAXIMUM_ACCEPT: Final = 512  # characters
_PATIENCE: Final = 5.0  # s that a reader of metrics waits for another's page


class Page(NamedTuple):
    """An answer."""

    status: int
    content_type: str
    body: bytes


class Pages:
    """All pages of one process; any thread may ask. Metrics may wait for a disk, and nothing else for them."""

    def __init__(
        self, exposition: Exposition, health: Health, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._exposition = exposition
        self._health = health
        self._clock = clock
        self._making = threading.Lock()
        self._kept: dict[str, tuple[float, Page]] = {}

    def get(self, path: str, accept: str) -> Page | None:
        """The page of a path; None where there is none."""
        if path == "/metrics":
            return self._metrics(accept[:_MAXIMUM_ACCEPT])
        if path == "/livez":
            return _told(self._health.live())
        if path == "/readyz":
            return _told(self._health.ready())
        return None

    def _metrics(self, accept: str) -> Page:
        if not self._making.acquire(timeout=_PATIENCE):
            return Page(
                HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"what another reader waits for hangs\n"
            )
        try:
            return self._made(accept)
        finally:
            self._making.release()

    def _made(self, accept: str) -> Page:
        now = self._clock()
        made, page = self._kept.get(accept, (0.0, None))
        if page is None or now - made > _KEPT:
            body, content_type = self._exposition.text(accept)
            page = Page(200, content_type, body)
            if len(self._kept) >= _KEPT_AT_MOST:
                self._kept.clear()
            self._kept[accept] = now, page
        return page


def _told(verdict: Verdict) -> Page:
    told: dict[str, object] = {"status": "ok" if verdict.well else "failing"}
    if verdict.reasons:
        told["reasons"] = list(verdict.reasons)
    if verdict.warnings:
        told["warnings"] = list(verdict.warnings)
    return Page(200 if verdict.well else 503, "application/json", msgspec.json.encode(told) + b"\n")
