"""Real files, sent by other people's software, end where they should and come out as they went in."""

import hashlib
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pynetdicom
import pytest
from pydicom.uid import UID
from pynetdicom import AE

from tests.support.datasets import data_set_bytes, differing_elements, has_file_meta, pixels, read
from tests.support.pipeline import CORPUS, Pipeline, assert_adds_up
from tests.support.reactor import leave_responses_to_their_senders

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:::pydicom"),  # the corpus is malformed on purpose
]

Entries = list[dict[str, object]]

FILES = sorted(path for path in CORPUS.glob("*.dcm") if has_file_meta(path))

# storescu proposes what its option says, so each transfer syntax has one.
STORESCU_OPTION = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
}


def send_by_dcmsend(port: int, files: list[Path]) -> int:
    """Send each file as it is; the number of files that the receiver acknowledged."""
    done = subprocess.run(
        ["dcmsend", "-v", "-dn", "-nh", "-aec", "DICOM-INGEST", "127.0.0.1", str(port), *map(str, files)],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    output = done.stdout + done.stderr
    return output.count("Received C-STORE Response (Success)")


def send_by_storescu(port: int, path: Path) -> bool | None:
    """Send one file in its own transfer syntax; ``None`` where storescu itself cannot read it."""
    syntax = str(read(path).file_meta.TransferSyntaxUID)
    done = subprocess.run(
        ["storescu", "-v", STORESCU_OPTION[syntax], "-R", "-aec", "DICOM-INGEST", "127.0.0.1", str(port), str(path)],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "missing SOP class" in done.stdout + done.stderr:
        return None
    return "Received Store Response (Success)" in done.stdout + done.stderr


def send_by_pynetdicom(port: int, files: list[Path]) -> set[Path]:
    """Send each file's data set byte for byte; the files acknowledged."""
    pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True
    acknowledged = set()
    for path in files:
        ds = read(path)
        ae = AE("PYNETDICOM")
        ae.add_requested_context(ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", port, ae_title="DICOM-INGEST")
        assert association.is_established, path.name
        leave_responses_to_their_senders(association)
        status = association.send_c_store(path)
        if status.get("Status") == 0x0000:
            acknowledged.add(path)
        association.release()
    return acknowledged


def meta_agrees(path: Path) -> bool:
    """Whether the file's command set, made from its meta, can agree with its data set."""
    ds = read(path)
    return str(ds.file_meta.get("MediaStorageSOPInstanceUID")) == str(ds.get("SOPInstanceUID"))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline that has received every file, byte for byte, from pynetdicom."""
    with Pipeline(tmp_path_factory.mktemp("corpus") / "data", workers=2) as running:
        acknowledged = send_by_pynetdicom(running.port, FILES)
        assert acknowledged >= {path for path in FILES if meta_agrees(path)}
        status = running.settle()
        assert_adds_up(status)
        assert status["received"] == len(acknowledged)
        yield running


@pytest.fixture(scope="module")
def lanes(pipeline: Pipeline) -> Entries:
    """What is in conflict or quarantine once every file was received."""
    return [*pipeline.run_list("conflicts", "list"), *pipeline.run_list("quarantine", "list")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_stored_is_what_was_sent(
    pipeline: Pipeline, lanes: Entries, tmp_path: Path, path: Path
) -> None:
    """pydicom and DCMTK read the stored object; its elements and pixels equal the source's, or its bytes."""
    if not meta_agrees(path):
        return  # refused: its command set contradicts its data set
    stored, whole = kept_at(pipeline, lanes, path)
    if not whole:
        same_content(native(path, tmp_path / "source.dcm"), native(stored, tmp_path / "stored.dcm"))
        return
    source, kept = read(path), read(stored)
    assert differing_elements(source, kept) == []
    if kept.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID:
        assert data_set_bytes(stored) == data_set_bytes(path)
    else:
        assert kept.file_meta.TransferSyntaxUID == UID("1.2.840.10008.1.2.4.90")
        assert not path.name.startswith("JPEG"), "compressed sources pass through"
        before, after = pixels(source), pixels(kept)
        assert before is not None
        assert after is not None
        assert np.array_equal(before, after)
    assert dcmdump(stored) == dcmdump(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_error_is_ours(pipeline: Pipeline, lanes: Entries, path: Path) -> None:
    """dciodvfy, which knows the IODs of PS3.3, finds no error in what is kept that it does not find in what was sent."""
    if meta_agrees(path):
        kept, whole = kept_at(pipeline, lanes, path)
        source = path if whole else next(file for file in FILES if uid_of(file) == uid_of(path))
        assert not dciodvfy(kept) - dciodvfy(source)


def dciodvfy(path: Path) -> Counter[str]:
    """Its errors, and the assertion that 32 bits in an OW end it with; its exit code does not tell of all."""
    done = subprocess.run(["dciodvfy", str(path)], check=False, capture_output=True, timeout=120)
    lines = (done.stdout + done.stderr).decode("latin-1").splitlines()
    assert lines
    return Counter(line for line in lines if line.startswith("Error") or "Assertion" in line)


def uid_of(path: Path) -> str:
    return str(read(path).get("SOPInstanceUID"))


def kept_at(pipeline: Pipeline, lanes: Entries, path: Path) -> tuple[Path, bool]:
    """Where the file's data set went: the store or a lane; not whole where another encoding of it was first."""
    digest = hashlib.sha256(data_set_bytes(path)).hexdigest()
    uid = str(read(path).get("SOPInstanceUID"))
    if first_of_its_uid(path) and uid in pipeline.objects():
        return pipeline.objects()[uid], True
    entries = [entry for entry in lanes if entry["source_digest"] == digest]
    if not entries:
        return pipeline.objects()[uid], False
    assert len(entries) == 1
    assert entries[0]["reason"]
    return pipeline.data / "store" / str(entries[0]["path"]), True


def native(path: Path, target: Path) -> Path:
    """The file in Explicit VR Little Endian, by DCMTK where it can, so that the judge is not our own code."""
    tool = {"1.2.840.10008.1.2.4.80": ["dcmdjpls"], "1.2.840.10008.1.2.2": ["dcmconv", "+te"]}
    syntax = str(read(path).file_meta.TransferSyntaxUID)
    if syntax not in tool:
        return path
    subprocess.run([*tool[syntax], str(path), str(target)], check=True, capture_output=True)
    return target


def same_content(first: Path, second: Path) -> None:
    """Elements and pixels are equal, whatever the encoding."""
    left, right = read(first), read(second)
    assert differing_elements(left, right) == []
    before, after = pixels(left), pixels(right)
    assert before is not None
    assert after is not None
    assert np.array_equal(before, after)


def dcmdump(path: Path) -> int:
    """DCMTK's opinion of a file: its exit code."""
    return subprocess.run(["dcmdump", "-q", str(path)], capture_output=True, check=False).returncode


def test_whoever_sends_again_makes_no_new_object(pipeline: Pipeline) -> None:
    """The same files from dcmsend and storescu are acknowledged, counted and add nothing to the store."""
    first, before = pipeline.status(), set(pipeline.objects())
    acknowledged = send_by_dcmsend(pipeline.port, FILES)
    for path in FILES:
        if meta_agrees(path) and str(read(path).file_meta.TransferSyntaxUID) in STORESCU_OPTION:
            sent = send_by_storescu(pipeline.port, path)
            assert sent is not False, path.name
            acknowledged += sent is True
    last = pipeline.settle()
    assert_adds_up(last)
    assert last["received"] == first["received"] + acknowledged
    # dcmsend takes the UID from the data set, so a file whose meta contradicts it is new, and welcome.
    refused_before = {str(read(path).get("SOPInstanceUID")) for path in FILES if not meta_agrees(path)}
    assert set(pipeline.objects()) - before <= refused_before
    assert last["stored"] == len(pipeline.objects())


def first_of_its_uid(path: Path) -> bool:
    """The object under a UID is the first file that was sent with it."""
    uid = read(path).get("SOPInstanceUID")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return next(other for other in FILES if read(other).get("SOPInstanceUID") == uid) == path
