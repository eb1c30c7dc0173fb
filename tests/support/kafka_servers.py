"""Real Kafka brokers as child processes: one or three nodes, in a folder of their own, on free ports of loopback.

with KafkaServers(tmp_path) as kafka:              # one node; nodes=3 for replication
    KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    kafka.nodes[0].kill()                          # SIGKILL; then start() with the same data and port
"""

import base64
import contextlib
import os
import shutil
import signal
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from benchmarks.processes import ChildProcess, free_port
from tests.support.kafka_jars import kafka_jars
from tests.support.standing import stands
from tests.support.tcp_proxy import TcpProxy

_START_TIMEOUT: Final = 180.0  # s; two seconds are usual
# What makes small, quick brokers; a dead one is noticed after three seconds and not after nine.
_PROPERTIES: Final = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "message.max.bytes": str(2 * 1024 * 1024),
    "num.partitions": "4",
    "offsets.topic.num.partitions": "4",
    "replica.fetch.max.bytes": str(2 * 1024 * 1024),
    "transaction.state.log.min.isr": "1",
}
# JVM options: the storage tool lives for a second, the broker is to be ready soon.
_TOOL: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# A quarter of a short-lived broker's processor time would go to compile once more what is hot; what is measured has it.
_SHORT_LIVED: Final = ("-XX:TieredStopAtLevel=1",)
_BATCH: Final = struct.Struct(">qi")  # of a segment: first offset, length of what follows
_BROKER: Final = ("-Xms256m", "-XX:+UseG1GC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


def _kafka_uuid() -> str:
    """Kafka writes UUIDs in base 64; one with a leading dash would be taken for an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


class KafkaNode:
    """One broker that is a controller too."""

    def __init__(
        self, folder: Path, number: int, *, secure: str, jvm: tuple[str, ...], proxied: bool = False
    ) -> None:
        self.number = number
        self.port = free_port()
        self.secure_port = free_port() if secure else 0
        self.controller_port = free_port()
        # A listener that clients are told to find behind the proxy.
        self.proxied_port = free_port() if proxied else 0
        self.proxy = TcpProxy(self.proxied_port) if proxied else None
        self.directory_id = _kafka_uuid()
        self.log = folder / f"node-{number}.log"
        self._folder = folder / f"node-{number}"
        self._folder.mkdir()
        self._secure = secure
        self._jvm = jvm
        self._properties = self._folder / "server.properties"
        self._process: ChildProcess | None = None

    @property
    def address(self) -> str:
        """Where clients find it, in plain text."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running broker."""
        assert self._process is not None
        return self._process.pid

    def configure(self, controllers: str, replicas: int, properties: Mapping[str, str]) -> None:
        """Write its properties file."""
        listeners = {"PLAINTEXT": self.port, "CONTROLLER": self.controller_port}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        if self._secure:
            listeners["SECURE"] = self.secure_port
            protocols["SECURE"] = self._secure
        if self.proxy is not None:
            listeners["PROXIED"] = self.proxied_port
            protocols["PROXIED"] = "PLAINTEXT"
        urls = {name: f"{name}://127.0.0.1:{port}" for name, port in listeners.items()}
        advertised = {name: url for name, url in urls.items() if name != "CONTROLLER"}
        if self.proxy is not None:
            advertised["PROXIED"] = f"PROXIED://127.0.0.1:{self.proxy.port}"
        own = {
            "node.id": str(self.number),
            "controller.quorum.bootstrap.servers": controllers,
            "listeners": ",".join(urls.values()),
            "advertised.listeners": ",".join(advertised.values()),
            "listener.security.protocol.map": ",".join(f"{name}:{way}" for name, way in protocols.items()),
            "log.dirs": str(self._folder / "data"),
            "offsets.topic.replication.factor": str(replicas),
            "transaction.state.log.replication.factor": str(replicas),
        }
        lines = [f"{key}={value}" for key, value in {**_PROPERTIES, **own, **properties}.items()]
        self._properties.write_text("\n".join(lines) + "\n")

    def format(self, cluster_id: str, *options: str) -> ChildProcess:
        """Begin to prepare its folder, once."""
        command = [*_java(*_TOOL), "kafka.tools.StorageTool", "format", "-t", cluster_id, *options]
        return ChildProcess([*command, "-c", str(self._properties)], self.log)

    def launch(self) -> None:
        """Start the process, and wait for nothing.

        To be called from a thread that lives as long as the broker shall: it dies with that thread, and so
        with a test run that is killed.
        """
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        command = [*guard, *_java(*_BROKER, *self._jvm), "kafka.Kafka", str(self._properties)]
        self._process = ChildProcess(command, self.log)

    def start(self) -> None:
        """Start with the same data and ports, and return once it serves clients."""
        self.launch()
        self.wait_listening()

    def wait_listening(self) -> None:
        """Return once it accepts connections."""
        assert self._process is not None
        self._process.wait_listening(self.port, _START_TIMEOUT)

    def stop(self) -> None:
        """SIGTERM, a clean shutdown; or SIGKILL when that does not end it."""
        if self._process is not None:
            self.resume()
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(60)
        self._process = None

    def lose(self, topic: str, partition: int, end: int) -> None:
        """After `kill`: what a partition had from the position ``end`` on was not on the disk yet when the power failed."""
        (segment,) = (self._folder / "data" / f"{topic}-{partition}").glob("*.log")
        with segment.open("r+b") as file:
            while len(head := file.read(_BATCH.size)) == _BATCH.size:
                first, length = _BATCH.unpack(head)
                if first >= end:
                    file.truncate(file.tell() - _BATCH.size)
                    return
                file.seek(length, os.SEEK_CUR)
        raise ValueError(f"{segment.name} ends before {end}")

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nobody answers. Returns once all its threads stand still."""
        self._signal(signal.SIGSTOP)
        while not stands(self.pid):
            time.sleep(0.01)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class KafkaServers:
    """A cluster of one or more nodes; a context manager that starts and ends it.

    ``proxied`` adds a listener behind a proxy for each node, see `tcp_proxy`; ``secure`` adds a listener of that
    security protocol, and ``properties`` what it needs; SCRAM users are given by ``scram``, as the storage tool takes
    them. ``measured``: a benchmark's, whose JVM compiles what is hot for long runs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 1,
        secure: str = "",
        properties: Mapping[str, str] | None = None,
        scram: Sequence[str] = (),
        proxied: bool = False,
        measured: bool = False,
    ) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        heap = "-Xmx512m" if nodes == 1 else "-Xmx256m"
        jvm = (heap,) if measured else (heap, *_SHORT_LIVED)
        self.nodes = [
            KafkaNode(folder, number, secure=secure, jvm=jvm, proxied=proxied)
            for number in range(1, nodes + 1)
        ]
        self._properties = properties or {}
        self._scram = scram

    @property
    def bootstrap_servers(self) -> list[str]:
        """What a client is told, in plain text."""
        return [node.address for node in self.nodes]

    @property
    def secure_bootstrap_servers(self) -> list[str]:
        """What a client of the secure listener is told."""
        return [f"127.0.0.1:{node.secure_port}" for node in self.nodes]

    @property
    def proxied_bootstrap_servers(self) -> list[str]:
        """What a client is told that is to meet what the proxies do."""
        return [f"127.0.0.1:{node.proxy.port}" for node in self.nodes if node.proxy is not None]

    def start(self) -> None:
        """Format and start all nodes; returns once each is known as a live broker."""
        controllers = ",".join(f"127.0.0.1:{node.controller_port}" for node in self.nodes)
        voters = ",".join(
            f"{node.number}@127.0.0.1:{node.controller_port}:{node.directory_id}" for node in self.nodes
        )
        alone = len(self.nodes) == 1
        options = ["--standalone"] if alone else ["--initial-controllers", voters]
        for user in self._scram:
            options += ["--add-scram", user]
        cluster_id = _kafka_uuid()
        for node in self.nodes:
            node.configure(controllers, min(3, len(self.nodes)), self._properties)
        for tool in [node.format(cluster_id, *options) for node in self.nodes]:
            with tool:
                if tool.wait(_START_TIMEOUT) != 0:
                    raise RuntimeError(f"Kafka's folder could not be made: {tool.log.read_text()[-2000:]}")
        for node in self.nodes:
            if node.proxy is not None:
                node.proxy.__enter__()
            node.launch()
        for node in self.nodes:
            node.wait_listening()
        self.wait_complete()

    def wait_complete(self, timeout: float = _START_TIMEOUT) -> None:
        """Return once every node is a live member of the cluster.

        Raises:
            TimeoutError: not in time; with the end of the first node's log.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaError), contextlib.closing(self.admin()) as admin:
                if len(admin.describe_cluster()["brokers"]) == len(self.nodes):
                    return
            time.sleep(0.1)
        raise TimeoutError(f"the cluster is not complete: {self.nodes[0].log.read_text()[-2000:]}")

    def admin(self) -> KafkaAdminClient:
        """A client to look with; close it."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)

    def stop(self) -> None:
        """End all nodes. What they hold is a test's: nothing is lost by SIGKILL, and it is quick."""
        for node in self.nodes:
            with contextlib.suppress(AssertionError):  # not running
                node.kill()
            if node.proxy is not None:
                node.proxy.__exit__(None, None, None)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _java(*options: str) -> list[str]:
    java = shutil.which("java")
    if java is None:
        raise RuntimeError("java is missing: install the system package default-jre-headless")
    return [java, *options, "-cp", f"{kafka_jars()}/*"]
