"""The real thing as child processes: `dicom-ingest serve` on a free port and a folder of its own."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.processes import descendants, free_port
from workers.cli.account import read_account

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"


class Pipeline:
    """`dicom-ingest serve`, started, watched and stopped by its own process id."""

    def __init__(self, data: Path, *, workers: int = 1, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.port = free_port()
        self.workers = workers
        # The ledger is for the tests that ask for it: it costs a second of processor time at each start.
        without = {"DICOM_INGEST_LEDGER__ENABLED": "false"}
        self.environment = {**os.environ, **without, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.parent / f"{data.name}.log"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            if self.process is not None:
                with contextlib.suppress(ProcessLookupError):  # nothing is left of it
                    self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def command(self, *arguments: str) -> list[str]:
        """`dicom-ingest` with arguments, in this interpreter."""
        return [sys.executable, "-m", "ingest", *arguments]

    def start(self) -> None:
        """Start, and return once the receiver accepts connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(
                    "serve", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}",
                    "--workers", str(self.workers),
                ),
                stdout=log, stderr=log, env=self.environment, start_new_session=True,
            )  # fmt: skip
        self.wait_listening()

    def wait_listening(self, timeout: float = 120) -> None:
        """Return once a TCP connection is accepted."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError(self.log.read_text()[-4000:])

    def stop(self, timeout: float = 120) -> int:
        """SIGTERM, and the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except BaseException:
            self.kill()
            raise
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL to every process of the pipeline at once, as a power cut would have it."""
        assert self.process is not None
        with contextlib.ExitStack() as opened:
            dying = [one for pid in self.children() if (one := _opened(pid, opened)) is not None]
            os.killpg(self.process.pid, signal.SIGKILL)
            for one in dying:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(one, signal.SIGKILL)
            for one in dying:  # until it has ended, a process holds its port and its locks
                select.select([one], [], [])
        self.process.wait()
        self.process = None

    def children(self) -> list[int]:
        """Process ids of all descendants, receiver, workers and codecs."""
        assert self.process is not None
        return list(descendants(self.process.pid))

    def run_json(self, *arguments: str) -> dict[str, object]:
        """The object that a command prints with --json."""
        done = subprocess.run(
            self.command(*arguments, "--data", str(self.data), "--json"),
            check=True, capture_output=True, env=self.environment, timeout=120,
        )  # fmt: skip
        result: dict[str, object] = json.loads(done.stdout)
        return result

    def run_list(self, *arguments: str) -> list[dict[str, object]]:
        """The array that a command prints with --json."""
        return self.run_json(*arguments)  # type: ignore[return-value]

    def status(self) -> dict[str, int]:
        """`dicom-ingest status --json`."""
        return self.run_json("status")  # type: ignore[return-value]

    def settle(self, timeout: float = 120) -> dict[str, int]:
        """Wait until no received instance is still on its way, and return the status."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            # A look from here costs a few milliseconds; the command, a process of its own, has the last word.
            if read_account(self.data, ()).backlog == 0 and (status := self.status())["backlog"] == 0:
                return status
            time.sleep(0.1)
        raise TimeoutError(f"backlog {self.status()}: {self.log.read_text()[-4000:]}")

    def objects(self) -> dict[str, Path]:
        """Stored objects by SOP Instance UID."""
        return {path.stem: path for path in (self.data / "store").glob("[0-9a-f][0-9a-f][0-9a-f]/*.dcm")}


def _opened(pid: int, stack: contextlib.ExitStack) -> int | None:
    """A descriptor of a process, which is readable once that has ended; None if it has already."""
    try:
        found = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    stack.callback(os.close, found)
    return found


PLACES = ("stored", "duplicates", "conflicts", "quarantined", "discarded", "backlog")


def assert_adds_up(status: dict[str, int]) -> None:
    """received = stored + duplicates + conflicts + quarantined + discarded + backlog."""
    assert status["received"] == sum(status[place] for place in PLACES), status
