"""Child processes: started on free ports in folders of their own, measured by process id, ended by process id."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

# How functions become processes: forked by a server that has no threads, whose locks a fork would copy, and that has loaded
# what most of them import, which takes longer than a short arm.
forked: Final = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(["benchmarks.scenarios"])
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MiB: Final = 1024 * 1024


_kept: Final[list[socket.socket]] = []


def free_port() -> int:
    """A TCP port of loopback that the kernel gives to nobody else while this process lives.

    It is bound, and nobody listens: connections are refused, and who asks for this port by its number may listen, as all do
    that set SO_REUSEADDR.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    _kept.append(keeper)
    return int(keeper.getsockname()[1])


class ChildProcess:
    """A command with its own session and a log file; a context manager that ends it."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which is its process group's too."""
        return self._process.pid

    def wait_listening(self, port: int, timeout: float = 60) -> None:
        """Return once a TCP connection is accepted.

        Raises:
            RuntimeError: it ended, or did not listen in time; with the end of its log.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self._process.args!r} does not listen: {self.log.read_text()[-2000:]}")

    def check(self) -> None:
        """Complain when it is gone.

        Raises:
            RuntimeError: it ended; with the end of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise RuntimeError(f"{self._process.args!r} ended ({code}): {self.log.read_text()[-2000:]}")

    def wait(self, timeout: float) -> int:
        """The exit code."""
        return self._process.wait(timeout)

    def stop(self, timeout: float = 30) -> None:
        """SIGTERM; SIGKILL when that does not end it. What it forked and left goes too."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def python(*arguments: str) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *arguments]


def descendants(pid: int) -> Iterator[int]:
    """Process ids of the children of ``pid``, their children and so on, as far as they live."""
    for child in _children(pid):
        yield child
        yield from descendants(child)


def _children(pid: int) -> list[int]:
    """What its threads have started; what ends while one looks is passed over."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its living descendants, and those that it has waited for."""
    total = 0
    for process in (pid, *descendants(pid)):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return total / CLOCK_TICKS


def resident(pid: int) -> float:
    """Resident memory of one process in MiB; 0 when it is gone."""
    return _status(pid, "VmRSS")


def peak_resident(pid: int) -> float:
    """The highest resident memory in MiB since the start or `reset_peak`."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Let `peak_resident` begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, field: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024 / _MiB
    return 0.0


def settle_disk(folder: Path) -> None:
    """Let nothing that one arm wrote be written in the next one's time: drop its files, flush the rest."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
    os.sync()
