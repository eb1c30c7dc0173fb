"""The distributed form as child processes: receivers and workers of hosts of their own, on a real Kafka and a real S3 server.

with Distributed(folder, kafka.bootstrap_servers, [store_url]) as pipeline:   # topics made, nothing running yet
    receiver = pipeline.start_receiver("receiver.before-response=kill@3")
    worker = pipeline.start_worker()
    ...                                     # send to receiver.port
    pipeline.settle()

`tests.support.trial` brings up the servers too.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.processes import free_port
from ingest.contract.failpoints import VARIABLE
from ingest.contract.settings_sources import variable_of
from tests.support.s3_servers import S3Server
from tests.support.standing import stands

# Small and quick: what is lost is noticed within seconds, and a test can wait for it.
_SETTINGS: Final = """
[receiver]
buffer_budget = 16777216
stall_timeout = {stall}
drain_timeout = 5

[log]
kind = "kafka"
partitions = {partitions}
allow_single_copy = {single}

[kafka]
bootstrap_servers = {servers}
instance_topic = "{name}-instances"
outcome_topic = "{name}-outcomes"
group = "{name}"
replication_factor = {replicas}
min_insync_replicas = {in_sync}
delivery_timeout = {delivery}
session_timeout = {session}
poll_interval = {poll}
fetch_maximum = 2097152

[worker]
memory_limit = 8388608
checkpoint_interval = 0.3
stop_timeout = 5

[store]
urls = {urls}
request_timeout = {request}
retry_timeout = {retry}
"""


class Host:
    """One process of the pipeline, with a data folder of its own."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.port = 0
        self.data = folder / name
        self.killed = False  # by a test; any other end must be one with exit code 0
        self.excused = False  # even from that
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=dict(environment)
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.running:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.killed |= self.running
        self.signal(signal.SIGKILL)
        self.process.wait(60)

    def stop(self, timeout: float = 120) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    @property
    def stands(self) -> bool:
        """Whether all its threads stand still after a SIGSTOP."""
        return stands(self.pid)

    def peak(self) -> int:
        """The most memory it ever had, in bytes; 0 once it has ended, when its process id may be another's."""
        if not self.running:
            return 0
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0

    def scratch(self) -> list[Path]:
        """What waits on its disk."""
        found = (self.data / "scratch").rglob("*")
        return [path for path in found if path.is_file() and path.suffix != ".lock"]

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-4000:]

    def said(self, text: str) -> bool:
        """Whether it has said so."""
        return text in self.log.read_text(errors="replace")

    def wait_said(self, text: str, timeout: float = 120) -> None:
        """Return once it has said so."""
        deadline = time.monotonic() + timeout
        while True:
            running = self.running  # before it is read: the last that it says, it may say between two looks
            if self.said(text):
                return
            if not running:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} has not said {text!r}: {self.tail()}")
            time.sleep(0.05)


class Distributed:
    """Starts, watches and ends receivers and workers; the servers are the caller's."""

    def __init__(
        self,
        folder: Path,
        servers: Sequence[str],
        urls: Sequence[str],
        *,
        name: str = "test",
        partitions: int = 4,
        replicas: int = 1,
        environment: Mapping[str, str] | None = None,
        stall: float = 2,
        delivery: float = 4,
        session: float = 6,
        poll: float = 300,
        request: float = 5,
        retry: float = 5,
        s3: S3Server | None = None,
        watched: Sequence[str] = (),
    ) -> None:
        """``s3``: the server of ``urls``, for whoever looks behind it.

        ``watched``: how the stores are looked into from outside, where that is not by ``urls``.
        """
        self.folder = folder
        self.s3 = s3
        self.urls = list(urls)
        self.watched = list(watched or urls)
        self.config = folder / "config.toml"
        self.environment = {**os.environ, **(environment or {})}
        self.release = "ingest"  # of what is started from now on; another is `tests.support.next_release`
        self.hosts: list[Host] = []
        self.orphans: dict[bytes, tuple[int, int]] = {}  # uploads that never end: partition and first offset
        self._numbers = {"receiver": 0, "worker": 0}
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            _SETTINGS.format(
                partitions=partitions, single=str(replicas < 3).lower(), servers=json.dumps(list(servers)),
                name=name, replicas=replicas, in_sync=min(2, replicas), delivery=delivery, session=session,
                stall=stall, poll=poll,
                urls=json.dumps(self.urls), request=request, retry=retry,
            )
        )  # fmt: skip

    def command(self, *arguments: str, release: str = "ingest") -> list[str]:
        """`dicom-ingest` with arguments, in this interpreter."""
        return [sys.executable, "-m", release, *arguments, "--config", str(self.config)]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of an administrator to its end."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=300,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{arguments}: {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done

    def __enter__(self) -> Self:
        self.run("topics", "create")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all at once."""
        for host in self.hosts:
            host.killed |= host.running
            host.signal(signal.SIGKILL)
        for host in self.hosts:
            host.process.wait(60)

    def start_receiver(
        self,
        failpoints: str = "",
        *,
        wait: bool = True,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        data: Path | None = None,
    ) -> Host:
        """Another receiver, on a port of its own; ``settings`` are its own too, by dotted key."""
        port = free_port()
        host = self._start(
            "receiver",
            failpoints,
            settings,
            "--listen",
            f"127.0.0.1:{port}",
            environment=environment,
            data=data,
        )
        host.port = port
        if wait:
            host.wait_said('"listening"')
        return host

    def start_worker(
        self,
        failpoints: str = "",
        *,
        wait: bool = True,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        data: Path | None = None,
    ) -> Host:
        """Another worker; it has joined the group when this returns, and may have no partition."""
        host = self._start("worker", failpoints, settings, environment=environment, data=data)
        if wait:
            host.wait_said('"worker started"')
        return host

    def _start(
        self,
        kind: str,
        failpoints: str,
        settings: Mapping[str, object] | None,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        data: Path | None = None,
    ) -> Host:
        self._numbers[kind] += 1
        name = f"{kind}-{self._numbers[kind]}"
        data = data or self.folder / name
        data.mkdir(exist_ok=True)
        own = {variable_of(key): str(value) for key, value in (settings or {}).items()}
        whole = {**self.environment, **own, VARIABLE: failpoints, **(environment or {})}
        command = self.command(kind, "--data", str(data), *arguments, release=self.release)
        host = Host(name, command, self.folder, whole)
        host.data = data
        host.killed = "=kill" in failpoints
        self.hosts.append(host)
        return host

    def status(self) -> dict[str, int]:
        """`dicom-ingest status --json`."""
        result: dict[str, int] = json.loads(self.run("status", "--json").stdout)
        return result

    def settle(self, timeout: float = 120) -> dict[str, int]:
        """Wait until no received instance is still on its way, and return the status."""
        deadline = time.monotonic() + timeout
        while True:
            began = time.monotonic()
            status = self.status()
            ended = time.monotonic()
            if not status["backlog"]:
                return status
            if ended > deadline:
                raise TimeoutError(
                    f"{status}: " + "".join(host.tail() for host in self.hosts if host.running)
                )
            time.sleep(ended - began)  # no more looking than working

    def stop(self) -> dict[str, int]:
        """SIGTERM to all that run; their exit codes by name."""
        running = [host for host in self.hosts if host.running]
        for host in running:
            host.signal(signal.SIGTERM)
            host.signal(signal.SIGCONT)  # which a test may have left standing
        return {host.name: host.process.wait(120) for host in running}

    def wrong_ends(self) -> dict[str, int]:
        """The exit codes of those that ended otherwise than by a test's SIGKILL or with 0."""
        return {
            host.name: host.process.returncode
            for host in self.hosts
            if not host.running
            and not host.excused
            and host.process.returncode
            and not (host.killed and host.process.returncode == -signal.SIGKILL)
        }
