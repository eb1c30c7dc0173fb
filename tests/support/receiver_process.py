"""The receiver alone as a child process, seen from outside: what it costs, what it says."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.processes import free_port, peak_resident, resident
from ingest.contract.uncaught import UNCAUGHT


class ReceiverProcess:
    """`dicom-ingest receiver` on a free port and a data folder of its own; no worker takes what it receives."""

    def __init__(self, folder: Path, environment: dict[str, str], *, prefix: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        self.log = folder / "log"
        command = [
            *prefix, sys.executable, "-m", "ingest", "receiver", "--data", str(folder / "data"),
            "--listen", f"127.0.0.1:{self.port}",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **environment}
            )
        try:
            while b'"listening"' not in self.log.read_bytes():
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.02)
        except BaseException:  # pytest's timeout among them
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(120)

    @property
    def resident(self) -> float:
        """MiB."""
        return resident(self.process.pid)

    @property
    def peak_resident(self) -> float:
        """MiB, since the start or `benchmarks.processes.reset_peak`."""
        return peak_resident(self.process.pid)

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def assert_calm(self) -> None:
        """It runs, and nothing that happened to it was unforeseen."""
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        text = self.log.read_text()
        assert "Traceback" not in text, text[-4000:]
        assert "Fatal" not in text, text[-4000:]
        assert UNCAUGHT not in text, text[-4000:]
