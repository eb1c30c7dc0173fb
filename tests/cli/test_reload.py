"""`serve` and `receiver` told by SIGHUP to read their settings again, as an administrator does it."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from ingest.contract.running import running_processes
from tests.support.certificates import Authority
from tests.support.scu import Scu, associate, run_closing
from tests.support.waiting import until

pytestmark = pytest.mark.real


def settings_file(folder: Path, port: int, ae_title: str = "TESTER", more: str = "") -> Path:
    file = folder / "settings.toml"
    file.write_text(
        f'data = "{folder / "data"}"\n'
        f'[receiver]\nport = {port}\nunknown_sources = "refuse"\n{more}\n'
        f'[sources.ct1]\nae_titles = ["{ae_title}"]\n'
    )
    return file


@contextmanager
def running(folder: Path, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest", *command, "--config", str(folder / "settings.toml")],
            stdout=output,
            stderr=output,
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def ready(folder: Path) -> bool:
    return any(found.name == "receiver" for found in running_processes(folder / "data"))


def accepted(port: int) -> bool:
    async def ask() -> bool:
        scu = await Scu.connect(port)
        await scu.send(associate())
        kind, _ = await scu.pdu()
        return kind == 2

    return run_closing(ask())


@pytest.mark.parametrize("command", [("receiver",), ("serve", "--workers", "1")])
def test_sources_change_without_a_restart(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Valid ones are taken; of invalid ones every problem is said, and the old ones stay."""
    port = free_port()
    settings_file(tmp_path, port, "OTHER")
    with running(tmp_path, *command) as (process, log):
        until(lambda: ready(tmp_path))
        assert not accepted(port)
        settings_file(tmp_path, port)
        process.send_signal(signal.SIGHUP)
        until(lambda: b"settings reloaded" in log.read_bytes())
        assert accepted(port)
        settings_file(tmp_path, port, "back\\\\slash")
        process.send_signal(signal.SIGHUP)
        until(lambda: b"settings refused, the old ones stay" in log.read_bytes())
        assert b"sources.ct1.ae_titles" in log.read_bytes()
        assert accepted(port)
        settings_file(tmp_path, port, more="idle_timeout = 17")
        process.send_signal(signal.SIGHUP)
        until(lambda: b"settings that need a restart have changed" in log.read_bytes())
        assert b"receiver.idle_timeout" in log.read_bytes()
        process.terminate()
        assert process.wait(120) == 0


def test_a_hang_up_does_not_cut_a_drain(tmp_path: Path) -> None:
    """Settings told to be read again while the receiver stops: what it receives is still taken, and its end is clean."""
    port = free_port()
    settings_file(tmp_path, port, more="drain_idle = 60")
    with running(tmp_path, "receiver") as (process, _):

        async def stored_in_the_drain() -> int:
            scu = await Scu.associated(port)
            process.terminate()
            await asyncio.to_thread(until, lambda: not ready(tmp_path))
            process.send_signal(signal.SIGHUP)
            response = await scu.store("1.2.3")
            await scu.release()
            return response.status

        until(lambda: ready(tmp_path))
        assert run_closing(stored_in_the_drain()) == 0
        assert process.wait(120) == 0


def test_without_a_plain_listener_there_is_tls_only(tmp_path: Path) -> None:
    """And `serve` says where it listens."""
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.certificate("receiver")
    port = free_port()
    (tmp_path / "settings.toml").write_text(
        f'data = "{tmp_path / "data"}"\n[receiver]\nhost = ""\n[listeners.outside]\nport = {port}\n'
        f'certificate_file = "{certificate}"\nkey_file = "{key}"\nclient_ca_file = "{authority.ca}"\n'
    )
    with running(tmp_path, "serve", "--workers", "1") as (process, log):
        until(lambda: b"is ready" in log.read_bytes())
        assert f"listening   127.0.0.1:{port} with TLS, AE title".encode() in log.read_bytes()
        process.terminate()
        assert process.wait(120) == 0


def test_a_wrong_certificate_stops_the_start_with_one_line(tmp_path: Path) -> None:
    """Exit code 2, as for any wrong setting."""
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.certificate("receiver", days=-1)
    (tmp_path / "settings.toml").write_text(
        f'data = "{tmp_path / "data"}"\n[receiver]\nport = 0\n[listeners.outside]\nport = 0\n'
        f'certificate_file = "{certificate}"\nkey_file = "{key}"\nclient_certificate = "none"\n'
    )
    with running(tmp_path, "receiver") as (process, log):
        assert process.wait(120) == 2
        assert log.read_text().strip().splitlines()[-1].endswith("certificate has expired")


def test_a_terminal_that_is_gone_ends_serve(tmp_path: Path) -> None:
    """SIGHUP from there is what it always was."""
    port = free_port()
    file = settings_file(tmp_path, port)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(
            sys.executable, [sys.executable, "-m", "ingest", "serve", "--workers", "1", "--config", str(file)]
        )
    try:
        until(lambda: ready(tmp_path))
        os.close(terminal)
        until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
        assert not running_processes(tmp_path / "data")
    finally:
        subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)
