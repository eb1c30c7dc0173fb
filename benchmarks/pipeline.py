"""Our pipeline step by step: instances put into a spool while nobody takes them, then workers alone."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydicom.filereader import read_file_meta_info

from benchmarks.load import Load, send
from benchmarks.peers import OURS
from benchmarks.processes import ChildProcess, free_port, python
from ingest.contract.checkpoint import read_checkpoints
from ingest.contract.settings import LogSettings

_POLL: Final = 0.02  # s
_UPLOADS_IN_WORK: Final = 8  # of all workers of a comparison together, or more
_JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
_TIMESTAMP: Final = 0.004  # s: how finely the kernel tells a file's time


def settings_line(environment: Mapping[str, str]) -> str:
    """For reports: variables as a shell takes them."""
    return " ".join(f"{name}={value}" for name, value in environment.items())


@contextmanager
def receiver(
    data: Path, environment: Mapping[str, str] | None = None, under: Sequence[str] = ()
) -> Iterator[tuple[ChildProcess, tuple[str, int]]]:
    """Our receiver on ``data``, which stays; ``environment`` has settings of its own.

    ``under`` are arguments of Python before those of the receiver: a profiler's.
    """
    port = free_port()
    data.mkdir(parents=True, exist_ok=True)
    interpreter, *arguments = OURS.command
    command = [part.format(port=port, folder=data) for part in (interpreter, *under, *arguments)]
    whole = {**OURS.environment, **(environment or {})}
    with ChildProcess(command, data.with_name(f"{data.name}-receiver.log"), whole) as process:
        process.wait_listening(port)
        yield process, ("127.0.0.1", port)


@contextmanager
def workers(
    data: Path, count: int, cores: Sequence[int], environment: Mapping[str, str] | None = None
) -> Iterator[list[ChildProcess]]:
    """``count`` workers that share the partitions of ``data``, they and their codecs on ``cores`` only."""
    partitions = LogSettings().partitions
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(count):
            owned = ",".join(map(str, range(number, partitions, count)))
            command = python("-m", "ingest", "worker", "--data", str(data), "--partitions", owned)
            log = data.with_name(f"{data.name}-worker-{number}.log")
            whole = {**OURS.environment, **(environment or {})}
            process = stack.enter_context(ChildProcess(command, log, whole))
            os.sched_setaffinity(process.pid, cores)
            started.append(process)
        yield started


def spool(data: Path, load: Load) -> None:
    """Put the load into the spool, durably, and stop the receiver."""
    with receiver(data) as (_, address):
        send(address, load)
    os.sync()


def settled(data: Path) -> int:
    """Instances of ``data`` whose outcomes are durable and counted, at whatever place."""
    return sum(checkpoint.settled for checkpoint in read_checkpoints(data).values())


def wait_settled(data: Path, count: int, processes: Sequence[ChildProcess]) -> None:
    """Return once so many are `settled`.

    Raises:
        RuntimeError: a process ended before.
    """
    while settled(data) < count:
        for process in processes:
            process.check()
        time.sleep(_POLL)


def stored(data: Path) -> list[Path]:
    """The objects in the store."""
    return list((data / "store").glob("[0-9a-f][0-9a-f][0-9a-f]/*.dcm"))


def wait_stored(
    data: Path, count: int, processes: Sequence[ChildProcess], watch: Callable[[], None] = lambda: None
) -> list[Path]:
    """Return the objects once there are ``count``; ``watch`` is called at each look.

    Raises:
        RuntimeError: a worker ended before.
    """
    while len(found := stored(data)) < count:
        for process in processes:
            process.check()
        watch()
        time.sleep(_POLL)
    return found


def check_transcoded(objects: Sequence[Path]) -> None:
    """A worker that passed pixels through did less than what is compared.

    Raises:
        RuntimeError: an object is not JPEG 2000 Lossless.
    """
    for path in objects:
        found = read_file_meta_info(path).get("TransferSyntaxUID")
        if found != _JPEG_2000_LOSSLESS:
            raise RuntimeError(f"{path.name} was stored in transfer syntax {found}")


def steady_rate(objects: Sequence[Path], data_set_size: int) -> float:
    """Bytes of data sets a second in the middle of a run, by the objects' times.

    Start and end are left out on both sides alike: at both ends of what remains equally many instances are in
    work, so that none counts whose work was done before, and no start or idle end is in the figure.
    """
    times = sorted(path.stat().st_mtime_ns for path in objects)
    aside = min(_UPLOADS_IN_WORK, len(times) // 4)
    first, last = aside, len(times) - 1 - aside
    return (last - first) * data_set_size / max((times[last] - times[first]) / 1e9, _TIMESTAMP)
