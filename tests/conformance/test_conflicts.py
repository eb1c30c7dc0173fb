"""Other content under a known UID: kept whole, rightly classed, resolved by an administrator, whatever happens."""

import contextlib
import hashlib
import io
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import pydicom
import pytest
from pydicom.dataset import Dataset

from ingest.cli.group import main
from tests.support.acceptance import (
    QUICK,
    Sender,
    Sent,
    gained,
    run,
    send_data_sets,
    settle,
)
from tests.support.datasets import data_set_bytes, differing_elements, pixels, read
from tests.support.killing import run_killed_at
from tests.support.pipeline import CORPUS, Pipeline
from tests.support.scu import CT, ct_data_set
from tests.support.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:::pydicom")]

FIRST = CORPUS / "LittleEndianExplicit_CT_small.dcm"
PADDING = pydicom.tag.Tag(0xFFFC, 0xFFFC)
UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


def changed(target: Path, change: Callable[[pydicom.Dataset], None]) -> Path:
    """A copy of FIRST with other content under the same UID."""
    ds = read(FIRST)
    change(ds)
    ds.save_as(target, enforce_file_format=True)
    return target


def one_pixel(ds: pydicom.Dataset) -> None:
    ds.PixelData = ds.PixelData[:5000] + bytes([ds.PixelData[5000] ^ 1]) + ds.PixelData[5001:]


def store(port: int, path: Path) -> None:
    """Send a file by DCMTK's storescu."""
    subprocess.run(
        ["storescu", "-xe", "-aec", "DICOM-INGEST", "127.0.0.1", str(port), str(path)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def print_of(path: Path) -> tuple[int, int, str]:
    """A file's inode, time of change and bytes: what shows whether anybody has touched it."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()


def uploads_in_lane(pipeline: Pipeline, lane: str) -> int:
    """What a lane holds by its files: entries, and the further uploads that brought their bytes."""
    return sum(int(str(entry["repeats"])) + 1 for entry in pipeline.run_list(lane, "list"))


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with Pipeline(tmp_path / "data", workers=2, environment=QUICK) as running:
        yield running


def other_patient(data_set: Dataset) -> None:
    data_set.PatientName, data_set.PatientID, data_set.PatientSex = "Other^Name", "X1", "F"


def test_three_conflicts(pipeline: Pipeline, tmp_path: Path) -> None:
    """A changed pixel, attribute, patient: each in its class with its tags; the first object is not touched."""
    cases = {
        "pixels": (changed(tmp_path / "pixel", one_pixel), ["(7FE0,0010)"]),
        "elements": (
            changed(tmp_path / "attribute", lambda ds: setattr(ds, "BodyPartExamined", "ABDOMEN")),
            ["(0018,0015)"],
        ),
        "identity": (
            changed(tmp_path / "patient", other_patient),
            ["(0010,0010)", "(0010,0020)", "(0010,0040)"],
        ),
    }
    store(pipeline.port, FIRST)
    settle(pipeline)
    path = pipeline.objects()[UID]
    before = print_of(path)
    for other, _ in cases.values():
        store(pipeline.port, other)
    status = settle(pipeline)
    assert status["stored"] == 1
    assert status["conflicts"] == 3

    listed = {str(entry["reason"]): entry for entry in pipeline.run_list("conflicts", "list")}
    assert listed.keys() == cases.keys()
    for reason, (other, tags) in cases.items():
        entry = listed[reason]
        assert entry["sop_instance_uid"] == UID
        assert entry["source_digest"] == hashlib.sha256(data_set_bytes(Path(str(entry["path"])))).hexdigest()
        assert entry["differing_tags"] == tags
        assert entry["classes"] == (["identity", "elements"] if reason == "identity" else [reason])
        kept, sent = read(Path(str(entry["path"]))), read(other)
        assert differing_elements(sent, kept) == [str(PADDING)]  # which DCMTK does not send
        assert kept.PixelData == sent.PixelData
    shown = run(pipeline, "conflicts", "show", UID, "--json").json()
    assert shown["current"]["sop_instance_uid"] == UID
    assert {entry["reason"] for entry in shown["others"]} == cases.keys()

    lane = sorted((pipeline.data / "store" / "conflicts").rglob("*"))
    for other, _ in (*cases.values(), (FIRST, [])):
        store(pipeline.port, other)
    again = settle(pipeline)
    assert gained(status, again) == {"received": 4, "duplicates": 1, "conflicts": 3}
    new = [name for name in (pipeline.data / "store" / "conflicts").rglob("*") if name not in lane]
    assert {name.suffix for name in new} == {".json"}, "a second object of the same digest"
    assert uploads_in_lane(pipeline, "conflicts") == again["conflicts"] == 6
    assert print_of(path) == before


def test_resolve(pipeline: Pipeline, tmp_path: Path) -> None:
    """The preferred becomes current and the first is kept in the lane; both were acknowledged, which is said."""
    other = changed(tmp_path / "patient", lambda ds: setattr(ds, "PatientName", "Right^Name"))
    for path in (FIRST, other, other):
        store(pipeline.port, path)
    before = settle(pipeline)
    assert (before["stored"], before["conflicts"]) == (1, 2)
    current = read(pipeline.objects()[UID])
    (entry,) = pipeline.run_list("conflicts", "list")
    arguments = ("conflicts", "resolve", UID, "--prefer")

    refused = run(pipeline, *arguments, "0" * 64, "--reason", "wrong digest")
    assert refused.code == 1
    assert run(pipeline, *arguments, str(entry["source_digest"])).code == 2, "without a reason"
    done = run(pipeline, *arguments, str(entry["source_digest"]), "--reason", "name corrected", "--json")
    assert done.code == 0, done.stderr
    assert done.json()["prefer"] == entry["source_digest"]
    assert "acknowledged" in done.stderr

    # The repeat of the preferred content is a duplicate of what is current now.
    after = settle(pipeline)
    assert gained(before, after) == {"duplicates": 1, "conflicts": -1}
    stored = pipeline.objects()[UID]
    assert read(stored).PatientName == "Right^Name"
    (kept,) = pipeline.run_list("conflicts", "list")
    assert kept["reason"] == "superseded"
    superseded = read(Path(str(kept["path"])))
    assert superseded.PatientName == current.PatientName
    assert (pixels(superseded) == pixels(current)).all()  # type: ignore[union-attr]
    shown = run(pipeline, "conflicts", "show", UID, "--json").json()
    assert shown["current"]["source_digest"] == entry["source_digest"]
    assert run(pipeline, "verify").code == 0
    got = run(pipeline, "get", "--sop", UID, str(tmp_path / "got.dcm"))
    assert got.code == 0
    assert read(tmp_path / "got.dcm").PatientName == "Right^Name"
    for path in (FIRST, other):
        store(pipeline.port, path)
    assert gained(after, settle(pipeline)) == {"received": 2, "duplicates": 1, "conflicts": 1}


# More than the calls that change or sync the file system in a resolution of what is sent below.
CALLS = 100


def contents(number: int) -> tuple[Sent, Sent]:
    """The two contents of the number-th instance; too small to be transcoded."""
    uid = f"1.2.826.0.1.3680043.9.9.{number}"
    first = ct_data_set(uid)
    return Sent(CT, uid, first), Sent(CT, uid, first.replace(b"Doe^Jane", b"Roe^Jane"))


def resolve(pipeline: Pipeline, other: Sent) -> None:
    """`conflicts resolve`, within this process."""
    arguments = ["conflicts", "resolve", other.uid, "--prefer", other.digest, "--reason", "as the RIS has it"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main.main([*arguments, "--data", str(pipeline.data)], standalone_mode=False)


def end(pipeline: Pipeline, pair: tuple[Sent, Sent]) -> None:
    """Give the same command again, which is refused only where nothing is left to do."""
    try:
        resolve(pipeline, pair[1])
    except click.ClickException as refusal:
        assert str(refusal) == "that content is current already"  # noqa: PT017 - either is right
        assert data_set_bytes(pipeline.objects()[pair[1].uid]) == pair[1].data


def pending(pipeline: Pipeline) -> list[Path]:
    """The records of resolutions that have not come to their end."""
    return list((pipeline.data / "store" / "resolutions").glob("*/*.json"))


def whole(pipeline: Pipeline, number: int) -> bytes:
    """The content that is current, one of the two; both are kept, under the key or in the lane."""
    first, other = contents(number)
    current = data_set_bytes(pipeline.objects()[first.uid])
    assert current in (first.data, other.data)
    shard = hashlib.sha256(first.uid.encode()).hexdigest()[:3]
    lane = (pipeline.data / "store" / "conflicts" / shard / first.uid).glob("*")
    kept = {current, *(data_set_bytes(path) for path in lane if path.suffix != ".json")}
    assert kept == {first.data, other.data}
    return current


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_any_step_while_both_are_resent(pipeline: Pipeline, every: int) -> None:
    """Whenever a resolution dies, one content is current and both are kept; a command or a worker's start ends it.

    Workers run all the time, and both contents arrive once more meanwhile.
    """
    both = [contents(number) for number in range(CALLS // every)]
    for sent in zip(*both, strict=True):
        assert set(send_data_sets(pipeline.port, list(sent))) == {0}
        settle(pipeline)
    sender = Sender(pipeline.port)
    currents = []
    for number, pair in enumerate(both):
        sender.begin(pair)
        came_through = run_killed_at(number * every + 1, partial(resolve, pipeline, pair[1]))
        currents.append(whole(pipeline, number))
        sender.end()
        if came_through:
            break
    assert came_through, "more calls than instances"
    steps = len(currents)
    assert currents[0] == both[0][0].data
    assert currents[-1] == both[steps - 1][1].data

    for number in range(0, steps, 2):
        end(pipeline, both[number])
    assert pending(pipeline)
    assert pipeline.stop() == 0
    pipeline.start()
    until(lambda: pending(pipeline) == [], "a worker's start ends what had been recorded")
    for number in range(1, steps, 2):
        end(pipeline, both[number])  # those that died before anything was recorded
    sender.begin([one for pair in both for one in pair])
    sender.end()
    sender.close()

    status = settle(pipeline)
    instances = len(both)
    assert [whole(pipeline, number) for number in range(steps)] == [pair[1].data for pair in both[:steps]]
    assert [whole(pipeline, number) for number in range(steps, instances)] == [
        pair[0].data for pair in both[steps:]
    ]
    assert status["received"] == 2 * instances + sender.sent
    assert status["stored"] == instances == len(pipeline.objects())
    assert status["conflicts"] == uploads_in_lane(pipeline, "conflicts")
    assert len(pipeline.run_list("conflicts", "list")) == instances
    assert not list((pipeline.data / "store" / "resolutions").glob("*/*.json")), (
        "a resolution that nobody ended"
    )
    assert run(pipeline, "verify").code == 0
