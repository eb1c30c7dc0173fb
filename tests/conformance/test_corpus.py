"""Real files, sent by other people's software, end where they should and come out as they went in."""

import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pynetdicom
import pytest
from pydicom.uid import UID
from pynetdicom import AE

from tests.support.datasets import data_set_bytes, differing_elements, has_file_meta, pixels, read
from tests.support.pipeline import CORPUS, Pipeline, assert_adds_up

pytestmark = pytest.mark.real

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


def send_by_pynetdicom(port: int, files: list[Path]) -> int:
    """Send each file as it is, over associations of at most 100 contexts; the number acknowledged."""
    pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True
    acknowledged = 0
    for path in files:
        ds = read(path)
        ae = AE("PYNETDICOM")
        ae.add_requested_context(ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", port, ae_title="DICOM-INGEST")
        assert association.is_established, path.name
        status = association.send_c_store(path)
        acknowledged += status.get("Status") == 0x0000
        association.release()
    return acknowledged


def meta_agrees(path: Path) -> bool:
    """Whether the file's command set, made from its meta, can agree with its data set."""
    ds = read(path)
    return str(ds.file_meta.get("MediaStorageSOPInstanceUID")) == str(ds.get("SOPInstanceUID"))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    with Pipeline(tmp_path_factory.mktemp("corpus") / "data", workers=2) as running:
        yield running


def test_every_file_is_kept_whoever_sends_it(pipeline: Pipeline) -> None:
    """Each corpus file sent by dcmsend, storescu and pynetdicom is acknowledged, and the sum is exact."""
    agreeing = [path for path in FILES if meta_agrees(path)]
    acknowledged = send_by_dcmsend(pipeline.port, FILES)
    first = pipeline.settle()
    assert_adds_up(first)
    assert first["received"] == acknowledged >= len(agreeing)
    acknowledged += send_by_pynetdicom(pipeline.port, FILES)
    for path in agreeing:
        if str(read(path).file_meta.TransferSyntaxUID) in STORESCU_OPTION:
            assert send_by_storescu(pipeline.port, path), path.name
            acknowledged += 1
    last = pipeline.settle()
    assert_adds_up(last)
    assert last["received"] == acknowledged
    assert last["stored"] == first["stored"], "a second copy made a new object"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_stored_is_what_was_sent(pipeline: Pipeline, path: Path) -> None:
    """pydicom reads the stored object; its elements and pixels equal the source's, bytes where comparable."""
    source = read(path)
    stored = pipeline.objects().get(str(source.get("SOPInstanceUID")))
    if stored is None or not first_of_its_uid(path):
        return  # quarantined or in the conflict lane: counted above, looked at in their own tests
    kept = pydicom.dcmread(stored)
    assert differing_elements(source, kept) == []
    if kept.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID:
        assert data_set_bytes(stored) == data_set_bytes(path)
    else:
        assert kept.file_meta.TransferSyntaxUID == UID("1.2.840.10008.1.2.4.90")
        before, after = pixels(source), pixels(kept)
        assert before is not None
        assert after is not None
        assert np.array_equal(before, after)
    dump = subprocess.run(["dcmdump", "-q", str(stored)], capture_output=True, check=False)
    assert (
        dump.returncode
        == subprocess.run(["dcmdump", "-q", str(path)], capture_output=True, check=False).returncode
    )


def first_of_its_uid(path: Path) -> bool:
    """The object under a UID is the first file that was sent with it."""
    uid = read(path).get("SOPInstanceUID")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return next(other for other in FILES if read(other).get("SOPInstanceUID") == uid) == path
