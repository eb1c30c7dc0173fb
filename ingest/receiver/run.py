"""The receiver process: open the log, listen, serve until told to stop or until the log fails."""

import asyncio
import contextlib
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ingest.commitment.interface import Commitments
from ingest.contract.audit import Trail
from ingest.contract.kafka import single_copy_note
from ingest.contract.monitoring.admin import Admin
from ingest.contract.running import announce, withdraw
from ingest.contract.settings import Settings
from ingest.contract.stop_signals import stop_by_signal
from ingest.log import InstanceLog, Log, commitment_log_of, log_of
from ingest.log.measures import gauges_of, spool_backlog_of
from ingest.receiver.metrics import ReceiverMetrics, commitment_gauges, server_gauges
from ingest.receiver.reload import Reloading
from ingest.receiver.server import Server
from ingest.receiver.telemetry import Telemetry
from ingest.receiver.unknown_sources import UnknownQuota

if TYPE_CHECKING:
    from ingest.commitment.engine import Engine

logger = structlog.get_logger(__name__)


async def run_receiver(settings: Settings, load: Callable[[], Settings] | None = None) -> int:
    """Serve with the log of the settings; the exit code: 0 after SIGTERM or SIGINT, 1 when the log failed.

    ``load`` reads the settings again on SIGHUP.

    Raises:
        WrongCertificate: the files of a listener cannot be used.
        OSError: the address cannot be bound, or the data folder not used.
        KafkaUnreachable, TopicMismatch: see `ingest.contract.kafka`.
    """
    trail = Trail(settings, "receiver")
    async with Admin(settings, 0, admin_warnings(settings)) as admin:
        admin.show(trail.instruments)
        log = log_of(settings)
        await log.start()
        engine = None
        try:
            if admin.is_on:
                admin.show(gauges_of(settings, log))
            if settings.commitment.enabled:
                engine = await _commitment_engine(settings, log)
                admin.show(commitment_gauges(engine))
            elif _may_have_served(settings):
                from ingest.commitment.unserved import tell_beside  # noqa: PLC0415 - as the engine

                tell_beside(settings)
            taken = engine.take_sources if engine is not None else None
            with trail:
                try:
                    failed = await serve(settings, log, log.failed, engine, admin, load=load, taken=taken)
                finally:
                    if engine is not None:
                        await engine.close()
        finally:
            await log.close()
        return 1 if failed else 0


def admin_warnings(settings: Settings) -> list[str]:
    """What `/readyz` tells besides: a loss that nothing here would prevent."""
    return [*single_copy_note(settings), *filter(None, [settings.commitment_note])]


async def _commitment_engine(settings: Settings, log: Log) -> "Engine":
    """Started; loaded only where commitment is served, since a receiver's memory is counted in MiB."""
    from ingest.commitment.engine import Engine  # noqa: PLC0415 - see above
    from ingest.sender.commitment import report  # noqa: PLC0415 - see above

    engine = Engine(settings, log, commitment_log_of(settings), report)
    await engine.start()
    engine.failed.add_done_callback(partial(_pass_on, log.failed))
    return engine


def _may_have_served(settings: Settings) -> bool:
    """Whether storage commitment can have been on before, as far as a look at the data folder tells."""
    return settings.log.kind == "kafka" or (settings.data / "commitments").is_dir()


def _pass_on(log_failed: asyncio.Future[Exception], failed: asyncio.Future[Exception]) -> None:
    """The commitment log's failure ends the process as the instance log's does."""
    if not failed.cancelled() and not log_failed.done():
        log_failed.set_result(failed.result())


async def serve(
    settings: Settings,
    log: InstanceLog,
    failed: asyncio.Future[Exception] | None = None,
    commitments: Commitments | None = None,
    admin: Admin | None = None,
    *,
    load: Callable[[], Settings] | None = None,
    taken: Callable[[Settings], None] | None = None,
) -> bool:
    """Serve with any log until a signal comes or ``failed`` is done; whether the log failed.

    ``load`` reads the settings again on SIGHUP; ``taken`` is told of those that are valid.

    Raises:
        OSError: an address cannot be bound.
        WrongCertificate: the files of a listener cannot be used.
    """
    raise_file_limit()
    metrics = ReceiverMetrics() if admin is not None and admin.is_on else None
    telemetry = Telemetry(settings, metrics)
    server = Server(
        settings.receiver,
        log,
        commitments,
        settings.commitment,
        telemetry,
        listeners=settings.listeners,
        sources=settings.sources,
        quota=UnknownQuota(settings.receiver, settings.data),
    )
    await server.start()
    telemetry.refusals.start()
    watching: asyncio.Task[None] | None = None
    if admin is not None and metrics is not None:
        admin.ready_unless(partial(_against_ready, server, failed))
        watching = _show(admin, metrics, server, settings)
    stop = stop_by_signal()
    if failed is not None:
        failed.add_done_callback(lambda _: stop.set())
    reloading = Reloading(settings, load, partial(_take, server, taken), stop) if load else None
    note = _announce(settings, server)
    await stop.wait()
    if watching is not None:
        watching.cancel()
    if reloading is not None:
        reloading.close()
    withdraw(note)
    log_failed = failed is not None and failed.done()
    if log_failed:
        logger.error("the log failed; the process ends so that recovery decides what is durable")
    await server.drain()
    await telemetry.refusals.close()
    server.admission.sources.quota.close()
    return log_failed


def _show(
    admin: Admin, metrics: ReceiverMetrics, server: Server, settings: Settings
) -> asyncio.Task[None] | None:
    """Put all that is counted on the admin port; the task that counts on, where the log needs one."""
    admin.show([*metrics.instruments, *server_gauges(server)])
    backlog = spool_backlog_of(settings, server.log, metrics.acknowledged)
    if backlog is None:
        return None
    admin.show(backlog.gauges)
    return asyncio.create_task(backlog.watch())


def _against_ready(server: Server, failed: asyncio.Future[Exception] | None) -> list[str]:
    """Why no new associations should come here."""
    found = []
    if server.admission.draining:
        found.append("draining")
    if failed is not None and failed.done():
        found.append("the log has failed")
    elif (refusal := server.log.refusal()) is not None:
        found.append(f"instances are refused: {refusal}")
    if server.admission.associations >= server.settings.maximum_associations:
        found.append("as many associations as receiver.maximum_associations")
    return found


def _announce(settings: Settings, server: Server) -> Path:
    first, ae_title = server.bound[0], settings.receiver.ae_title
    for bound in server.bound:
        logger.info("listening", host=bound.host, port=bound.port, tls=bound.tls, ae_title=ae_title)
    return announce(
        settings.data,
        "receiver",
        host=first.host,
        port=first.port,
        ae_title=ae_title,
        listeners=tuple(map(str, server.bound)),
    )


async def _take(server: Server, taken: Callable[[Settings], None] | None, settings: Settings) -> None:
    await server.reload(settings.receiver, settings.sources)
    server.telemetry.take_sources(settings)
    if taken is not None:
        taken(settings)


def raise_file_limit() -> None:
    """Each connection is a descriptor: use what the system allows, not the shell's default."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
