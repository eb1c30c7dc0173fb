"""Real files, sent by other people's software, end where they should and come out as they went in."""

import hashlib
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pynetdicom
import pytest
from pydicom.uid import UID
from pynetdicom import AE

from tests.support.datasets import data_set_bytes, differing_elements, has_file_meta, pixels, read
from tests.support.pipeline import CORPUS, Pipeline, assert_adds_up

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:::pydicom"),  # the corpus is malformed on purpose
]

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
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    output = done.stdout + done.stderr
    return output.count("Received C-STORE Response (Success)")


def send_by_storescu(port: int, path: Path) -> bool:
    """Send one file in its own transfer syntax."""
    syntax = str(read(path).file_meta.TransferSyntaxUID)
    done = subprocess.run(
        ["storescu", "-v", STORESCU_OPTION[syntax], "-R", "-aec", "DICOM-INGEST", "127.0.0.1", str(port), str(path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_stored_is_what_was_sent(pipeline: Pipeline, path: Path) -> None:
    """pydicom and DCMTK read the stored object; its elements and pixels equal the source's, or its bytes."""
    if not meta_agrees(path):
        return  # refused: its command set contradicts its data set
    stored = kept_at(pipeline, path)
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


def kept_at(pipeline: Pipeline, path: Path) -> Path:
    """Where the file's data set went: the store, or a lane that says why."""
    digest = hashlib.sha256(data_set_bytes(path)).hexdigest()
    uid = str(read(path).get("SOPInstanceUID"))
    if first_of_its_uid(path) and uid in pipeline.objects():
        return pipeline.objects()[uid]
    lanes = [*pipeline.run_list("conflicts", "list"), *pipeline.run_list("quarantine", "list")]
    entries = [entry for entry in lanes if entry["source_digest"] == digest]
    if not entries:
        return pipeline.objects()[uid]  # a duplicate: same content in another encoding
    assert len(entries) == 1
    assert entries[0]["reason"]
    return pipeline.data / "store" / str(entries[0]["path"])


def dcmdump(path: Path) -> int:
    """DCMTK's opinion of a file: its exit code."""
    return subprocess.run(["dcmdump", "-q", str(path)], capture_output=True, check=False).returncode


def test_whoever_sends_again_makes_no_new_object(pipeline: Pipeline) -> None:
    """The same files from dcmsend and storescu are acknowledged, counted and add nothing to the store."""
    first = pipeline.status()
    acknowledged = send_by_dcmsend(pipeline.port, FILES)
    for path in FILES:
        if meta_agrees(path) and str(read(path).file_meta.TransferSyntaxUID) in STORESCU_OPTION:
            assert send_by_storescu(pipeline.port, path), path.name
            acknowledged += 1
    last = pipeline.settle()
    assert_adds_up(last)
    assert last["received"] == first["received"] + acknowledged
    assert last["stored"] == first["stored"]


def first_of_its_uid(path: Path) -> bool:
    """The object under a UID is the first file that was sent with it."""
    uid = read(path).get("SOPInstanceUID")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return next(other for other in FILES if read(other).get("SOPInstanceUID") == uid) == path
