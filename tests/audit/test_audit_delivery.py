"""The trail reaches its repository by syslog over TLS (RFC 5425): all of it, also when the repository was away."""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from benchmarks.processes import free_port
from ingest.contract.audit import Trail, record
from ingest.contract.audit.events import refused
from ingest.contract.audit.files import Mark, TrailFiles
from ingest.contract.audit.trail import record_now
from ingest.contract.settings import Settings
from tests.support.audit_trail import kinds, lines_of, parsed
from tests.support.certificates import Authority
from tests.support.small_disk import SmallDisk
from tests.support.syslog_server import SyslogServer
from tests.support.waiting import until

RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
FD_SETSIZE = 1024  # of select(2)
ALERT = ("110113", "110126")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    return authority.certificate("repository")


def settings_of(data: Path, port: int, ca: Path, **audit: object) -> Settings:
    given = {"destination": "syslog", "repository": f"localhost:{port}", "ca_file": str(ca), "retry": 0.1}
    return Settings.model_validate({"data": data, "audit": given | audit})


def alert(number: int) -> None:
    record(refused("A", "B", "10.0.0.1", f"number {number}"))


def numbers(messages: list[bytes]) -> list[int]:
    texts = [parsed(message).findtext(".//EventOutcomeDescription") or "" for message in messages]
    return [int(text.split()[1]) for text in texts if text.startswith("number ")]


def test_messages_arrive_whole(tmp_path: Path, authority: Authority, certificate: tuple[Path, Path]) -> None:
    """With our certificate, which the repository asks for; those of commands, too; and the folder empties."""
    own, key = authority.certificate("archive")
    with SyslogServer(certificate, authority.ca) as repository:
        settings = settings_of(
            tmp_path, repository.port, authority.ca, certificate_file=str(own), key_file=str(key)
        )
        with Trail(settings, "receiver"):
            for number in range(300):
                alert(number)
            record_now(settings, [refused("A", "B", "10.0.0.1", "number 300")])
            until(lambda: len(repository.messages) >= 302)
        until(lambda: len(repository.messages) == 303)  # with start and stop
        assert sorted(numbers(repository.messages)) == list(range(301))
        assert set(repository.peers) == {"archive"}  # the last messages may go over a connection of their own
        assert TrailFiles(tmp_path, settings.audit.maximum_size).waiting() == 0


def test_a_repository_that_comes_late_and_goes(
    tmp_path: Path, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    """Nobody waits for it; what happened meanwhile is sent, in its order, and the log says so once each way."""
    port = free_port()
    settings = settings_of(tmp_path, port, authority.ca)
    with structlog.testing.capture_logs() as events, Trail(settings, "receiver"):

        def said(words: str) -> int:
            return sum(words in event["event"] for event in events)

        for number in range(100):
            alert(number)
        until(lambda: said("cannot be reached") == 1)
        with SyslogServer(certificate, port=port) as first:
            until(lambda: said("reached again") == 1)  # said once the repository's system has acknowledged
            until(lambda: len(numbers(first.messages)) >= 100)
        for number in range(100, 200):
            alert(number)
        until(lambda: said("cannot be reached") == 2)
        with SyslogServer(certificate, port=port) as second:
            until(lambda: said("reached again") == 2)
            until(lambda: set(range(100, 200)) <= set(numbers(second.messages)))
            assert (said("cannot be reached"), said("reached again")) == (2, 2)
    assert numbers(first.messages) == list(range(100))


def test_what_waits_survives_the_process(
    tmp_path: Path, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    """It is sent by the next one."""
    port = free_port()
    settings = settings_of(tmp_path, port, authority.ca)
    with Trail(settings, "receiver"):
        alert(1)
    with SyslogServer(certificate, port=port) as repository, Trail(settings, "worker-0"):
        until(lambda: numbers(repository.messages) == [1])


def test_one_process_delivers_for_all(
    tmp_path: Path, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    """And another takes over when it ends."""
    with SyslogServer(certificate) as repository:
        settings = settings_of(tmp_path, repository.port, authority.ca)
        with Trail(settings, "worker-0"):
            with Trail(settings, "receiver"):
                alert(1)
                until(lambda: numbers(repository.messages) == [1])
            record_now(settings, [refused("A", "B", "10.0.0.1", "number 2")])
            until(lambda: numbers(repository.messages) == [1, 2])
        until(lambda: len(repository.messages) == 6)
        assert len(set(repository.messages)) == 6  # none twice


def test_a_repository_that_is_another_gets_nothing(tmp_path: Path, authority: Authority) -> None:
    """Neither one that another authority has signed nor one of another name."""
    stranger = Authority(tmp_path / "stranger")
    with SyslogServer(stranger.certificate("repository")) as repository:
        settings = settings_of(tmp_path / "data", repository.port, authority.ca)
        with structlog.testing.capture_logs() as events, Trail(settings, "receiver"):
            until(lambda: any("cannot be reached" in event["event"] for event in events))
        assert any("certificate not accepted" in event.get("why", "") for event in events)
        assert repository.messages == []
    assert len(lines_of(tmp_path / "data")) == 2


def test_a_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    """Is said; the trail waits, and the process goes on."""
    settings = settings_of(tmp_path, 1, tmp_path / "missing.pem")
    with structlog.testing.capture_logs() as events, Trail(settings, "receiver"):
        until(lambda: any("missing.pem" in event.get("why", "") for event in events))
    assert len(lines_of(tmp_path)) == 2


@pytest.mark.parametrize("host", ["audit..hospital.example", "a" * 64 + ".example", ".example"])
def test_a_host_that_can_be_no_name_is_said(tmp_path: Path, host: str) -> None:
    """As one that nobody knows: the resolver refuses a label that is empty or too long before it asks anybody."""
    settings = settings_of(tmp_path, 1, Authority(tmp_path / "authority").ca, repository=f"{host}:6514")
    with structlog.testing.capture_logs() as events, Trail(settings, "receiver"):
        until(lambda: any("cannot be reached" in event["event"] for event in events))
    assert len(lines_of(tmp_path)) == 2


def test_a_process_with_thousands_of_connections_delivers(
    tmp_path: Path, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    """As a receiver has them, whose limit of descriptors is the system's: select(2) ends at 1023."""
    with SyslogServer(certificate) as repository, contextlib.ExitStack() as held:
        while held.enter_context(Path(os.devnull).open("rb")).fileno() <= FD_SETSIZE:
            pass
        with Trail(settings_of(tmp_path, repository.port, authority.ca), "receiver"):
            alert(1)
            until(lambda: numbers(repository.messages) == [1])


def test_a_full_disk_has_nothing_sent_twice(
    tmp_path: Path, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    """Where a message still fits and what says that it was sent does not: the process remembers it."""
    with SmallDisk(tmp_path / "disk", "4m") as disk, SyslogServer(certificate) as repository:
        settings = settings_of(disk.path, repository.port, authority.ca)
        with structlog.testing.capture_logs() as events, Trail(settings, "receiver"):
            until(lambda: TrailFiles(disk.path, settings.audit.maximum_size).delivered() > Mark())
            disk.fill()
            alert(1)
            until(lambda: any(event.get("why") == os.strerror(errno.ENOSPC) for event in events))
            disk.relieve()
            alert(2)
            until(lambda: 2 in numbers(repository.messages))
        assert numbers(repository.messages) == [1, 2]


@pytest.fixture
def rsyslog(
    tmp_path: Path, authority: Authority, certificate: tuple[Path, Path]
) -> Iterator[tuple[int, Path, subprocess.Popen[bytes]]]:
    """A real repository: rsyslog with OpenSSL, which asks for our certificate and writes each message to a line."""
    port, output, config = free_port(), tmp_path / "repository.log", tmp_path / "rsyslog.conf"
    config.write_text(
        f"""global(workDirectory="{tmp_path}" maxMessageSize="64k" defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile="{authority.ca}" defaultNetstreamDriverCertFile="{certificate[0]}"
  defaultNetstreamDriverKeyFile="{certificate[1]}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="raw" type="string" string="%msgid% %app-name% %syslogfacility-text% %msg%\\n")
action(type="omfile" file="{output}" template="raw")
input(type="imtcp" port="{port}" address="127.0.0.1")
"""
    )
    assert RSYSLOGD is not None, "rsyslog and rsyslog-openssl are not installed: `make test-all` does that"
    command = [RSYSLOGD, "-n", "-f", str(config), "-i", str(tmp_path / "rsyslog.pid")]
    with (tmp_path / "rsyslog.out").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port, output, process
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.real
@pytest.mark.servers
def test_rsyslog(
    tmp_path: Path, authority: Authority, rsyslog: tuple[int, Path, subprocess.Popen[bytes]]
) -> None:
    """Takes every message as one, whole and valid, with facility and MSGID."""
    port, output, _ = rsyslog
    own, key = authority.certificate("archive")
    settings = settings_of(
        tmp_path / "data", port, authority.ca, certificate_file=str(own), key_file=str(key)
    )
    with Trail(settings, "receiver"):
        for number in range(500):
            alert(number)
        until(lambda: output.exists() and output.read_bytes().count(b"\n") >= 501)
    until(lambda: output.read_bytes().count(b"\n") == 502)
    lines = output.read_bytes().splitlines()
    head = b"DICOM+RFC3881 dicom-ingest authpriv "
    assert all(line.startswith(head) for line in lines), lines[0]
    header = b"<83>1 2026-01-01T00:00:00.000Z h dicom-ingest 1 DICOM+RFC3881 - \xef\xbb\xbf"
    messages = [header + line.removeprefix(head).lstrip(b" \xef\xbb\xbf") for line in lines]
    assert numbers(messages) == list(range(500))
    assert kinds([parsed(messages[3])]) == [ALERT]
