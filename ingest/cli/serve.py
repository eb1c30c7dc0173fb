"""Run everything on this machine: one receiver, its workers and the ledger, supervised."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Final, Unpack

import click
import structlog

from ingest.cli.supervisor import Child, Supervisor
from ingest.contract.command_options import (
    ServeFlags,
    config_option,
    serve_flags,
    serve_options,
    settings_or_exit,
)
from ingest.contract.running import announce, make_run_folder, run_folder, running_processes, withdraw
from ingest.contract.settings import Settings
from ingest.contract.telemetry import configure_telemetry
from ingest.contract.uncaught import report_uncaught

_STOP_MARGIN: Final = 10.0  # seconds beyond a child's own deadline, for its last flush

logger = structlog.get_logger(__name__)


@click.command()
@config_option
@serve_options
def serve(config: Path | None, **flags: Unpack[ServeFlags]) -> None:
    """Run everything on this machine: one receiver, its workers and the ledger, supervised.

    Stops on SIGTERM or Ctrl-C: instances in progress are finished and answered first; a second signal kills.
    """
    settings = settings_or_exit(config, serve_flags(flags)).settings
    configure_telemetry(settings.telemetry, "serve")
    with contextlib.ExitStack() as held:
        try:
            make_run_folder(settings.data)
            held.enter_context(_exclusive(settings.data))
            own = announce(settings.data, "serve")
        except OSError as error:
            raise click.ClickException(f"data folder {settings.data}: {error.strerror}") from None
        try:
            code = asyncio.run(_supervise(settings, _given(config, flags)))
        finally:
            withdraw(own)
    raise SystemExit(code)


def _exclusive(data: Path) -> IO[str]:
    """Lock the data folder for this supervisor; the lock ends with the process, however it ends."""
    file = (run_folder(data) / "serve.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        other = next(
            (f" (process {found.pid})" for found in running_processes(data) if found.name == "serve"), ""
        )
        raise click.ClickException(f"another `serve`{other} runs on the data folder {data}") from None
    return file


def _given(config: Path | None, flags: ServeFlags) -> tuple[list[str], list[str]]:
    """The flags that all children get again, and those of the receiver alone."""
    common = ["--supervisor", str(os.getpid())]
    receiver = []
    if config is not None:
        common += ["--config", str(config)]
    if flags["data"] is not None:
        common += ["--data", str(flags["data"])]
    if flags["listen"] is not None:
        host, port = flags["listen"]
        receiver += ["--listen", f"[{host}]:{port}"]
    if flags["ae_title"] is not None:
        receiver += ["--ae-title", flags["ae_title"]]
    return common, receiver


async def _supervise(settings: Settings, given: tuple[list[str], list[str]]) -> int:
    report_uncaught(asyncio.get_running_loop())
    common, receiver_only = given
    program = [sys.executable, "-m", "ingest"]
    receiver = Child(
        "receiver",
        [*program, "receiver", *common, *receiver_only],
        settings.receiver.drain_timeout + _STOP_MARGIN,
        partial(_announced, settings.data, "receiver"),
        reloads=True,
    )
    command = [*program, "worker", *common]
    workers = (
        _grouped_workers(settings, command) if settings.log.kind == "kafka" else _workers(settings, command)
    )
    supervisor = Supervisor([receiver], workers, _ledger(settings, [*program, "ledger", "run", *common]))
    return await supervisor.run(lambda: _say_ready(settings, len(workers)))


def _ledger(settings: Settings, command: list[str]) -> list[Child]:
    """The ledger's process, after those that receive and store, which do not wait for it."""
    if not settings.ledger.enabled:
        return []
    ready = partial(_announced, settings.data, "ledger")
    return [Child("ledger", command, _STOP_MARGIN, ready, vital=False)]


def _workers(settings: Settings, command: list[str]) -> list[Child]:
    """Workers of the spool, among whom its partitions are shared out."""
    return [
        Child(
            name,
            [*command, "--partitions", ",".join(map(str, share))],
            settings.worker.stop_timeout + _STOP_MARGIN,
            partial(_announced, settings.data, name),
        )
        for name, share in (
            (f"worker-{share[0]}", share)
            for share in share_out(settings.log.partitions, worker_count(settings))
        )
    ]


def _grouped_workers(settings: Settings, command: list[str]) -> list[Child]:
    """Workers among whom Kafka shares out the partitions; each takes the first name that is free."""
    return [
        Child(
            f"worker-{number}",
            command,
            settings.worker.stop_timeout + _STOP_MARGIN,
            partial(_announced, settings.data, "worker-"),
        )
        for number in range(worker_count(settings))
    ]


def worker_count(settings: Settings) -> int:
    """How many workers run: as set, or one a core that this process may use; never more than partitions."""
    return min(settings.worker.processes or len(os.sched_getaffinity(0)), settings.log.partitions)


def share_out(partitions: int, workers: int) -> list[tuple[int, ...]]:
    """Each worker's partitions: every one once, shares that differ by one at most."""
    return [tuple(range(first, partitions, workers)) for first in range(workers)]


def _announced(data: Path, prefix: str, pid: int) -> bool:
    return any(found.pid == pid and found.name.startswith(prefix) for found in running_processes(data))


def _say_ready(settings: Settings, workers: int) -> None:
    try:
        if block := _ready_block(settings, workers):
            click.echo(block)
    except OSError as error:  # a full disk, a reader that is gone, or no descriptor: what runs goes on
        logger.warning("the ready block cannot be written", reason=error.strerror)


def _ready_block(settings: Settings, workers: int) -> str:
    receiver = next((found for found in running_processes(settings.data) if found.name == "receiver"), None)
    if receiver is None:
        return ""  # it ended in this very moment; the supervisor starts another
    data = settings.data.resolve()
    program = (
        "dicom-ingest" if shutil.which("dicom-ingest") else Path(sys.executable).with_name("dicom-ingest")
    )
    return (
        f"dicom-ingest {version('dicom-ingest')} is ready\n"
        f"  listening   {', '.join(receiver.listeners)}, AE title {receiver.ae_title}\n"
        f"  objects     {', '.join(str(store.resolve() if isinstance(store, Path) else store) for store in settings.store_locations)}/SSS/<SOP Instance UID>.dcm\n"
        f"  processes   1 receiver, {workers} workers\n"
        f"  try         storescu -aec {receiver.ae_title} {receiver.host} {receiver.port} FILE.dcm\n"
        f"              {program} status --data {data}\n"
        f"  stop        Ctrl-C, or kill -TERM {os.getpid()}"
    )
