"""The audit trail of the whole pipeline: every path driven, every event in the repository, over TLS."""

import signal
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.processes import free_port
from tests.support.acceptance import run
from tests.support.audit_schema import details
from tests.support.audit_trail import kinds, lines_of, parsed
from tests.support.certificates import Authority
from tests.support.console import Console, ask
from tests.support.pipeline import Pipeline
from tests.support.scu import CT, Scu, associate, c_store, ct_data_set, run_closing
from tests.support.syslog_server import SyslogServer
from tests.support.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

STUDY = "1.2.3.4"  # of `ct_data_set`
FIRST, OTHER, BROKEN, AGAIN = (f"1.2.826.80.{number}" for number in range(4))


def settings_file(folder: Path, *, repository: int, ca: Path, console: int, tls: str, title: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(
        '[receiver]\nunknown_sources = "refuse"\n'
        "[commitment]\nenabled = true\nabsent_grace = 1\n"
        f'[audit]\ndestination = "syslog"\nrepository = "localhost:{repository}"\nca_file = "{ca}"\n'
        f'quiet_time = 0.5\nsource_id = "archive-1"\n{tls}'
        f'[sources.ct1]\nae_titles = ["TESTER"]\n[sources.late]\nae_titles = ["{title}"]\n'
        f'[sources.console]\nae_titles = ["CONSOLE"]\nhost = "127.0.0.1"\nport = {console}\n'
    )
    return file


async def send(port: int) -> None:
    """Stored, a duplicate, a conflict, and two for quarantine; then somebody unknown."""
    scu = await Scu.associated(port)
    good = ct_data_set(FIRST)
    for uid, data_set in (
        (FIRST, good),
        (OTHER, ct_data_set(OTHER)),
        (FIRST, good),
        (FIRST, good.replace(b"Doe^Jane", b"Doe^John")),
        (BROKEN, ct_data_set(BROKEN)[:-100]),
        (AGAIN, ct_data_set(AGAIN)[:-100]),
    ):
        await scu.send(c_store(uid, data_set))
        assert (await scu.response(120)).status == 0
    await scu.release()
    stranger = associate().replace(b"TESTER  ", b"STRANGER")
    for request in (stranger, associate(called="OTHER")):
        scu = await Scu.connect(port)
        await scu.send(request)
        assert (await scu.pdu(120))[0] == 3
        await scu.close()


def transfers(messages: list[ET.Element]) -> dict[tuple[str, str], int]:
    """Number of instances by action and outcome."""
    found: dict[tuple[str, str], int] = {}
    for message in messages:
        event = message.find("EventIdentification")
        assert event is not None
        if event[0].attrib["csd-code"] == "110104":
            study = message.find("ParticipantObjectIdentification")
            assert study is not None
            assert study.attrib["ParticipantObjectID"] == STUDY
            assert {one.attrib["UID"] for one in study.iter("SOPClass")} == {CT}
            fate = (event.attrib["EventActionCode"], message.findtext(".//EventOutcomeDescription") or "")
            number = sum(int(one.attrib["NumberOfInstances"]) for one in study.iter("SOPClass"))
            found[fate] = found.get(fate, 0) + number
    return found


def test_every_event(tmp_path: Path) -> None:
    """Start, transfers by fate, refusals of associations and handshakes, commitment, decisions, settings, stop."""
    authority, console = Authority(tmp_path / "ca"), Console()
    own, key = authority.certificate("receiver")
    tls_port = free_port()
    tls = (
        f'[listeners.outside]\nport = {tls_port}\ncertificate_file = "{own}"\nkey_file = "{key}"\n'
        f'client_ca_file = "{authority.ca}"\n'
    )
    data = tmp_path / "data"
    with SyslogServer(authority.certificate("repository")) as repository, console.listening():
        settings = partial(
            settings_file,
            tmp_path,
            repository=repository.port,
            ca=authority.ca,
            console=console.port,
            tls=tls,
        )
        config = settings(title="ONE")
        with Pipeline(data, workers=1, environment={"DICOM_INGEST_CONFIG": str(config)}) as pipeline:
            run_closing(send(pipeline.port))
            pipeline.settle()
            with console.association(pipeline.port) as association:
                ask(association, [OTHER, "1.2.826.80.99"], "2.25.42")
            console.report()
            run_closing(_speak_no_tls(tls_port))
            assert run(pipeline, "quarantine", "discard", BROKEN, "--reason", "sent in error").code == 0
            assert run(pipeline, "quarantine", "replay", AGAIN).code == 1
            (conflict,) = pipeline.run_list("conflicts", "list")
            prefer = str(conflict["source_digest"])
            resolved = run(
                pipeline, "conflicts", "resolve", FIRST, "--prefer", prefer, "--reason", "second is right"
            )
            assert resolved.code == 0
            assert pipeline.process is not None
            settings(title="ZZ\\\\MARKER")
            pipeline.process.send_signal(signal.SIGHUP)
            until(lambda: b"settings refused" in pipeline.log.read_bytes())
            settings(title="TWO")
            pipeline.process.send_signal(signal.SIGHUP)
            until(lambda: b"settings reloaded" in pipeline.log.read_bytes())
            until(lambda: sum(transfers(list(map(parsed, repository.messages))).values()) == 6)
            pipeline.stop()
        sent = list(repository.messages)
    waiting = [line for line in lines_of(data) if line not in sent]
    messages = list(map(parsed, [*sent, *waiting]))
    assert transfers(messages) == {
        ("C", ""): 2,
        ("R", ""): 1,
        ("C", "conflict lane: identity"): 1,
        ("C", "quarantined: truncated"): 2,
    }
    counts = {kind: kinds(messages).count(kind) for kind in kinds(messages) if kind != ("110104",)}
    assert counts == {
        ("110100", "110120"): 2,  # receiver and worker start
        ("110100", "110121"): 2,
        ("110113", "110126"): 3,  # STRANGER, a wrong called AE title, a handshake
        ("110113", "110131"): 2,
        ("110103", "commitment"): 1,
        ("110103", "quarantine-discard"): 1,
        ("110103", "quarantine-replay"): 1,
        ("110103", "conflict-resolve"): 1,
    }
    by_kind = dict(zip(kinds(messages), messages, strict=True))
    assert details(by_kind["110103", "commitment"]) == {"committed": "1", "failed": "1"}
    assert details(by_kind["110103", "quarantine-discard"])["reason"] == "sent in error"
    assert details(by_kind["110103", "conflict-resolve"]) == {
        "reason": "second is right",
        "source-digest": prefer,
    }
    changes = [
        one for kind, one in zip(kinds(messages), messages, strict=True) if kind == ("110113", "110131")
    ]
    assert [change.findtext(".//EventOutcomeDescription") for change in changes] == [
        "settings refused: sources.late.ae_titles",
        "settings taken: sources.late",
    ]
    assert b"4711" not in b"".join(sent)  # the Patient ID is asked for by audit.patient_id only
    assert b"Doe" not in b"".join(sent)


async def _speak_no_tls(port: int) -> None:
    scu = await Scu.connect(port)
    await scu.send(associate())
    await scu.close()


@pytest.mark.parametrize("known", [False, True])
def test_patient_id_only_where_it_is_wanted(tmp_path: Path, known: bool) -> None:
    """Also of a duplicate, of which nothing else is read; the name never."""
    environment = {
        "DICOM_INGEST_AUDIT__DESTINATION": "file",
        "DICOM_INGEST_AUDIT__PATIENT_ID": str(known).lower(),
    }
    data = tmp_path / "data"
    with Pipeline(data, workers=1, environment=environment) as pipeline:
        run_closing(_twice(pipeline.port))
        pipeline.settle()
    messages = [message for message in map(parsed, lines_of(data)) if kinds([message]) == [("110104",)]]
    patients = [message.findall("ParticipantObjectIdentification")[1] for message in messages]
    assert len(patients) == 2
    assert {one.attrib["ParticipantObjectID"] for one in patients} == {"4711" if known else "withheld"}
    assert b"Doe" not in b"".join(lines_of(data))


async def _twice(port: int) -> None:
    scu = await Scu.associated(port)
    for _ in range(2):
        assert (await scu.store(FIRST, ct_data_set(FIRST))).status == 0
    await scu.release()
