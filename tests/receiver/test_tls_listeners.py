"""TLS on the receiver's listeners (PS3.15 B.12), with peers that do it right and peers that do not."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop
from pynetdicom import AE
from structlog.testing import capture_logs

from ingest.contract.peer_settings import ListenerSettings
from ingest.contract.refusals import RefusalOf, read_refusals
from ingest.contract.settings import MiB, Settings
from ingest.contract.tls import WrongCertificate
from ingest.receiver import listeners
from ingest.receiver.credentials import Credentials
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.server import Server
from ingest.receiver.telemetry import Telemetry
from tests.support.acceptance import Sent
from tests.support.asynchronous import until
from tests.support.certificates import Authority
from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiver, run
from tests.support.scu import CT, Scu, associate, c_store, ct_data_set

UID = "1.2.826.7"
HOST = "127.0.0.1"


class Site:
    """The files of a hospital: its authority, the receiver's certificate, a modality's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "authority")
        self.certificate, self.key = self.authority.certificate("receiver")
        self.peer = self.authority.certificate("ct1", subject="/O=St. Mary, North/CN=ct1")

    def listener(self, **changes: object) -> ListenerSettings:
        return ListenerSettings.model_validate(
            {
                "port": 0,
                "certificate_file": str(self.certificate),
                "key_file": str(self.key),
                "client_ca_file": str(self.authority.ca),
                **changes,
            }
        )

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Of a modality that trusts the authority and presents a certificate, its own unless told otherwise."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        context.load_cert_chain(*(certificate or self.peer))
        return context

    def anonymous(self) -> ssl.SSLContext:
        """Of one that presents none."""
        return ssl.create_default_context(cafile=str(self.authority.ca))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """The receiver runs on uvloop; its protocol must do with either."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner


@contextlib.asynccontextmanager
async def serving(
    log: MemoryLog, listener: ListenerSettings, **settings: Any
) -> AsyncIterator[tuple[int, Server]]:
    """A receiver with one plain and one TLS listener; the port of the latter."""
    async with receiver(log, listeners={"outside": listener}, **settings) as (_, server):
        yield server.bound[1].port, server


async def associated(port: int, context: ssl.SSLContext) -> Scu:
    scu = Scu(*await asyncio.open_connection(HOST, port, ssl=context))
    await scu.send(associate())
    kind, _ = await scu.pdu()
    assert kind == 2, kind
    return scu


async def refused(port: int, context: ssl.SSLContext) -> None:
    """No association comes of it, whether the handshake fails or, in TLS 1.3, the first answer."""
    with pytest.raises((OSError, asyncio.IncompleteReadError)):  # ssl.SSLError is an OSError
        await associated(port, context)


def test_an_instance_comes_in_over_tls_as_it_does_without(site: Site, loop: asyncio.Runner) -> None:
    """Large and small instances, with the byte budget at work, arrive bit by bit as they were sent."""

    async def scenario() -> None:
        log = MemoryLog()
        async with serving(log, site.listener(), buffer_budget=4 * MiB) as (port, _):
            scu = await associated(port, site.client())
            sent = {}
            for number, size in enumerate((2_000, 300_000, 8_000_000)):
                uid = f"{UID}.{number}"
                sent[uid] = ct_data_set(uid, size)
                await scu.send(c_store(uid, sent[uid], message_id=number + 1))
                assert (await scu.response()).status == 0
            assert {uid: data for uid, (_, data) in log.instances().items()} == sent

    loop.run(scenario())


def test_several_associations_share_the_receive_buffer(site: Site, loop: asyncio.Runner) -> None:
    """TLS and plain connections at once, interleaved, mix nothing up."""

    async def scenario() -> None:
        log = MemoryLog()
        async with serving(log, site.listener()) as (port, server):
            scus = [await associated(port, site.client()) for _ in range(4)]
            scus += [await Scu.associated(server.bound[0].port) for _ in range(2)]
            sent = {f"{UID}.{n}": ct_data_set(f"{UID}.{n}", 1_500_000 + n * 1000) for n in range(len(scus))}
            await asyncio.gather(
                *(scu.send(c_store(uid, data)) for scu, (uid, data) in zip(scus, sent.items(), strict=True))
            )
            assert {(await scu.response()).status for scu in scus} == {0}
            assert {uid: data for uid, (_, data) in log.instances().items()} == sent

    loop.run(scenario())


def test_an_association_over_tls_ends_in_order(site: Site, loop: asyncio.Runner) -> None:
    """Release is answered, and nothing of the connection stays."""

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener()) as (port, server):
            scu = await associated(port, site.client())
            await scu.release()
            scu.writer.close()
            await until(lambda: not server.connections)

    loop.run(scenario())


def old_version(site: Site) -> ssl.SSLContext:
    context = site.client()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # Python's, that this is not to be done
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def weak_cipher(site: Site, ciphers: str) -> ssl.SSLContext:
    context = site.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    return context


def other_authority(site: Site) -> ssl.SSLContext:
    other = Authority(site.folder / "other").certificate("ct1")
    return site.client(other)


@pytest.mark.parametrize(
    "context",
    [
        Site.anonymous,
        lambda site: site.client(site.authority.certificate("expired", days=-1)),
        other_authority,
        old_version,
        lambda site: weak_cipher(site, "AES128-SHA"),
        lambda site: weak_cipher(site, "AES256-GCM-SHA384"),  # no forward secrecy
        lambda site: weak_cipher(site, "ECDHE-RSA-AES256-SHA384"),  # CBC
    ],
    ids=["none", "expired", "other authority", "TLS 1.1", "RSA and SHA-1", "static RSA", "CBC"],
)
def test_who_does_not_fit_the_profile_gets_no_association(
    site: Site, loop: asyncio.Runner, context: object
) -> None:
    """And the next who does, gets one; the log says why."""

    async def scenario() -> None:
        assert callable(context)
        async with serving(MemoryLog(), site.listener()) as (port, server):
            with capture_logs() as logs:
                await refused(port, context(site))
                await until(lambda: any(line["event"] == "TLS handshake failed" for line in logs))
            await associated(port, site.client())
            assert server.admission.associations == 1

    loop.run(scenario())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_the_profile_are_spoken(
    site: Site, loop: asyncio.Runner, version: ssl.TLSVersion
) -> None:
    """TLS 1.2 shall, 1.3 may be; with a small and modern key, too."""

    async def scenario() -> None:
        key = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        certificate, private = site.authority.certificate("ec", key=key)
        listener = site.listener(certificate_file=str(certificate), key_file=str(private))
        async with serving(MemoryLog(), listener) as (port, _):
            context = site.client()
            context.minimum_version = context.maximum_version = version
            await associated(port, context)

    loop.run(scenario())


def test_a_failed_handshake_is_remembered_with_its_remedy(
    site: Site, loop: asyncio.Runner, tmp_path: Path
) -> None:
    """For `status --rejected`; who connects and says nothing, as a probe does, is refused nothing."""
    telemetry = Telemetry(Settings(data=tmp_path))

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener(), telemetry=telemetry) as (port, _):
            telemetry.refusals.start()
            _, probe = await asyncio.open_connection(HOST, port)
            probe.close()
            plain = Scu(*await asyncio.open_connection(HOST, port))
            await plain.send(associate())
            await plain.reader.read()
            await refused(port, site.anonymous())
            await associated(port, site.client())
            await telemetry.refusals.close()

    loop.run(scenario())
    found = read_refusals(tmp_path)
    assert {(one.refused, one.reason, one.address) for one in found} == {
        (RefusalOf.HANDSHAKE, "tls-handshake", HOST)
    }
    assert sorted(one.subject for one in found) == [
        "peer did not return a certificate",
        "wrong version number",
    ]
    assert all("client_ca_file" in one.remedy for one in found)


def test_a_certificate_may_be_optional_or_not_asked_for(site: Site, loop: asyncio.Runner) -> None:
    """Optional: none is as good as a right one, and a wrong one is refused."""

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener(client_certificate="optional")) as (port, _):
            await associated(port, site.anonymous())
            await associated(port, site.client())
            await refused(port, other_authority(site))
        listener = site.listener(client_certificate="none", client_ca_file="")
        async with serving(MemoryLog(), listener) as (port, _):
            await associated(port, site.anonymous())

    loop.run(scenario())


def test_a_revoked_certificate_is_refused(site: Site, loop: asyncio.Runner) -> None:
    """With a revocation list of the authority."""

    async def scenario() -> None:
        revoked = site.authority.certificate("revoked")
        listener = site.listener(client_crl_file=str(site.authority.revoke(revoked[0])))
        async with serving(MemoryLog(), listener) as (port, _):
            await refused(port, site.client(revoked))
            await associated(port, site.client())

    loop.run(scenario())


def test_a_stalled_handshake_ends_and_garbage_ends_at_once(site: Site, loop: asyncio.Runner) -> None:
    """Neither leaves anything behind."""

    async def ends(port: int, first: bytes) -> None:
        scu = await Scu.connect(port)
        await scu.send(first)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(60):
                await scu.reader.read()

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener(), handshake_timeout=0.5) as (port, server):
            for stalled in (b"", b"\x16\x03\x01\x02\x00"):
                await ends(port, stalled)
            (handshakes,) = server.listeners._handshakes
            # No machine is so slow that what follows ends, or fails, by time.
            handshakes._settings = handshakes._settings.model_copy(update={"handshake_timeout": 600.0})
            for garbage in (b"GET / HTTP/1.1\r\n\r\n", associate()):
                await ends(port, garbage)
            assert not server.connections
            await until(lambda: not len(handshakes))
            await associated(port, site.client())

    loop.run(scenario())


def test_at_the_limit_of_handshakes_the_stalled_one_gives_way(
    site: Site, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stalls cannot keep others out, and there are never more than allowed."""

    async def scenario() -> None:
        limits = {"handshake_timeout": 120.0, "maximum_handshakes": 2}
        async with serving(MemoryLog(), site.listener(), **limits) as (port, server):
            (handshakes,) = server.listeners._handshakes
            stalled = [await Scu.connect(port) for _ in range(2)]
            await until(lambda: len(handshakes) == 2)
            monkeypatch.setattr("ingest.receiver.handshakes._GIVES_WAY", 3600.0)
            newest = await Scu.connect(port)  # young ones do not give way: the new one does
            assert await newest.reader.read() == b""
            monkeypatch.setattr("ingest.receiver.handshakes._GIVES_WAY", 0.0)
            await associated(port, site.client())
            assert await stalled[0].reader.read() == b""
            assert len(handshakes) == 1

    loop.run(scenario())


@pytest.mark.parametrize("setting", ["maximum_handshakes", "maximum_connections_per_address"])
def test_connections_that_are_closed_before_tls_are_counted(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """As those without TLS are: the new one at a limit, and the stalled one that gives way."""
    telemetry = Telemetry(Settings(data=tmp_path), ReceiverMetrics())
    monkeypatch.setattr("ingest.receiver.handshakes._GIVES_WAY", 3600.0)

    async def scenario() -> None:
        limits = {"handshake_timeout": 120.0, setting: 1}
        async with serving(MemoryLog(), site.listener(), telemetry=telemetry, **limits) as (port, server):
            telemetry.refusals.start()
            (handshakes,) = server.listeners._handshakes
            stalled = await Scu.connect(port)
            await until(lambda: len(handshakes) == 1)
            newest = await Scu.connect(port)
            assert await newest.reader.read() == b""
            if setting == "maximum_handshakes":
                monkeypatch.setattr("ingest.receiver.handshakes._GIVES_WAY", 0.0)
                await associated(port, site.client())
                assert await stalled.reader.read() == b""
            await telemetry.refusals.close()

    asyncio.run(scenario())
    refusals = 1 + (setting == "maximum_handshakes")
    found = [one for one in read_refusals(tmp_path) if one.refused == RefusalOf.CONNECTION]
    assert sum(one.times for one in found) == refusals
    assert found[0].address == HOST
    assert setting in found[0].remedy
    assert telemetry.metrics is not None
    assert telemetry.metrics.connections_refused.values() == [((), refusals)]


def test_a_receiver_that_stops_waits_for_no_handshake(site: Site, loop: asyncio.Runner) -> None:
    """Its port is free again, and who was shaking hands is let go."""

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener(), handshake_timeout=120.0) as (port, server):
            scu = await Scu.connect(port)
            Scu.forget(scu)
            await until(lambda: sum(map(len, server.listeners._handshakes)) == 1)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(60):
                assert await scu.reader.read() == b""
        scu.writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)

    loop.run(scenario())


def test_connections_of_one_address_are_bounded(site: Site, loop: asyncio.Runner) -> None:
    """Plain and with TLS; who leaves makes room."""

    async def scenario() -> None:
        async with serving(MemoryLog(), site.listener(), maximum_connections_per_address=1) as (port, server):
            scu = await associated(port, site.client())
            await refused(port, site.client())
            plain = await Scu.connect(server.bound[0].port)
            assert await plain.reader.read() == b""
            scu.writer.close()
            await until(lambda: not server.connections)
            await Scu.associated(server.bound[0].port)

    loop.run(scenario())


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


@pytest.mark.real
def test_dcmtk_and_pynetdicom_store_over_tls(site: Site, loop: asyncio.Runner, tmp_path: Path) -> None:
    """Senders of others, in their default profiles."""

    async def scenario() -> None:
        log = MemoryLog()
        file = Sent(CT, UID, ct_data_set(UID, 400_000)).write(tmp_path / "image.dcm")
        async with serving(log, site.listener()) as (port, _):
            certificate, key = site.peer
            trust = ["--add-cert-file", str(site.authority.ca), "-aec", "DICOM-INGEST"]
            tls = ["+tls", str(key), str(certificate), *trust]
            await asyncio.to_thread(ran, "echoscu", *tls, HOST, str(port))
            await asyncio.to_thread(ran, "storescu", *tls, HOST, str(port), str(file))
            assert len(log.instances()[UID][1]) >= 400_000
            await asyncio.to_thread(pynetdicom_echo, port, site.client())
            with pytest.raises(AssertionError):  # it presents no certificate
                await asyncio.to_thread(ran, "echoscu", "--anonymous-tls", *trust, HOST, str(port))

    loop.run(scenario())


def ran(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def pynetdicom_echo(port: int, context: ssl.SSLContext) -> None:
    ae = AE("CT1")
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate(HOST, port, ae_title="DICOM-INGEST", tls_args=(context, HOST))
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
