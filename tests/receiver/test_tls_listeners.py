"""TLS on the receiver's listeners (PS3.15 B.12), with peers that do it right and peers that do not."""

import asyncio
import ssl
import subprocess
import warnings
from pathlib import Path

import pytest
from pynetdicom import AE
from structlog.testing import capture_logs

from ingest.contract.refusals import RefusalOf, read_refusals
from ingest.contract.settings import MiB, Settings
from ingest.receiver.telemetry import Telemetry
from tests.support.acceptance import Sent
from tests.support.asynchronous import until
from tests.support.certificates import Authority
from tests.support.memory_log import MemoryLog
from tests.support.scu import CT, Scu, associate, c_store, ct_data_set
from tests.support.tls_site import HOST, Site, associated, refused, serving

UID = "1.2.826.7"


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
