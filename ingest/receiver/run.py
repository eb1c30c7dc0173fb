"""The receiver process: open the log, listen, serve until told to stop or until the log fails."""

import asyncio
import contextlib
import resource
import signal

import structlog

from ingest.contract.running import announce, withdraw
from ingest.contract.settings import Settings
from ingest.contract.spool import SpoolError
from ingest.log import SpoolWriter
from ingest.receiver.server import Server
from ingest.receiver.storage import InstanceLog

logger = structlog.get_logger(__name__)


async def run_receiver(settings: Settings) -> int:
    """Serve with the spool as log; the exit code: 0 after SIGTERM or SIGINT, 1 when the log failed.

    Raises:
        OSError: the address cannot be bound, or the data folder not used.
    """
    log = SpoolWriter(settings)
    await log.start()
    try:
        failed = await serve(settings, log, log.failed)
    finally:
        await log.close()
    return 1 if failed else 0


async def serve(
    settings: Settings, log: InstanceLog, failed: asyncio.Future[SpoolError] | None = None
) -> bool:
    """Serve with any log until a signal comes or ``failed`` is done; whether the log failed.

    Raises:
        OSError: the address cannot be bound.
    """
    raise_file_limit()
    server = Server(settings.receiver, log)
    host, port = await server.start()
    note = announce(settings.data, "receiver", host=host, port=port, ae_title=settings.receiver.ae_title)
    logger.info("listening", host=host, port=port, ae_title=settings.receiver.ae_title)
    stop = stop_on_signals()
    if failed is not None:
        failed.add_done_callback(lambda _: stop.set())
    await stop.wait()
    withdraw(note)
    log_failed = failed is not None and failed.done()
    if log_failed:
        logger.error("the log failed; the process ends so that recovery decides what is durable")
    await server.drain()
    return log_failed


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def raise_file_limit() -> None:
    """Each connection is a descriptor: use what the system allows, not the shell's default."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
