"""Associations that we open over TLS: sent files, C-ECHO, reports of storage commitment, and `sources test`."""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.events import Event, EventHandlerType

from benchmarks.processes import free_port
from ingest.contract.commitments import Finding, Found
from ingest.contract.settings import SourceSettings
from ingest.contract.tls import WrongCertificate
from ingest.sender import AssociationFailed, Peer
from ingest.sender.commitment import report
from ingest.sender.tls import tls_of
from tests.sender.test_sender_against_peers import write
from tests.support.asynchronous import asynchronous
from tests.support.certificates import Authority

pytestmark = pytest.mark.real
CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"


class Site:
    """The files of two nodes under one authority, and of another that nobody trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority(folder / "authority")
        self.fingerprint = authority.fingerprint
        self.ca = authority.ca
        self.console = authority.certificate("console")
        self.ours = authority.certificate("ours")
        self.elsewhere = Authority(folder / "elsewhere").ca

    def options(self, **changes: Path | str) -> list[str]:
        files = {"ca": self.ca, "cert": self.ours[0], "key": self.ours[1], **changes}
        return ["--tls", *(part for name, value in files.items() for part in (f"--tls-{name}", str(value)))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@contextmanager
def console(
    site: Site | None, *, role: bool = True, echo: bool = True
) -> Iterator[tuple[int, list[Dataset]]]:
    """A console of pynetdicom that takes reports, over TLS with client certificates where there is a site."""
    entity = AE("CT1")
    if echo:
        entity.add_supported_context(VERIFICATION)
    entity.add_supported_context(
        COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian], scu_role=role, scp_role=role
    )
    entity.add_supported_context(CT, ExplicitVRLittleEndian)
    context = None
    if site is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(site.ca))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(*site.console)
    reports: list[Dataset] = []

    def take(event: Event) -> tuple[int, None]:
        reports.append(event.event_information)
        return 0, None

    handlers: list[EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, take), (evt.EVT_C_STORE, lambda _: 0)]
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=context)
    assert server is not None
    try:
        yield port, reports
    finally:
        server.shutdown()


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingest", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def echo(port: int, *options: str) -> subprocess.CompletedProcess[str]:
    return run("echo", "--to", f"127.0.0.1:{port}", "--called", "CT1", "--timeout", "20", *options)


def test_echo_over_tls(site: Site) -> None:
    """Both sides show their certificate; who is not trusted, or trusts nobody, is told why in one line."""
    with console(site) as (port, _):
        done = echo(port, *site.options())
        assert (done.returncode, done.stderr) == (0, "")
        wrong = {
            "certificate not accepted: ": site.options(ca=site.elsewhere),
            "certificate not accepted: Hostname mismatch": site.options(name="another.example"),
        }
        for why, options in wrong.items():
            done = echo(port, *options)
            assert done.returncode == 1
            assert why in done.stderr, done.stderr
            assert done.stderr.count("\n") == 1
        assert echo(port, *site.options(name="")).returncode == 0
        assert echo(port, "--tls", "--tls-ca", str(site.ca)).returncode == 1  # without certificate
        assert echo(port).returncode == 1  # without TLS


@pytest.mark.parametrize(
    "options",
    [["--tls-name", "x"], ["--tls", "--tls-cert", __file__], ["--tls", "--tls-ca", __file__]],
)
def test_wrong_options_are_wrong_usage(options: list[str]) -> None:
    """Before anything is connected to."""
    assert echo(1, *options).returncode == 2


def test_send_to_storescp_over_tls(site: Site, tmp_path: Path) -> None:
    """DCMTK as acceptor, with several associations."""
    files = [write(tmp_path / f"{number}.dcm", f"1.2.3.{number}", size=100_000) for number in range(4)]
    target = tmp_path / "target"
    target.mkdir()
    port = free_port()
    certificate, key = site.console
    command = [
        "storescp",
        "--fork",
        "+tls",
        key,
        certificate,
        "--add-cert-file",
        site.ca,
        "-od",
        target,
        port,
    ]
    with subprocess.Popen(list(map(str, command))) as peer:
        try:
            for _ in range(100):
                if echo(port, *site.options()).returncode == 0:
                    break
            anonymous = echo(port, "--tls", "--tls-ca", str(site.ca))
            done = run(
                "send", *files, "--to", f"127.0.0.1:{port}", "--associations", "2", "--json", *site.options()
            )
        finally:
            peer.terminate()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sent"] == 4
    assert anonymous.returncode == 1
    # Its alert may be lost to a reset of the connection, on which our request was still unread.
    assert "ended TLS: " in anonymous.stderr or "connection closed" in anonymous.stderr
    assert len(list(target.iterdir())) == 4


def source(site: Site, port: int = 104, **changes: object) -> SourceSettings:
    return SourceSettings.model_validate(
        {
            "ae_titles": ["CT1"],
            "host": "127.0.0.1",
            "port": port,
            "tls": True,
            "tls_ca_file": str(site.ca),
            "tls_certificate_file": str(site.ours[0]),
            "tls_key_file": str(site.ours[1]),
            **changes,
        }
    )


@asynchronous
async def test_a_commitment_report_goes_over_tls(site: Site) -> None:
    """To the certificate that the source has, and to no other of the same authority."""
    with console(site) as (port, reports):
        for certificates in ((), (f"sha256:{site.fingerprint(site.console[0])}",)):
            tls = tls_of(source(site, certificates=certificates))
            peer = Peer("127.0.0.1", port, "CT1", "US", 20.0, tls)
            found = [Found(CT, "1.2.3", Finding.PROVED)]
            assert await report(peer, "2.25.1", found, [], "", propose_role=True) == 0
        assert [each.TransactionUID for each in reports] == ["2.25.1", "2.25.1"]
        tls = tls_of(source(site, certificates=["subject:CN=another"]))
        with pytest.raises(AssociationFailed, match="certificate of another"):
            await report(
                Peer("127.0.0.1", port, "CT1", "US", 20.0, tls), "2.25.2", found, [], "", propose_role=True
            )
        assert len(reports) == 2


def test_files_of_a_source_are_named_when_wrong(site: Site) -> None:
    """Which one, and why."""
    with pytest.raises(WrongCertificate, match=r"/none\.pem: No such file"):
        tls_of(source(site, tls_ca_file="/none.pem"))
    assert tls_of(source(site, tls=False, tls_ca_file="", tls_certificate_file="", tls_key_file="")) is None


def sources_file(folder: Path, site: Site, port: int, **changes: object) -> Path:
    settings = source(site, port, **changes).model_dump(mode="json", exclude_defaults=True)
    file = folder / "settings.toml"
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    file.write_text(f'data = "{folder}"\n[sources.ct1]\n{lines}\n')
    return file


def tried(file: Path, code: int) -> dict[str, tuple[str, str]]:
    done = run("sources", "test", "ct1", "--config", file, "--json")
    assert done.returncode == code, done.stderr
    return {step["name"]: (step["result"], step["detail"]) for step in json.loads(done.stdout)}


def test_the_return_address_is_tried_step_by_step(site: Site, tmp_path: Path) -> None:
    """Connection, TLS with the certificate's names, C-ECHO, and the role that a report proposes."""
    with console(site) as (port, _):
        steps = tried(sources_file(tmp_path, site, port), 0)
        assert list(steps) == ["address", "connection", "TLS", "C-ECHO", "commitment"]
        assert {result for result, _ in steps.values()} == {"ok"}
        assert "TLSv1.3" in steps["TLS"][1]
        assert "subject:CN=console, sha256:" in steps["TLS"][1]
        file = sources_file(tmp_path, site, port, certificates=["san:other"])
        file.write_text(
            file.read_text()
            + f'[listeners.a]\nport = 1\ncertificate_file = "a"\nkey_file = "b"\nclient_ca_file = "{site.ca}"\n'
        )
        steps = tried(file, 1)
        assert list(steps)[-1] == "TLS"
        assert steps["TLS"][0] == "failed"
        assert "certificate of another" in steps["TLS"][1]


def test_steps_that_fail_are_said(site: Site, tmp_path: Path) -> None:
    """No address, nobody there, no Verification, the role refused: each with exit code 1."""
    plain = {"tls": False, "tls_ca_file": "", "tls_certificate_file": "", "tls_key_file": ""}
    assert tried(sources_file(tmp_path, site, 104, host=""), 1)["address"][0] == "failed"
    steps = tried(sources_file(tmp_path, site, free_port(), **plain), 1)
    assert steps["connection"][0] == "failed"
    with console(None, role=False, echo=False) as (port, _):
        steps = tried(sources_file(tmp_path, site, port, **plain), 1)
        assert steps["TLS"][0] == "skipped"
        assert steps["C-ECHO"] == ("failed", "Verification is not accepted")
        assert steps["commitment"][0] == "failed"
    done = run("sources", "test", "nobody", "--config", sources_file(tmp_path, site, 104))
    assert done.returncode == 2
    assert "there are: ct1" in done.stderr


def test_sources_are_listed(site: Site, tmp_path: Path) -> None:
    """Who, from where, with how much, and the policy for others."""
    file = sources_file(tmp_path, site, 2762, addresses=["10.0.0.0/8"], maximum_rate=1 << 20)
    done = run("sources", "list", "--config", file)
    assert done.returncode == 0, done.stderr
    assert (
        "ct1   CT1        10.0.0.0/8  -             1048576 bytes/s  127.0.0.1:2762 with TLS" in done.stdout
    )
    assert done.stdout.endswith("all other AE titles: accept\n")
    document = json.loads(run("sources", "list", "--config", file, "--json").stdout)
    assert document["sources"][0]["name"] == "ct1"
