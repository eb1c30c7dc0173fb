"""Real S3 servers as child processes: MinIO and versitygw on free ports, each with a folder of its own.

Their binaries are built once (see `go_modules`). ``python -m tests.support.s3_servers minio versitygw`` builds them ahead of
the tests, so that no test waits for a compiler.

MinIO's community edition is no longer maintained: it is for tests and trials, never a recommendation.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from benchmarks.processes import free_port
from tests.support.go_modules import Program, binary

ACCESS_KEY: Final = "test-access-key"
SECRET_KEY: Final = "test-secret-key"
BUCKET: Final = "tests"
_START: Final = 120.0  # seconds; both are up in under one on a quiet machine
_STOP: Final = 10.0


MINIO: Final = Program("minio", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c", (1, 24))
VERSITYGW: Final = Program("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0", (1, 25))
PROGRAMS: Final = {program.name: program for program in (MINIO, VERSITYGW)}


class S3Server:
    """One server with one bucket, in a temporary folder; ended by its own process id."""

    # What a client finds its credentials by.
    environment: ClassVar = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def __init__(self, program: Program) -> None:
        self.program = program
        self.folder = Path(tempfile.mkdtemp(prefix=f"{program.name}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.add_bucket(BUCKET)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix: str = "", bucket: str = BUCKET) -> str:
        """A store's URL as the settings have it."""
        path = f"/{prefix}" if prefix else ""
        return f"s3://{bucket}{path}?endpoint={self.endpoint}"

    def add_bucket(self, name: str) -> None:
        """Make a bucket: to both servers it is a folder."""
        (self.folder / "data" / name).mkdir(parents=True)

    def start(self) -> Self:
        """Start, and return once it answers."""
        path = binary(self.program)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(path), *self._arguments()], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, **self._secrets(), "HOME": str(self.folder)},
            )  # fmt: skip
        deadline = time.monotonic() + _START
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program.name} did not start: {self._tail()}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End it and wait; its folder stays."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """SIGKILL; then start() with the same data and port."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def incomplete_uploads(self) -> set[str]:
        """Uploads in parts that are neither completed nor given up. MinIO's own listing wants an object's name."""
        assert self.program is MINIO
        folder = self.folder / "data" / ".minio.sys" / "multipart"
        return {str(found.relative_to(folder)) for found in folder.glob("*/*") if found.is_dir()}

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _arguments(self) -> list[str]:
        data, address = str(self.folder / "data"), f"127.0.0.1:{self.port}"
        if self.program is MINIO:
            return ["server", "--quiet", "--address", address, "--console-address", "127.0.0.1:0", data]
        return ["--port", address, "posix", data]

    def _secrets(self) -> dict[str, str]:
        if self.program is MINIO:
            return {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY, "MINIO_BROWSER": "off"}
        return {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}

    def _answers(self) -> bool:
        path = "/minio/health/cluster" if self.program is MINIO else "/"
        try:
            with urllib.request.urlopen(self.endpoint + path, timeout=1) as answer:
                return bool(answer.status < 500)
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False

    def _tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]


def main() -> None:
    """Build the servers named on the command line."""
    for name in sys.argv[1:]:
        try:
            binary(PROGRAMS[name])
        except RuntimeError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
