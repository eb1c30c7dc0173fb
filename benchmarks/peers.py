"""The receivers that are compared: ours, durable or without log, and what one would use instead, at their best.

Each is a child process on a free port with a folder of its own. Another peer (dicom-rs, Orthanc) is one more
function here that returns a `Peer`, and its name in a scenario.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.processes import ChildProcess, free_port, python

# DCMTK answers C-STORE in two small segments; with Nagle's algorithm on, delayed ACK makes that 44 ms each.
_DCMTK_BEST: Final = {"TCP_NODELAY": "1"}


@dataclass(frozen=True)
class Peer:
    """How a receiver is started; ``{port}`` and ``{folder}`` in its command are filled in."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    durable: bool = False
    program: str = ""  # which must be installed; empty for ours


STORESCP: Final = Peer(
    "storescp --fork",
    ("storescp", "--fork", "--output-directory", "{folder}", "{port}"),
    _DCMTK_BEST,
    program="storescp",
)
# The second of DCMTK's ways to receive: the bytes as they come, no data set in memory.
STORESCP_BIT_PRESERVING: Final = Peer(
    "storescp --fork --bit-preserving",
    ("storescp", "--fork", "--bit-preserving", "--output-directory", "{folder}", "{port}"),
    _DCMTK_BEST,
    program="storescp",
)
STORESCP_IGNORE: Final = Peer(
    "storescp --ignore", ("storescp", "--fork", "--ignore", "{port}"), _DCMTK_BEST, program="storescp"
)
PYNETDICOM: Final = Peer("pynetdicom", tuple(python("-m", "benchmarks.pynetdicom_scp", "{port}", "{folder}")))
# 2 GiB of reserve and 12 GiB of spool: never a refusal, while a releaser lets segments be recycled.
OURS: Final = Peer(
    "ours",
    tuple(python("-m", "ingest", "receiver", "--data", "{folder}", "--listen", "127.0.0.1:{port}")),
    {
        "DICOM_INGEST_LOG__MAXIMUM_SIZE": str(12 * 1024**3),
        "DICOM_INGEST_TELEMETRY__LEVEL": "warning",
    },
    durable=True,
)
OURS_WITHOUT_LOG: Final = Peer(
    "ours, no-op log", tuple(python("-m", "benchmarks.noop_receiver", "{port}", "{folder}"))
)


@dataclass(frozen=True)
class Running:
    """A started peer."""

    peer: Peer
    address: tuple[str, int]
    folder: Path
    process: ChildProcess


def installed(peer: Peer) -> bool:
    """Whether this machine can start it."""
    return not peer.program or shutil.which(peer.program) is not None


@contextmanager
def running(peer: Peer, scratch: Path) -> Iterator[Running]:
    """Start ``peer`` below ``scratch``; stop it and delete its folder at the end."""
    port = free_port()
    folder = scratch / f"peer-{port}"
    folder.mkdir(parents=True)
    command = [part.format(port=port, folder=folder) for part in peer.command]
    try:
        with ChildProcess(command, scratch / f"peer-{port}.log", peer.environment) as process:
            process.wait_listening(port)
            yield Running(peer, ("127.0.0.1", port), folder, process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
