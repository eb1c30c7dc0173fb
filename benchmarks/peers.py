"""The receivers that are compared: ours, durable or without log, and what one would use instead, at their best.

Each is a child process on a free port with a folder of its own. Another peer is one more `Peer` here, and its name in a
scenario.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.cargo import dicom_storescp
from benchmarks.processes import ChildProcess, free_port, python

# DCMTK answers C-STORE in two small segments; with Nagle's algorithm on, delayed ACK makes that 44 ms each.
_DCMTK_BEST: Final = {"TCP_NODELAY": "1"}


@dataclass(frozen=True)
class Peer:
    """How a receiver is started; ``{port}`` and ``{folder}`` in its command are filled in.

    ``find`` says where its program is, if not on the PATH, and makes it where it is missing. ``prepare`` writes what it
    reads at its start. ``share`` is its part of an arm's volume: of so slow a peer less is as long a run.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    durable: bool = False
    find: Callable[[], Path] | None = None
    prepare: Callable[[Path, int], None] = lambda _folder, _port: None
    share: float = 1.0
    file: str = ""  # for reports: what `prepare` writes

    @property
    def settings(self) -> str:
        """For reports: what it was started with."""
        variables = " ".join(f"{name}={value}" for name, value in self.environment.items())
        program = self.find.__name__.replace("_", "-") if self.find else ""
        words = [word.replace(sys.executable, "python") for word in self.command]
        return " ".join(filter(None, (variables, program, *words, self.file)))


# Orthanc's fastest: no sync, no digest, no REST server, and as many threads as senders.
_ORTHANC_BEST: Final = {
    "DicomThreadsCount": 64, "MaximumPduLength": 131072, "SyncStorageArea": False, "StoreMD5ForAttachments": False,
    "StorageCompression": False, "MetricsEnabled": False, "HttpServerEnabled": False, "OverwriteInstances": False,
    "SaveJobs": False, "DicomAlwaysAllowStore": True, "UnknownSopClassAccepted": True, "Plugins": [],
}  # fmt: skip


def orthanc() -> Path:
    """Its program, which Debian has where only root's PATH leads.

    Raises:
        RuntimeError: it is not installed.
    """
    found = shutil.which("Orthanc", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        raise RuntimeError("Orthanc is missing: install the system package orthanc")
    return Path(found)


def _configure_orthanc(folder: Path, port: int) -> None:
    places = {"StorageDirectory": str(folder / "data"), "DicomPort": port}
    (folder / "orthanc.json").write_text(json.dumps(places | _ORTHANC_BEST))


STORESCP: Final = Peer(
    "storescp --fork", ("storescp", "--fork", "--output-directory", "{folder}", "{port}"), _DCMTK_BEST
)
# The second of DCMTK's ways to receive: the bytes as they come, no data set in memory.
STORESCP_BIT_PRESERVING: Final = Peer(
    "storescp --fork --bit-preserving",
    ("storescp", "--fork", "--bit-preserving", "--output-directory", "{folder}", "{port}"),
    _DCMTK_BEST,
)
STORESCP_IGNORE: Final = Peer("storescp --ignore", ("storescp", "--fork", "--ignore", "{port}"), _DCMTK_BEST)
PYNETDICOM: Final = Peer(
    "pynetdicom", tuple(python("-m", "benchmarks.pynetdicom_scp", "{port}", "{folder}")), share=0.125
)
DICOM_RS: Final = Peer(
    "dicom-rs",
    ("-n", "--promiscuous", "-m", "131072", "-o", "{folder}", "-p", "{port}"),
    find=dicom_storescp,
    share=0.5,
)
ORTHANC: Final = Peer(
    "Orthanc",
    ("{folder}/orthanc.json",),
    _DCMTK_BEST,
    find=orthanc,
    prepare=_configure_orthanc,
    share=1 / 16,
    file=json.dumps(_ORTHANC_BEST),
)
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


@contextmanager
def running(peer: Peer, scratch: Path) -> Iterator[Running]:
    """Start ``peer`` below ``scratch``; stop it and delete its folder at the end."""
    port = free_port()
    folder = scratch / f"peer-{port}"
    folder.mkdir(parents=True)
    command = [part.format(port=port, folder=folder) for part in peer.command]
    if peer.find is not None:
        command.insert(0, str(peer.find()))
    peer.prepare(folder, port)
    try:
        with ChildProcess(command, scratch / f"peer-{port}.log", peer.environment) as process:
            process.wait_listening(port)
            yield Running(peer, ("127.0.0.1", port), folder, process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
