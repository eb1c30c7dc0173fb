"""Storage commitment with SCUs that others wrote: Orthanc (DCMTK inside) and dcmjs-dimse."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from benchmarks.processes import free_port
from tests.support import dcmjs
from tests.support.orthanc import Orthanc
from tests.support.pipeline import Pipeline, assert_adds_up
from tests.support.scu import CT, EXPLICIT, ct_data_set

pytestmark = [pytest.mark.real, pytest.mark.servers, pytest.mark.xdist_group("commitment-peers")]

PATIENCE = 60.0  # s
COUNT = 5
ABSENT = 0x0112  # No such object instance


@pytest.fixture(scope="module")
def listen() -> int:
    """Where dcmjs-dimse takes reports."""
    return free_port()


@pytest.fixture(scope="module")
def silent_orthanc() -> Iterator[Orthanc]:
    """Not started yet: it and the pipeline have to know each other's ports."""
    with Orthanc() as orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, silent_orthanc: Orthanc, listen: int
) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("commitment-peers")
    config = folder / "settings.toml"
    config.write_text(
        "[commitment]\nenabled = true\nabsent_grace = 1\n"
        "retry_first = 600\n"  # a second try would come too late for any of these tests
        f'[sources.orthanc]\nae_titles = ["{Orthanc.ae_title}"]\n'
        f'host = "127.0.0.1"\nport = {silent_orthanc.dicom_port}\n'
        f'[sources.dcmjs]\nae_titles = ["DCMJS"]\nhost = "127.0.0.1"\nport = {listen}\n'
        '[sources.waiting]\nae_titles = ["DCMJS-WAITING"]\nsame_association = true\n'
    )
    with Pipeline(folder / "data", environment={"DICOM_INGEST_CONFIG": str(config)}) as running:
        yield running


@pytest.fixture(scope="module")
def orthanc(silent_orthanc: Orthanc, pipeline: Pipeline) -> Orthanc:
    return silent_orthanc.start(pipeline.port)


def write_ct(folder: Path, uid: str) -> Path:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(CT)
    meta.MediaStorageSOPInstanceUID = UID(uid)
    meta.TransferSyntaxUID = UID(EXPLICIT)
    meta.ImplementationClassUID = UID("1.2.3")
    path = folder / f"{uid}.dcm"
    head = DicomBytesIO()
    write_file_meta_info(head, meta)
    path.write_bytes(bytes(128) + b"DICM" + head.getvalue() + ct_data_set(uid, 20_000))
    return path


def references(uids: list[str]) -> list[tuple[str, str]]:
    return [(CT, uid) for uid in uids]


def test_orthanc(orthanc: Orthanc, pipeline: Pipeline, tmp_path: Path) -> None:
    """It stores, asks, and calls what it is told on its own port a success; one that we never got, a failure."""
    uids = [f"1.2.826.70.{number}" for number in range(COUNT)]
    stored = orthanc.store([orthanc.upload(write_ct(tmp_path, uid)) for uid in uids])
    assert (stored["InstancesCount"], stored["FailedInstancesCount"]) == (COUNT, 0)

    report = orthanc.report(orthanc.ask(references(uids)))
    assert (report["Status"], report["RemoteAET"]) == ("Success", "DICOM-INGEST")
    assert {item["SOPInstanceUID"] for item in report["Success"]} == set(uids)
    assert not report["Failures"]

    absent = "1.2.826.70.999"
    report = orthanc.report(orthanc.ask(references([*uids, absent])))
    assert report["Status"] == "Failure"
    assert {item["SOPInstanceUID"] for item in report["Success"]} == set(uids)
    assert [(item["SOPInstanceUID"], item["FailureReason"]) for item in report["Failures"]] == [
        (absent, ABSENT)
    ]
    assert_adds_up(pipeline.settle())


def test_dcmjs_on_a_new_association(pipeline: Pipeline, listen: int, tmp_path: Path) -> None:
    """It stores and asks on one association, and its server is told of each instance."""
    uids = [f"1.2.826.71.{number}" for number in range(COUNT)]
    absent = "1.2.826.71.999"
    outcome = dcmjs.store_and_ask(
        pipeline.port, [write_ct(tmp_path, uid) for uid in uids], references([*uids, absent]),
        "1.2.826.72.1", calling_ae_title="DCMJS", listen=listen,
    )  # fmt: skip
    report = dcmjs.Report("new", 2, "1.2.826.72.1", set(uids), {absent: ABSENT})
    assert outcome == dcmjs.Outcome([0] * COUNT, 0, [report], [])


def test_dcmjs_on_the_same_association(pipeline: Pipeline, tmp_path: Path) -> None:
    """It keeps the association open, and is told there, between its own last message and its release."""
    uids = [f"1.2.826.73.{number}" for number in range(COUNT)]
    outcome = dcmjs.store_and_ask(
        pipeline.port, [write_ct(tmp_path, uid) for uid in uids], references(uids),
        "1.2.826.72.2", calling_ae_title="DCMJS-WAITING", listen=None,
    )  # fmt: skip
    report = dcmjs.Report("same", 1, "1.2.826.72.2", set(uids), {})
    assert outcome == dcmjs.Outcome([0] * COUNT, 0, [report], [])


def test_nothing_is_left_open(pipeline: Pipeline) -> None:
    """Every report was taken at the first try."""
    deadline = time.monotonic() + PATIENCE
    while pipeline.run_list("commitments", "list"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
