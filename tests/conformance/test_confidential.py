"""No patient data outside the objects: markers in every element, through every path, and nobody repeats them.

And nothing that a peer says of itself reaches a terminal or a collector as it came.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from ingest.contract.settings import Settings
from ingest.contract.uncaught import UNCAUGHT
from tests.support.admin import admin_ports, get, metrics_text, of, parsed
from tests.support.audit_trail import kinds, lines_of, trail_of
from tests.support.ledger_runs import live
from tests.support.ledgers import fates
from tests.support.pipeline import Pipeline, assert_adds_up
from tests.support.scu import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Scu,
    associate,
    c_store,
    ct_data_set,
    explicit,
    run_closing,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
RLE = "1.2.840.10008.1.2.5"
SYNTAXES = (EXPLICIT, DEFLATED, JPEG_LOSSLESS, RLE)
MARKER = b"ZZMARKER"
NUMBERS = "771188442266"  # an identifier that could pass for a UID's component
ROOT = "1.2.826.0.1.3680043.8.498"


def marked(uid: bytes, *, study: bytes = b"1.2.3.4", name: bytes = b"^ONE", end: bytes = b"") -> bytes:
    """A CT image that has a marker wherever there is room for one."""
    image = ct_data_set("1.2", 16384)
    pixels = image[image.index(b"\x28\x00\x02\x00") :]
    return (
        explicit(0x08, 0x05, b"CS", b"ISO_IR 100")
        + explicit(0x08, 0x16, b"UI", CT.encode())
        + explicit(0x08, 0x18, b"UI", uid)
        + explicit(0x08, 0x20, b"DA", MARKER)
        + explicit(0x08, 0x50, b"SH", MARKER + b"ACC")
        + explicit(0x08, 0x60, b"CS", b"CT")
        + explicit(0x08, 0x80, b"LO", MARKER + b"HOSPITAL")
        + explicit(0x08, 0x1030, b"LO", MARKER + b"STUDY")
        + explicit(0x09, 0x10, b"LO", MARKER + b"CREATOR")
        + explicit(0x09, 0x1001, b"UN", MARKER + b"PRIVATE")
        + explicit(0x10, 0x10, b"PN", MARKER + name)
        + explicit(0x10, 0x20, b"LO", MARKER + NUMBERS.encode())
        + explicit(0x10, 0x21, b"LO", MARKER + b"ISSUER")
        + explicit(0x10, 0x30, b"DA", MARKER)
        + explicit(0x10, 0x4000, b"LT", MARKER + b"COMMENT")
        + explicit(0x20, 0x0D, b"UI", study)
        + explicit(0x20, 0x0E, b"UI", b"1.2.3.4.5")
        + pixels
        + end
    )


def encapsulated(uid: bytes) -> bytes:
    """The same with what is no codestream in its pixel data."""
    image = marked(uid)
    head = image[: image.index(b"\xe0\x7f\x10\x00")]
    item = (MARKER * 8).ljust(64)
    return (
        head
        + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
        + b"\xfe\xff\x00\xe0\0\0\0\0"
        + b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )  # fmt: skip


def numbered(number: int) -> bytes:
    return f"{ROOT}.{number}".encode()


def cases() -> Iterator[tuple[str, bytes, int]]:
    """SOP Instance UID of the command, data set, index of the syntax among `SYNTAXES`."""
    good = marked(numbered(1))
    yield numbered(1).decode(), good, 0
    yield numbered(1).decode(), good, 0  # a duplicate
    yield numbered(1).decode(), marked(numbered(1), name=b"^TWO"), 0  # a conflict
    yield (
        numbered(2).decode(),
        marked(numbered(2), end=b"\xff\xff\x01\x00LO\xff\x7f" + MARKER),
        0,
    )  # truncated
    yield (
        numbered(3).decode(),
        marked(numbered(3), end=b"\x01\x00\x01\x00LO\x08\x00" + MARKER),
        0,
    )  # out of order
    yield numbered(4).decode(), marked(numbered(4), study=MARKER + b".1"), 0
    yield numbered(5).decode(), marked(numbered(5), end=MARKER * 9), 0  # no elements
    yield numbered(6).decode(), marked(numbered(7)), 0  # the command names another
    yield numbered(8).decode(), marked(MARKER + b".8"), 0  # no UID in the data set
    yield "ZZMARKER.9", marked(numbered(9)), 0  # none in the command
    yield numbered(10).decode(), MARKER * 100, 0
    yield numbered(11).decode(), b"\x08\x00\x18\x00UI\x40\x00" + MARKER * 8, 0
    yield numbered(12).decode(), MARKER * 100, 1  # not deflated
    yield numbered(13).decode(), encapsulated(numbered(13)), 2  # no codestream
    yield numbered(14).decode(), encapsulated(numbered(14)), 3


async def send_all(port: int) -> list[str]:
    """Send every case, and requests for associations that are refused; the Error Comments."""
    comments = []
    contexts = [(CT, (syntax,)) for syntax in SYNTAXES]
    request = associate((*contexts, ("ZZMARKER", (IMPLICIT,)), (VERIFICATION, (MARKER.decode(),))))
    for (
        uid,
        data_set,
        syntax,
    ) in cases():  # each in an association of its own, which has a line for each reason
        scu = await Scu.connect(port)
        await scu.send(request)
        assert (await scu.pdu())[0] == 2
        await scu.send(c_store(uid, data_set, context_id=2 * syntax + 1))
        comments.append((await scu.response()).error_comment or "")
        await scu.release()
    scu = await Scu.associated(port)
    await scu.send(c_store(numbered(20).decode(), marked(numbered(20)))[:2000])  # and is gone
    await scu.close()
    for called in ("WRONG\x1b[2J", "A\nB"):
        scu = await Scu.connect(port)
        await scu.send(associate(called=called))
        await scu.pdu()
        await scu.close()
    for junk in (
        MARKER * 100,
        b"\x01\x00\x00\x00\x00\x50" + MARKER * 10,
        b"\x04\x00\x00\x00\x00\x50" + MARKER * 10,
    ):
        scu = await Scu.connect(port)
        await scu.send(junk)
        await scu.close()
    return comments


def names(folder: Path) -> str:
    return "\n".join(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("form", ["json", "console"])
def test_markers_are_in_the_objects_alone(tmp_path: Path, form: str) -> None:
    """Logs at debug level, metrics, probes, error comments, file names, refusals and `status`."""
    config = tmp_path / "settings.toml"
    config.write_text(
        '[sources.ct-1]\nae_titles = ["TESTER"]\n[transcode]\ndecode_lossless = ["rle", "jpeg-lossless"]\n'
    )
    environment = {
        "DICOM_INGEST_TELEMETRY__LEVEL": "debug",
        "DICOM_INGEST_TELEMETRY__FORMAT": form,
        "DICOM_INGEST_CONFIG": str(config),
        "DICOM_INGEST_ADMIN__LISTEN": "127.0.0.1:0",
        "DICOM_INGEST_AUDIT__DESTINATION": "file",
        "DICOM_INGEST_LEDGER__ENABLED": "true",
    }
    data = tmp_path / "data"
    with Pipeline(data, workers=1, environment=environment) as pipeline:
        comments = run_closing(send_all(pipeline.port))
        status = pipeline.settle()
        assert_adds_up(status)
        assert min(status[place] for place in ("stored", "duplicates", "conflicts", "quarantined")) >= 1
        assert sum(map(bool, comments)) >= 3
        pages = _pages(pipeline, status) if form == "json" else []
    log = pipeline.log.read_text()
    _assert_ledger_has_all(data, status)
    told: Sequence[str] = [
        log, *comments, *pages, names(data), json.dumps(status),
        *(path.read_text() for path in (data / "refusals").iterdir()),
        *(line.decode() for line in lines_of(data)),
        # The ledger, its outcome logs and what commands make of it.
        *(
            path.read_bytes().decode("latin-1")
            for folder in ("ledger", "outcomes")
            for path in (data / folder).rglob("*")
            if path.is_file()
        ),
        *(_asked(pipeline) if form == "json" else ()),
        json.dumps(pipeline.run_list("status", "--rejected")),
    ]  # fmt: skip
    for text in told:
        assert MARKER.decode() not in text, text[max(0, text.index(MARKER.decode()) - 500) :][:1000]
        assert NUMBERS not in text
        assert "\x1b[2J" not in text
    assert "A\nB" not in log
    assert sum(kind == ("110104",) for kind in kinds(trail_of(data))) >= 4  # and the audit trail is valid
    assert "Traceback" not in log
    assert UNCAUGHT not in log
    if form == "json":
        others = [line for line in log.splitlines() if not isinstance(_event(line), dict)]
        assert all(line.startswith(("dicom-ingest 0.", "  ")) for line in others), others  # `serve` is ready


def _assert_ledger_has_all(data: Path, status: dict[str, int]) -> None:
    """A row for each instance, at its place; those with a Patient ID by its hash."""
    settings = Settings.model_validate({"data": data})
    ledger = live(settings)
    found = fates(ledger)
    ledger.close()
    places = Counter(row["place"] for row in found)
    for place, name in (("stored", "stored"), ("duplicate", "duplicates"), ("conflict", "conflicts"),
                        ("quarantined", "quarantined")):  # fmt: skip
        assert places[place] == status[name]
    stored = [row for row in found if row["place"] in {"stored", "duplicate"}]
    assert {row["source"] for row in found} == {"ct-1"}
    assert {(len(row["patient"]), row["patient_scope"], len(row["accession"])) for row in stored} == {
        (32, "issuer", 32)
    }


def _asked(pipeline: Pipeline) -> Iterator[str]:
    day = datetime.now().astimezone().date()
    for arguments in (
        ("find", "--study", "1.2.3.4"),
        ("report", "--day", str(day)),
        ("report", "--day", str(day), "--html"),
    ):
        done = subprocess.run(
            pipeline.command(*arguments, "--data", str(pipeline.data)),
            check=True, capture_output=True, text=True, env=pipeline.environment, timeout=300,
        )  # fmt: skip
        yield done.stdout + done.stderr


def _event(line: str) -> object:
    return json.loads(line) if line.startswith("{") else None


def _pages(pipeline: Pipeline, status: dict[str, int]) -> list[str]:
    """What the admin ports show, which is what `status` says."""
    ports = admin_ports(pipeline.log)
    receiver, worker = metrics_text(ports["receiver"]), metrics_text(ports["worker-0"])
    assert (
        get(ports["receiver"], "/readyz") == get(ports["worker-0"], "/readyz") == (200, '{"status":"ok"}\n')
    )
    counted = {**parsed(receiver), **parsed(worker)}
    assert (
        counted[of("received_instances_total", source="ct-1", outcome="acknowledged")] == status["received"]
    )
    for place, name in (("stored", "stored"), ("duplicate", "duplicates"), ("conflict", "conflicts"),
                        ("quarantined", "quarantined")):  # fmt: skip
        assert status[name] == sum(
            value
            for (metric, labels), value in counted.items()
            if metric == "dicom_ingest_placed_instances_total" and dict(labels)["place"] == place
        )
    assert counted[of("transcodes_total", result="transcoded")] >= 1
    assert counted[of("stage_seconds_count", stage="store")] >= 1
    assert counted[of("uploads_waiting", state="in-work")] == 0
    assert counted[of("codec_restarts_total")] >= 0
    assert 0 <= counted[of("log_backlog_bytes")] <= counted[of("log_maximum_bytes")]
    sources = {dict(labels)["source"] for _, labels in counted if "source" in dict(labels)}
    assert sources <= {"ct-1", "(other)"}
    return [
        receiver,
        worker,
        *(get(port, path)[1] for port in ports.values() for path in ("/livez", "/nowhere")),
    ]
