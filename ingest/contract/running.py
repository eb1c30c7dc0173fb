"""Who is running on a data folder: one small JSON file a process, ``DIR/run/<name>.json``.

A process announces itself when it is ready for work and withdraws when it stops; after a kill the file
stays, so a reader checks that the process of that id is the one that wrote it (its start time in
``/proc/<pid>/stat``), and a recycled process id never counts as alive.
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

import msgspec

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_START_TIME: Final = 19  # index of starttime (field 22 of proc(5)) behind the command's closing parenthesis


class Running(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a process says of itself."""

    name: str  # receiver, worker-0, ...; a file name
    pid: int
    started: int  # clock ticks since boot, from the kernel
    host: str = ""
    port: int = 0
    ae_title: str = ""
    partitions: tuple[int, ...] = ()
    listeners: tuple[str, ...] = ()  # all addresses, in words

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return self.started != 0 and start_time(self.pid) == self.started


def run_folder(data: Path) -> Path:
    """The folder of these files."""
    return data / "run"


def make_run_folder(data: Path) -> Path:
    """The folder of these files, made if need be; the data folder itself is not for everyone: it has images."""
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    folder = run_folder(data)
    folder.mkdir(mode=0o750, exist_ok=True)
    return folder


def announce(data: Path, name: str, **facts: str | int | tuple[int, ...] | tuple[str, ...]) -> Path:
    """Write this process's file, replacing one that an earlier process left; returns its path to `withdraw`.

    Raises:
        OSError: the file system's. A full disk is none where there is a file to replace.
    """
    pid = os.getpid()
    running = msgspec.convert({"name": name, "pid": pid, "started": start_time(pid), **facts}, Running)
    path = make_run_folder(data) / f"{name}.json"
    temporary = path.with_suffix(f".{pid}")
    content = msgspec.json.encode(running)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if error.errno not in _NO_SPACE or not path.exists():
            raise
        _overwrite(path, content)
    return path


def withdraw(path: Path) -> None:
    """Remove this process's file; another process's stays."""
    running = _read(path)
    if running is not None and running.pid == os.getpid():
        path.unlink(missing_ok=True)


def running_processes(data: Path) -> list[Running]:
    """The processes that announced themselves and live, by name.

    Raises:
        OSError: the folder cannot be read, which does not mean that nobody runs.
    """
    try:
        paths = sorted(run_folder(data).iterdir())
    except FileNotFoundError:
        return []
    found = (_read(path) for path in paths if path.suffix == ".json")
    return [running for running in found if running is not None and running.alive]


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is none, or only its exit status."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in {"Z", "X"} else int(fields[_START_TIME])


def _overwrite(path: Path, content: bytes) -> None:
    """Write where there are blocks already. A reader that meets half of it takes it for nobody's."""
    with path.open("r+b", buffering=0) as file:
        file.write(content.ljust(os.fstat(file.fileno()).st_size))  # JSON may end in spaces


def _read(path: Path) -> Running | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None
