"""The ledger beside a running pipeline: killed and gone on, and what the commands that ask it answer."""

import csv
import datetime as dt
import io
import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pydicom
import pytest

from ingest.contract.running import Running, running_processes
from tests.support.admin import admin_ports, get, metrics_text, of, parsed
from tests.support.command import run
from tests.support.pipeline import Pipeline
from tests.support.placing import CORPUS, CT

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

FILES = sorted(path for path in CORPUS.glob("*CT_small.dcm")) + sorted(CORPUS.glob("liver*.dcm"))
NAMES = {"stored": "stored", "duplicate": "duplicates", "conflict": "conflicts", "quarantined": "quarantined"}
CONFIG = """
[ledger]
time_zone = "UTC"
interval = 0.1
[sources.ct]
ae_titles = ["CT1"]
issuer = "NORTH"
[sources.mr]
ae_titles = ["MR1"]
expected = "daily"
"""


def send(pipeline: Pipeline, *paths: Path, calling: str = "CT1") -> None:
    command = pipeline.command("send", "--to", f"127.0.0.1:{pipeline.port}", "--calling", calling)
    subprocess.run([*command, *map(str, paths)], check=False, capture_output=True, timeout=300)


def counted(data: Path) -> dict[str, int]:
    """What the ledger has, read beside the process that writes it."""
    file = data / "ledger" / "ledger.sqlite"
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as connection:
            found = connection.execute("SELECT place, COUNT(*) FROM fates GROUP BY place").fetchall()
    except sqlite3.OperationalError:
        return {}  # its tables are still being made
    return {NAMES[place]: count for place, count in found}


def wait_for(pipeline: Pipeline, status: dict[str, int]) -> None:
    """Until the ledger's own process has entered all that there is."""
    wanted = {name: status[name] for name in NAMES.values() if status[name]}
    deadline = time.monotonic() + 240
    while not (pipeline.data / "ledger" / "ledger.sqlite").exists() or counted(pipeline.data) != wanted:
        assert time.monotonic() < deadline, pipeline.log.read_text()[-4000:]
        time.sleep(0.1)


def process(data: Path, name: str, *, other_than: int = 0) -> Running:
    deadline = time.monotonic() + 240
    while True:
        found = [one for one in running_processes(data) if one.name == name and one.pid != other_than]
        if found:
            return found[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_ledger_beside_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each instance in it once though its process is killed; found, reported, and a study brought out."""
    config = tmp_path / "settings.toml"
    config.write_text(CONFIG)
    environment = {
        "DICOM_INGEST_CONFIG": str(config),
        "DICOM_INGEST_LEDGER__ENABLED": "true",
        "DICOM_INGEST_ADMIN__LISTEN": "127.0.0.1:0",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    data = tmp_path / "data"
    with Pipeline(data, workers=1, environment=environment) as pipeline:
        send(pipeline, *FILES)
        wait_for(pipeline, pipeline.settle())

        # As one that is slow: then killed with work undone.
        os.kill(process(data, "ledger").pid, signal.SIGSTOP)
        stopped = process(data, "ledger").pid
        send(pipeline, *FILES)
        send(pipeline, CT, calling="UNKNOWN")
        status = pipeline.settle()
        os.kill(stopped, signal.SIGKILL)
        process(data, "ledger", other_than=stopped)
        wait_for(pipeline, status)
        assert status["received"] == sum(counted(data).values()) == 2 * len(FILES) + 1

        port = admin_ports(pipeline.log)["ledger"]
        assert get(port, "/readyz")[0] == 200
        shown = parsed(metrics_text(port))
        assert shown[of("ledger_alarms_total", reason="study-of-two-patients")] == 0
        assert shown[of("ledger_lost_total")] == 0
        assert "child ended" in pipeline.log.read_text()

        asked(data, tmp_path)
    reported(data)


def asked(data: Path, folder: Path) -> None:
    """`find` and `get --study`."""
    image = pydicom.dcmread(CT, stop_before_pixels=True)
    study, uid = str(image.StudyInstanceUID), str(image.SOPInstanceUID)
    of_study = run(data, "find", "--study", study, "--json").json
    assert [one["place"] for one in of_study] == ["stored", "duplicate", "duplicate"]
    stored = of_study[0]
    assert (stored["sop_instance_uid"], stored["source"]) == (uid, "ct")
    assert Path(stored["path"]).is_file()
    assert run(data, "find", "--sop", uid, "--json").json == of_study
    assert run(data, "find", "--sop", "1.2.3").code == 1
    by_patient = run(data, "find", "--patient", str(image.PatientID), "--json").json
    withins = {one["patient_within"] for one in by_patient}
    assert withins == {"issuer NORTH", "ae UNKNOWN"}  # one number of two sources is not one person
    north = run(data, "find", "--patient", str(image.PatientID), "--issuer", "NORTH", "--json").json
    assert {one["study_instance_uid"] for one in north} == {study}
    padded = f" {image.PatientID}  "
    assert run(data, "find", "--patient", padded, "--json").json == by_patient
    assert run(data, "find", "--patient", padded, "--issuer", "NORTH ", "--json").json == north
    assert run(data, "find", "--patient", "  ").code == 2
    latin_1 = run(data, "find", "--patient", os.fsdecode(b"M\xfcller"))
    assert (latin_1.code, "not UTF-8" in latin_1.err) == (2, True)
    assert run(data, "find", "--patient", "nobody").code == 1
    assert run(data, "find", "--patient", "x", "--study", study).code == 2
    assert run(data, "find", "--study", "../x").code == 2
    people = run(data, "find", "--study", study).out
    assert f"study {study}: 1 stored, 2 duplicate, 0 committed" in people
    assert uid in people

    done = run(data, "get", "--study", study, str(folder / "out"))
    assert done.code == 0, done.err
    assert [path.name for path in (folder / "out").iterdir()] == [f"{uid}.dcm"]
    assert pydicom.dcmread(folder / "out" / f"{uid}.dcm").StudyInstanceUID == study
    assert run(data, "get", "--study", "1.2.3", str(folder / "none")).code == 1


def reported(data: Path) -> None:
    """`report` in all its forms, with everything down."""
    days = {dt.datetime.now(dt.UTC).date() - dt.timedelta(days=ago) for ago in (0, 1)}  # it may be midnight
    found = [run(data, "report", "--day", str(day), "--json").json for day in sorted(days)]
    sources = [one for day in found for one in day["sources"]]
    assert sum(one["instances"] for one in sources) == 2 * len(FILES) + 1
    assert {one["source"] for one in sources if one["instances"]} == {"ct", "(other)"}
    assert all("mr" in day["silent_sources"] for day in found)
    today = str(max(days))
    rows = list(csv.DictReader(io.StringIO(run(data, "report", "--day", today, "--csv").out)))
    assert {row["source"]: row["silent"] for row in rows}["mr"] == "yes"
    only = run(data, "report", "--day", today, "--source", "mr", "--json").json
    assert [one["source"] for one in only["sources"]] == ["mr"]
    page = run(data, "report", "--day", today, "--html").out
    body = page[page.index("<body>") : page.index("</body>") + len("</body>")]
    tree = ET.fromstring(body)
    assert len(tree.findall(".//svg")) == 2
    assert "mr was expected to send" in page
    assert "http" not in page.replace("http-equiv", "")  # it loads nothing
    assert "mr was expected" in run(data, "report", "--day", today).out
    assert run(data, "report", "--source", "nobody").code == 2
    assert run(data, "report", "--csv", "--html").code == 2
    assert json.dumps(found)


def test_what_waits_is_found_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Received, and no worker has come to it: by study and patient, in one record or in parts."""
    monkeypatch.setenv("DICOM_INGEST_LEDGER__TIME_ZONE", "UTC")
    data = tmp_path / "data"
    large = CORPUS / "MR2_UNCR.dcm"  # 2 MB: three records
    with Pipeline(data, workers=1, environment={"DICOM_INGEST_ADMIN__LISTEN": ""}) as pipeline:
        worker = process(data, "worker-0")
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            send(pipeline, CT, large)
            for path in (CT, large):
                image = pydicom.dcmread(path, stop_before_pixels=True)
                (one,) = run(data, "find", "--study", str(image.StudyInstanceUID), "--json").json
                assert (one["place"], one["sop_instance_uid"]) == ("waiting", str(image.SOPInstanceUID))
                assert run(data, "find", "--sop", str(image.SOPInstanceUID), "--json").json == [one]
                (one,) = run(data, "find", "--patient", str(image.PatientID), "--json").json
                assert one["place"] == "waiting"
            days = [dt.datetime.now(dt.UTC).date() - dt.timedelta(days=ago) for ago in (0, 1)]
            found = [run(data, "report", "--day", str(day), "--json").json for day in days]
            sources = [one for day in found for one in day["sources"]]
            assert sum(one["not_yet_stored"] for one in sources) == 2
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        pipeline.settle()
        image = pydicom.dcmread(CT, stop_before_pixels=True)
        (one,) = run(data, "find", "--study", str(image.StudyInstanceUID), "--json").json
        assert one["place"] == "stored"
