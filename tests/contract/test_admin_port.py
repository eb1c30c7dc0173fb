"""The admin port: what it shows, and how little its peers can do."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import structlog.testing

from ingest.contract.admin_settings import AdminSettings
from ingest.contract.monitoring import pages as pages_module
from ingest.contract.monitoring import server as server_module
from ingest.contract.monitoring.admin import Admin
from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.monitoring.health import Health
from ingest.contract.monitoring.heartbeat import Heartbeat
from ingest.contract.monitoring.instruments import Gauge
from ingest.contract.monitoring.pages import Pages
from ingest.contract.monitoring.server import AdminServer
from ingest.contract.settings import Settings
from tests.support.admin import get
from tests.support.file_limit import no_descriptors
from tests.support.host_names import is_looking
from tests.support.waiting import until

LIMITS = AdminSettings()


def on_any_port() -> Settings:
    return Settings(admin=AdminSettings(listen="127.0.0.1:0"))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def served(
    liveness_limit: float = 60.0, *, settings: AdminSettings = LIMITS
) -> Iterator[tuple[AdminServer, Health]]:
    health = Health(Heartbeat(), liveness_limit, reasons=list)
    pages = Pages(Exposition([Gauge("whole", "Whole.", lambda: 7)]), health)
    with server_of(pages, settings) as server:
        yield server, health


@contextmanager
def server_of(pages: Pages, settings: AdminSettings = LIMITS) -> Iterator[AdminServer]:
    server = AdminServer(("127.0.0.1", 0), pages, settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_pages_over_http() -> None:
    """A process shows its metrics, that it is live, and why it is not ready."""

    async def scenario() -> None:
        async with Admin(on_any_port(), 0, ["single copy"]) as admin:
            ask = asyncio.to_thread
            assert await ask(get, admin.port, "/livez") == (200, '{"status":"ok"}\n')
            status, text = await ask(get, admin.port, "/readyz")
            assert status == 503
            assert json.loads(text) == {
                "status": "failing", "reasons": ["not started yet"], "warnings": ["single copy"],
            }  # fmt: skip
            admin.ready_unless(list)
            assert (await ask(get, admin.port, "/readyz"))[0] == 200
            status, text = await ask(get, admin.port, "/metrics")
            assert status == 200
            assert "\ndicom_ingest_build_info{version=" in text
            assert "\nprocess_resident_memory_bytes " in text
            assert (await ask(get, admin.port, "/"))[0] == 404
            assert await ask(get, admin.port, "/livez", "HEAD") == (200, "")
            assert (await ask(get, admin.port, "/livez", "DELETE"))[0] == 501

    asyncio.run(scenario())


def test_an_event_loop_that_stands_still_is_not_live() -> None:
    """The port answers beside the loop, so it can tell of it; and ready needs live."""
    with served(liveness_limit=0.0) as (server, _):
        status, text = get(server.port, "/livez")
        assert status == 503
        assert "the event loop has not answered" in text
        assert get(server.port, "/readyz")[0] == 503


def test_a_metric_that_hangs_holds_no_probe_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is read off a disk which does not answer: that is no reason to be restarted."""
    monkeypatch.setattr(pages_module, "_PATIENCE", 0.1)
    os.mkfifo(tmp_path / "mark")
    gauge = Gauge("mark", "Of a log.", lambda: float((tmp_path / "mark").read_text()))
    pages = Pages(Exposition([gauge]), Health(Heartbeat(), 60.0, reasons=list))
    patient = AdminSettings(deadline=600)
    with server_of(pages, patient) as server, ThreadPoolExecutor() as readers:
        held = readers.submit(get, server.port, "/metrics")
        until(lambda: is_looking(os.getpid()))
        probes = [readers.submit(get, server.port, path) for path in ("/livez", "/readyz", "/metrics")]
        try:
            assert [probe.result(60)[0] for probe in probes] == [200, 200, 503]
        finally:
            (tmp_path / "mark").write_text("7")
        status, text = held.result(60)
        assert (status, "dicom_ingest_mark 7.0" in text) == (200, True)


def test_lag_of_the_event_loop_is_measured() -> None:
    """Whoever holds the loop up is seen in the histogram."""

    async def scenario() -> None:
        async with Admin(on_any_port(), 0) as admin:
            lag = admin.health.heartbeat.lag
            await asyncio.sleep(0)
            time.sleep(1.0)  # noqa: ASYNC251 - this is what is measured
            while not sum(lag.spreads()[0][1]):  # noqa: ASYNC110 - it announces nothing
                await asyncio.sleep(0.01)
            assert lag.spreads()[0][2] > 0.3

    asyncio.run(scenario())


def test_off_means_no_port() -> None:
    """Without an address nothing listens, and nobody need count."""

    async def scenario() -> None:
        async with Admin(Settings(admin=AdminSettings(listen="")), 0) as admin:
            assert not admin.is_on
            assert admin.port == 0

    asyncio.run(scenario())


def test_processes_of_one_machine_have_ports_of_their_own() -> None:
    """The receiver has the port of the settings, worker N that plus 1 and N; any free one stays any free one."""
    settings = AdminSettings(listen="[::1]:11120")
    assert [settings.address(number) for number in (0, 1, 2)] == [
        ("::1", 11120),
        ("::1", 11121),
        ("::1", 11122),
    ]
    assert AdminSettings(listen="127.0.0.1:0").address(3) == ("127.0.0.1", 0)


def test_a_port_that_is_taken_is_had_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pipelines on one machine: the second does its work all the same, and has the port when it is free."""
    monkeypatch.setattr(server_module, "_BIND_AGAIN", 0.05)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        health = Health(Heartbeat(), 60.0, reasons=list)
        server = AdminServer(("127.0.0.1", port), Pages(Exposition([]), health), LIMITS)
        with structlog.testing.capture_logs() as events:
            server.start()
        assert [event["log_level"] for event in events] == ["warning"]
        assert server.port == 0
    try:
        eventually(lambda: server.port != 0)
        assert get(port, "/livez")[0] == 200
    finally:
        server.stop()


def test_peers_that_hold_their_connections_keep_no_probe_out() -> None:
    """Beyond the limit the oldest connection is closed for the newest, and threads stay few."""
    with served() as (server, _):
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * LIMITS.connections)]
        for one in held:
            one.settimeout(60)
            one.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        assert get(server.port, "/livez")[0] == 200
        assert held[0].recv(1) == b""  # the oldest went first
        eventually(
            lambda: (
                sum("process_request" in thread.name for thread in threading.enumerate())
                <= LIMITS.connections
            )
        )
        for one in held:
            one.close()


def test_a_peer_that_trickles_is_ended() -> None:
    """The deadline is for the whole request, however busily bytes come."""
    quick = AdminSettings(deadline=1.0)
    with served(settings=quick) as (server, _), socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.settimeout(0.05)
        peer.sendall(b"GET /livez HTTP/1.1\r\n")

        def ended() -> bool:
            try:
                peer.sendall(b"X-Header: x\r\n")
                return peer.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        eventually(ended)


def test_without_descriptors_the_port_waits() -> None:
    """A connection that cannot be accepted stays where it is, and takes no processor time until it can be."""
    with served() as (server, _), closing(socket.socket()) as peer:
        assert get(server.port, "/livez")[0] == 200
        (thread,) = (one for one in threading.enumerate() if one.name == "admin")
        assert thread.ident is not None
        clock = time.pthread_getcpuclockid(thread.ident)
        with no_descriptors():
            used, deadline = time.clock_gettime(clock), time.monotonic() + 2
            peer.connect(("127.0.0.1", server.port))
            while time.monotonic() < deadline:
                time.sleep(0.05)
                assert time.clock_gettime(clock) - used < 0.2
        peer.settimeout(60)
        peer.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b" 200 " in peer.recv(4096)


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET /livez HTTP/9.9\r\n\r\n", b"G" * 70_000, b"\r\n" * 9],
)
def test_what_is_no_request_harms_nothing(request_bytes: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """It is answered with an error or not at all, echoes nothing, prints nothing, and the next one is served."""
    with served() as (server, _):
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.settimeout(60)
            peer.sendall(request_bytes)
            peer.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while data := peer.recv(4096):
                    answer += data
            except OSError:
                pass
        assert b"GGG" not in answer
        assert get(server.port, "/livez")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_many_readers_cost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of metrics is made once a second, whoever asks how often."""
    reads = 0

    def read() -> float:
        nonlocal reads
        reads += 1
        return reads

    gauge = Gauge("whole", "Whole.", read)
    now = [100.0]
    pages = Pages(Exposition([gauge]), Health(Heartbeat(), 60.0), lambda: now[0])
    first = pages.get("/metrics", "")
    assert all(pages.get("/metrics", "") == first for _ in range(50))
    assert reads == 1
    now[0] += 2
    assert pages.get("/metrics", "") != first
