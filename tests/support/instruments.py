"""Every metric that any process shows: for tests of what speaks of them."""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from ingest.commitment.engine import Engine
from ingest.contract.audit import Trail
from ingest.contract.monitoring.admin import Admin
from ingest.contract.monitoring.instruments import Description, Histogram, Instrument
from ingest.contract.settings import Settings
from ingest.log.measures import gauges_of
from ingest.log.spool_backlog import SpoolBacklog
from ingest.receiver.metrics import ReceiverMetrics, commitment_gauges, server_gauges
from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiver
from workers.ledger.process import LedgerMetrics
from workers.metrics import WorkerMetrics, worker_gauges
from workers.pixels.codec import Codec
from workers.worker import Worker

if TYPE_CHECKING:
    from ingest.log.interface import Log

PREFIX: Final = "dicom_ingest_"


def instruments() -> list[Instrument]:
    """Of all processes; their names, not their values."""
    found: list[Instrument] = [*ReceiverMetrics().instruments, *WorkerMetrics().instruments]
    logs = SpoolBacklog(lambda: 0, lambda: 0, lambda: 0).gauges
    for kind in ("spool", "kafka"):
        settings = Settings.model_validate({"log": {"kind": kind}})
        logs += gauges_of(settings, cast("Log", MemoryLog()))
    found += {
        gauge.description.name: gauge for gauge in logs
    }.values()  # a process has one log: names of both are one
    found += commitment_gauges(Engine.__new__(Engine))
    found += Trail(Settings.model_validate({"audit": {"destination": "file"}}), "receiver").instruments
    found += LedgerMetrics().instruments
    found += worker_gauges(Worker.__new__(Worker), Codec.__new__(Codec))

    async def of_running() -> None:
        found.extend(Admin(Settings(), 0)._instruments)
        async with receiver(MemoryLog()) as (_, server):
            found.extend(server_gauges(server))

    asyncio.run(of_running())
    return found


def sample_names() -> dict[str, Description]:
    """Every name that a rule may use."""
    names = {}
    for instrument in instruments():
        endings = ("_bucket", "_count", "_sum") if isinstance(instrument, Histogram) else ("",)
        for ending in endings:
            names[PREFIX + instrument.description.name + ending] = instrument.description
    return names
