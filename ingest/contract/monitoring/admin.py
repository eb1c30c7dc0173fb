"""The admin port of one process: heartbeat, health, metrics and their server, from start to end."""

import asyncio
from collections.abc import Callable, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Self

from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.monitoring.health import Health
from ingest.contract.monitoring.heartbeat import Heartbeat
from ingest.contract.monitoring.instruments import Gauge, Instrument
from ingest.contract.monitoring.pages import Pages
from ingest.contract.monitoring.server import AdminServer
from ingest.contract.settings import Settings


class Admin:
    """``async with Admin(...)``, in the event loop that is to be watched."""

    def __init__(self, settings: Settings, number: int, warnings: Sequence[str] = ()) -> None:
        """``number``: see `AdminSettings.address`. ``warnings``: shown by ``/readyz``."""
        heartbeat = Heartbeat()
        self.health = Health(heartbeat, settings.admin.liveness_limit, warnings=warnings)
        self._heartbeat = heartbeat
        self._instruments: list[Instrument] = [
            heartbeat.lag,
            Gauge("ready", "Whether /readyz says ready: 1 or 0.", lambda: float(self.health.ready().well)),
            Gauge(
                "build_info",
                "Always 1; the version is in the label.",
                lambda: {(version("dicom-ingest"),): 1.0},
                ("version",),
            ),
        ]
        address = settings.admin.address(number)
        pages = Pages(Exposition(self._instruments), self.health)
        self._server = None if address is None else AdminServer(address, pages, settings.admin)

    @property
    def is_on(self) -> bool:
        """Whether anybody can ask; who counts need not where nobody can."""
        return self._server is not None

    @property
    def port(self) -> int:
        """The TCP port; 0 where there is none."""
        return 0 if self._server is None else self._server.port

    def show(self, instruments: Sequence[Instrument]) -> None:
        """Have these in the metrics, too."""
        self._instruments += instruments

    def ready_unless(self, reasons: Callable[[], Sequence[str]]) -> None:
        """The process has started: ready from now on, whenever there are no ``reasons`` against it."""
        self.health.reasons = reasons

    async def __aenter__(self) -> Self:
        """Open the port, if there is to be one."""
        self._heartbeat.start()
        if self._server is not None:
            self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
        self._heartbeat.stop()
