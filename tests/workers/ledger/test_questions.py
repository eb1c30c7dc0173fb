"""Questions: what a stranger in quarantine claims is no answer about others."""

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Place
from tests.support.ledgers import outcome
from tests.workers.ledger.test_ledger import take
from workers.ledger.inserts import Row
from workers.ledger.ledger import Ledger
from workers.ledger.questions import of_patient


def test_a_stranger_puts_no_study_under_another_patient(ledger: Ledger) -> None:
    """Its own instance is found, the study that it names only once an administrator has let it in."""
    stranger: dict[str, object] = {
        "place": Place.QUARANTINED, "reason": "unknown-source", "source": "", "calling_ae_title": "STRANGER",
        "patient": "bb" * 16, "patient_scope": "ae:STRANGER",
    }  # fmt: skip
    take(ledger, outcome(1), outcome(2, **stranger))
    assert [row.sop_instance_uid for row in of_patient(ledger, ["bb" * 16])] == ["1.2.3.2"]
    upload = UploadId.of(1, 1, 2).hex()
    ledger.note_moves(
        [Row(upload_id=upload, source="quarantined", target="stored", key="0ab/1.2.3.2.dcm", moved_at=9)]
    )
    assert [row.sop_instance_uid for row in of_patient(ledger, ["bb" * 16])] == ["1.2.3.1", "1.2.3.2"]
