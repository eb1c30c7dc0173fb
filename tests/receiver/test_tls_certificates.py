"""Certificates that are exchanged, or cannot be used: associations go on, and what is wrong is told."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from structlog.testing import capture_logs

from ingest.contract.tls import WrongCertificate
from ingest.receiver import listeners
from ingest.receiver.credentials import Credentials
from tests.support.asynchronous import until
from tests.support.memory_log import MemoryLog
from tests.support.receiving import run
from tests.support.tls_site import HOST, Site, associated, serving

UID = "1.2.826.7"


def replaced(target: tuple[Path, Path], source: tuple[Path, Path]) -> None:
    for old, new in zip(target, source, strict=True):
        copy = old.with_suffix(".new")
        shutil.copy(new, copy)
        os.replace(copy, old)  # noqa: PTH105 - as an administrator's tool would


def test_a_new_certificate_is_used_and_drops_nobody(site: Site, loop: asyncio.Runner, tmp_path: Path) -> None:
    """Of new connections; those that are open go on under the old one."""

    async def scenario() -> None:
        own = (tmp_path / "own.pem", tmp_path / "own.key")
        replaced(own, (site.certificate, site.key))
        renewed = site.authority.certificate("renewed")
        listener = site.listener(certificate_file=str(own[0]), key_file=str(own[1]))
        async with serving(MemoryLog(), listener, certificate_interval=0.05) as (port, _):
            old = await associated(port, site.client())
            with capture_logs() as logs:
                replaced(own, renewed)
                await until(lambda: any(line["event"] == "certificate reloaded" for line in logs))
            new = await associated(port, site.client())
            names = [
                dict(scu.writer.get_extra_info("peercert")["subject"][0])["commonName"] for scu in (old, new)
            ]
            assert names == ["receiver", "renewed"]
            assert (await old.store(UID)).status == 0

    loop.run(scenario())


def visited(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession]:
    """A connection that is closed as TLS asks for: whether it went on with ``session``, and its own."""
    with socket.create_connection((HOST, port)) as plain:
        secure = context.wrap_socket(plain, server_hostname="localhost", session=session)
        reused, own = bool(secure.session_reused), secure.session
        assert own is not None
        secure.unwrap()
        return reused, own


def test_no_session_outlives_a_look_at_the_certificates(site: Site, loop: asyncio.Runner) -> None:
    """Neither a peer's certificate, past its end, nor the memory of each peer that ever came: TLS 1.2 keeps both."""

    async def scenario() -> None:
        context = site.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(MemoryLog(), site.listener(), certificate_interval=3600.0) as (port, server):
            _, session = await asyncio.to_thread(visited, port, context, None)
            with capture_logs() as logs:
                await server.listeners.refresh()
            assert logs == []
            reused, _ = await asyncio.to_thread(visited, port, context, session)
            assert not reused

    loop.run(scenario())


def test_a_bad_new_certificate_is_refused_and_the_old_one_stays(site: Site, tmp_path: Path) -> None:
    """Expired, of another key, or rubbish: said clearly, and peers notice nothing."""

    async def scenario() -> None:
        own = (tmp_path / "own.pem", tmp_path / "own.key")
        replaced(own, (site.certificate, site.key))
        listener = site.listener(certificate_file=str(own[0]), key_file=str(own[1]))
        rubbish = tmp_path / "rubbish"
        rubbish.write_text("no PEM")
        expired = site.authority.certificate("expired", days=-1)
        async with serving(MemoryLog(), listener, certificate_interval=3600.0) as (port, server):
            for bad, why in (
                ((rubbish, rubbish), "own.pem"),
                ((site.peer[0], site.key), "key values mismatch"),
                (expired, "certificate has expired"),
            ):
                replaced(own, bad)
                with capture_logs() as logs:
                    await server.listeners.refresh()
                (line,) = logs
                assert line["event"] == "new certificate refused, the old one stays"
                assert line["log_level"] == "error"
                assert why in line["why"]
                await associated(port, site.client())

    run(scenario())


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom permissions bind."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_new_certificate_that_may_be_read_only_later_is_taken_then(site: Site) -> None:
    """Copied by root and given to the receiver's user in a second step, with a look in between."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        own = (Path(folder) / "own.pem", Path(folder) / "own.key")
        replaced(own, (site.certificate, site.key))
        listener = site.listener(
            certificate_file=str(own[0]), key_file=str(own[1]), client_certificate="none"
        )
        credentials = Credentials("outside", listener.model_copy(update={"client_ca_file": ""}))
        before = credentials.context
        replaced(own, site.authority.certificate("renewed"))
        for file, mode in ((own[1], 0), (own[0], 0o644), (own[1], 0o644)):
            file.chmod(mode)
            with unprivileged():
                credentials.refresh()
        assert credentials.context is not before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"certificate_file": "/none.pem"}, "/none.pem: No such file"),
        ({"client_ca_file": "/none.pem"}, "/none.pem: No such file"),
    ],
)
def test_a_receiver_does_not_begin_without_its_files(
    site: Site, changes: dict[str, object], why: str
) -> None:
    """Rather than listen without TLS."""

    async def scenario() -> None:
        with pytest.raises(WrongCertificate, match=why):
            async with serving(MemoryLog(), site.listener(**changes)):
                pass

    run(scenario())


def test_an_address_that_cannot_be_resolved_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's word, whose number is none of the system's."""

    def unresolved(*_: object, **__: object) -> socket.socket:
        raise OSError(socket.EAI_NONAME, "Name or service not known (while attempting to bind)")

    monkeypatch.setattr(socket, "create_server", unresolved)
    with pytest.raises(OSError, match="Name or service not known") as caught:
        listeners._bind("wards", "nowhere", 2762, 8)
    assert caught.value.filename == "listeners.wards, nowhere:2762"
