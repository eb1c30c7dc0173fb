"""`dicom-ingest conformance` says what the code does with these settings, and nothing else."""

import ast
from pathlib import Path
from typing import Any

import pytest

from ingest import dimse
from ingest.association import STORAGE_CLASSES, Rejection
from ingest.association.transfer_syntaxes import BUILT_IN_PREFERENCE
from ingest.cli import conformance_network
from ingest.cli.conformance_statement import statement
from ingest.cli.conformance_statuses import ACTION, FAILURE_REASONS, STORE
from ingest.contract.commitments import Finding, Found
from ingest.contract.identifiers import IMPLEMENTATION_CLASS_UID
from ingest.contract.settings import Settings
from ingest.dimse import commitment_report, status
from tests.support.command import run

CODE = Path(dimse.__file__).parents[1]


def text_of(**settings: Any) -> str:
    return "\n".join(statement(Settings.model_validate(settings)))


def statuses_of(*modules: str) -> set[int]:
    """Those that a module takes from the list of all."""
    names = {
        name.name
        for module in modules
        for node in ast.walk(ast.parse((CODE / module).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "ingest.dimse.status"
        for name in node.names
    }
    return {getattr(status, name) for name in names}


def test_every_status_that_is_returned_is_explained() -> None:
    """And no other."""
    assert STORE.keys() == statuses_of("receiver/storage.py", "instance/upload.py")
    assert ACTION.keys() == statuses_of(
        "receiver/commitment.py", "dimse/commitment_request.py", "dimse/data_set.py"
    )
    found = [Found("1.2", "1.2", finding) for finding in Finding if finding is not Finding.PROVED]
    report = commitment_report.report_of("1.2", [], found, "")
    assert FAILURE_REASONS.keys() == {failed.reason for failed in report.failed}


def test_every_rejection_is_explained() -> None:
    """Of those that are sent."""
    assert conformance_network._REJECTIONS.keys() == set(Rejection) - {Rejection.NO_REASON_GIVEN}


def test_lists_are_those_that_the_code_goes_by() -> None:
    """SOP classes, transfer syntaxes in the order of preference, who we are, and the limits that are set."""
    preferred = BUILT_IN_PREFERENCE[5]
    text = text_of(
        receiver={
            "ae_title": "ARCHIVE7",
            "idle_timeout": 77.5,
            "transfer_syntax_preference": [preferred],
            "private_storage_classes": ["1.2.3.4.5"],
        }
    )
    lines = text.splitlines()
    for uid, name in STORAGE_CLASSES.items():
        assert f"| {uid} | {name} |" in lines
    assert "| 1.2.3.4.5 | private, by receiver.private_storage_classes |" in lines
    syntaxes = [line.split()[1] for line in lines if line.startswith("| 1.2.840.10008.1.2")]
    assert syntaxes == [preferred, *(uid for uid in BUILT_IN_PREFERENCE if uid != preferred)]
    assert IMPLEMENTATION_CLASS_UID in text
    assert "called AE title `ARCHIVE7`" in text
    assert "| `receiver.idle_timeout` | 77.5 s |" in text
    assert "become JPEG 2000 Lossless: native." in text
    assert "become" not in text_of(transcode={"enabled": False})


def test_without_storage_commitment() -> None:
    """It is said to be no service here, and nothing is promised."""
    text = text_of()
    assert "| Storage Commitment Push Model | no" in text
    assert "Not served: `commitment.enabled` is off" in text
    assert "Promise" not in text
    assert "1.2.840.10008.1.20.1 |" not in text


def test_what_a_commitment_promises() -> None:
    """One copy, no deletion, no retrieval: plainly, with each source's way and proof (PS3.4 J.3.6.2)."""
    text = text_of(
        commitment={"enabled": True, "absent_grace": 12},
        sources={
            "ct": {"ae_titles": ["CT1", "CT2"], "host": "10.0.0.7", "port": 104},
            "bedside": {"ae_titles": ["US"], "same_association": True, "proof": "manifest"},
        },
    )
    assert "**Copies.** One copy of each instance is kept, in the one store." in text
    assert "as safe as the one store that has it" in text
    assert "Nothing that is stored is deleted or overwritten" in text
    assert "no query and no retrieval over DICOM" in text
    assert "**Retrieve AE Title (0008,0054).** Not sent" in text
    assert "| ct | CT1, CT2 | 10.0.0.7:104 | read | 12 s | 3600 s |" in text
    assert "| bedside | US | the association of the request | manifest | 12 s | 3600 s |" in text
    assert "| any other | | nowhere: refused with 0110H | read |" in text
    assert "damage behind the head is not seen" in text
    for code in ACTION:
        assert f"| {code:04X}H |" in text
    stores = text_of(commitment={"enabled": True}, store={"directories": ["/a", "/b"]})
    assert "in one of 2 stores, among which instances are spread" in stores
    titled = text_of(commitment={"enabled": True, "retrieve_ae_title": "PACS"})
    assert "**Retrieve AE Title (0008,0054).** `PACS`" in titled


@pytest.mark.parametrize(("replicas", "said"), [(3, False), (2, True)])
def test_a_log_of_a_single_copy(replicas: int, said: bool) -> None:
    """Success of C-STORE means no more than the log keeps."""
    text = text_of(log={"kind": "kafka", "allow_single_copy": True}, kafka={"replication_factor": replicas})
    assert f"2 brokers at least, of {replicas}" in text
    assert ("This is a single copy" in text) == said


def test_the_command_and_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markdown on standard output; `status` says the same of copies."""
    assert run(tmp_path, "status", "--json").json["notes"] == []
    monkeypatch.setenv("DICOM_INGEST_COMMITMENT__ENABLED", "true")
    done = run(tmp_path, "conformance")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("# DICOM Conformance Statement: dicom-ingest\n")
    assert "#### 5.2.6 Storage Commitment" in done.out
    note = Settings.model_validate({"commitment": {"enabled": True}}).commitment_note
    assert run(tmp_path, "status", "--json").json["notes"] == [note]
    assert f"note         {note}" in run(tmp_path, "status").out
    assert note[1:] in done.out
