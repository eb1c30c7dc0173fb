"""The ledger: each batch in it once, whatever is repeated; alarms once; what is moved and committed, as it is now."""

import datetime as dt
from itertools import count
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.contract.commitments import (
    CommitAccepted,
    CommitClosed,
    CommitDecided,
    Commitment,
    CommitProved,
    Finding,
    Found,
    Reference,
    digest_of,
    encode_references,
    first_round,
    kind_of,
)
from ingest.contract.identifiers import TransactionId, UploadId
from ingest.contract.monitoring.instruments import KeptCounter, Labels
from ingest.contract.records import Kind, Outcome, Place, Record, decode, encode_header
from tests.support.ledgers import fates, outcome, rows, settings_of
from workers.ledger.database import LedgerUnavailable, clear_errors, open_database
from workers.ledger.day import Waiting, bounds_of, is_expected, read_day
from workers.ledger.inserts import Row
from workers.ledger.ledger import Ledger, take_batch
from workers.ledger.logs import Batch
from workers.ledger.process import LedgerMetrics
from workers.ledger.questions import of_accession, of_patient, of_study, unconfigured_ae_titles
from workers.ledger.rebuild import _enter_moved

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
LOG = "outcomes/0@0000000000000001"


def recorded(outcome: Outcome, number: int) -> Record:
    return decode(encode_header(Kind.OUTCOME, UploadId.of(1, 1, number), 0, outcome))


def take(ledger: Ledger, *outcomes: Outcome, log: str = LOG, numbers: range | None = None) -> None:
    """Enter outcomes at the log's end."""
    before = ledger.positions().get(log, 0)
    first = len(rows(ledger, "SELECT * FROM instances")) + 1
    records = [recorded(one, at) for one, at in zip(outcomes, numbers or count(first), strict=False)]
    assert ledger.take(Batch(log, before, before + 100, records))


def test_a_batch_is_entered_once(ledger: Ledger) -> None:
    """Two that read the same, or one that reads again what it has not heard to be in: the second changes nothing."""
    batch = Batch(LOG, 0, 100, [recorded(outcome(1), 1), recorded(outcome(2), 2)])
    assert ledger.take(batch)
    assert not ledger.take(batch)
    assert ledger.positions() == {LOG: 100}
    assert not ledger.take(Batch(LOG, 50, 150, [recorded(outcome(3), 3)]))  # from a position that is none
    assert len(fates(ledger)) == 2


def test_an_outcome_that_comes_again_counts_once(ledger: Ledger) -> None:
    """A worker that died after announcing announces again, at another position."""
    take(ledger, outcome(1), outcome(2), numbers=range(1, 3))
    take(ledger, outcome(2, at=5), outcome(3), numbers=range(2, 4))
    assert [row["sop_instance_uid"] for row in fates(ledger)] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


def test_an_outcome_of_the_release_before_has_its_row(ledger: Ledger) -> None:
    """With what it says."""
    take(ledger, Outcome("1.2.3.1", Place.STORED, "", "ab" * 32, "store-0", "0ab/1.2.3.1.dcm", 7))
    (row,) = fates(ledger)
    assert (row["place"], row["source"], row["study_instance_uid"], row["received_at"]) == (
        "stored",
        "",
        "",
        0,
    )


def test_a_failed_batch_leaves_nothing(ledger: Ledger) -> None:
    """Rows and position are one transaction."""

    def fail() -> None:
        with clear_errors(), ledger.engine.begin() as connection:
            take_batch(connection, Batch(LOG, 0, 100, [recorded(outcome(1), 1)]))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert fates(ledger) == []
    assert ledger.positions() == {}


def test_a_study_of_two_patients_raises_an_alarm_once(ledger: Ledger) -> None:
    """In the log by digests, in the counts by kind; another scope is not held against it."""
    with capture_logs() as lines:
        take(
            ledger,
            outcome(1),
            outcome(2),
            outcome(3, patient="bb" * 16, patient_scope="source:mr", source="mr"),
        )
        assert ledger.counts()[0] == {"study-of-two-patients": 0, "series-in-two-studies": 0}
        take(ledger, outcome(4, patient="cc" * 16))
        take(ledger, outcome(5, patient="dd" * 16))
    assert ledger.counts()[0] == {"study-of-two-patients": 1, "series-in-two-studies": 0}
    (line,) = [line for line in lines if line["event"] == "the ledger raises an alarm"]
    assert line["alarm"] == "study-of-two-patients"
    assert line["source"] == "ct"
    assert "1.2.3" not in str(line)


def test_a_stranger_raises_no_alarm_and_buries_none(ledger: Ledger) -> None:
    """What lies in quarantine as of an unknown source is held against nobody until it is let in; a known source's is."""
    stranger: dict[str, object] = {
        "place": Place.QUARANTINED, "reason": "unknown-source", "source": "", "calling_ae_title": "STRANGER",
        "patient": "cc" * 16,
    }  # fmt: skip
    take(
        ledger,
        outcome(1, **stranger),
        outcome(2, **stranger | {"study_instance_uid": "1.2.4"}),
        outcome(3),
        outcome(4, place=Place.QUARANTINED, reason="limit"),
    )
    assert ledger.counts()[0] == {"study-of-two-patients": 0, "series-in-two-studies": 0}
    move: dict[str, str | int] = {
        "upload_id": UploadId.of(1, 1, 1).hex(), "source": "quarantined", "target": "discarded",
        "key": f"quarantine/0ab/1.2.3.1/{'cd' * 32}", "moved_at": 9,
    }  # fmt: skip
    ledger.note_moves([move])
    assert ledger.counts()[0] == {"study-of-two-patients": 0, "series-in-two-studies": 0}
    take(ledger, outcome(5, patient="cc" * 16))  # the same claim, of one who may say it
    assert ledger.counts()[0] == {"study-of-two-patients": 1, "series-in-two-studies": 0}
    with capture_logs() as lines:
        for _ in range(2):
            ledger.note_moves([move | {"upload_id": UploadId.of(1, 1, 2).hex(), "target": "stored"}])
    assert ledger.counts()[0] == {"study-of-two-patients": 1, "series-in-two-studies": 1}
    assert [line["alarm"] for line in lines] == ["series-in-two-studies"]


def test_a_series_in_two_studies_raises_an_alarm(ledger: Ledger) -> None:
    """Whoever the patient is."""
    take(ledger, outcome(1), outcome(2, study_instance_uid="1.2.4"))
    assert ledger.counts()[0] == {"study-of-two-patients": 0, "series-in-two-studies": 1}
    day = dt.datetime.fromtimestamp(1_700_000_000, dt.UTC).date()
    settings = settings_of(Path("unused"), "", sources={"ct": {"ae_titles": ["CT1"]}})
    (alarm,) = read_day(ledger, settings, day, []).alarms
    assert (alarm.alarm, alarm.uid, alarm.source) == ("series-in-two-studies", "1.2.3.9", "ct")


def test_a_move_shows_in_the_fate_whichever_comes_first(ledger: Ledger) -> None:
    """The instance is where it was moved to, and it is said from where; a later move record wins."""
    upload = UploadId.of(1, 1, 1).hex()
    move = Row(upload_id=upload, source="quarantined", target="stored", key="0ab/1.2.3.1.dcm", moved_at=9)
    ledger.note_moves([move])
    take(ledger, outcome(1, place=Place.QUARANTINED, reason="limit", key="quarantine/0ab/1.2.3.1/x"))
    ledger.note_moves([move | {"target": "discarded", "moved_at": 8}])  # an older reading
    (row,) = fates(ledger)
    assert (row["place"], row["moved_from"], row["reason"], row["key"]) == (
        "stored", "quarantined", "", "0ab/1.2.3.1.dcm",
    )  # fmt: skip
    ledger.note_moves([move | {"target": "discarded", "moved_at": 10}])
    assert fates(ledger)[0]["place"] == "discarded"


def test_what_is_nowhere_any_more_is_told_by_its_move(ledger: Ledger) -> None:
    """After a rebuild, of an entry that was discarded and has left the log."""
    upload = "ab" * 16
    ledger.note_moves(
        [
            {
                "upload_id": upload, "source": "quarantined", "target": "discarded", "moved_at": 1,
                "key": f"quarantine/0ab/1.2.3.1/{'cd' * 32}",
            }
        ]
    )  # fmt: skip
    with ledger.engine.begin() as connection:
        _enter_moved(connection)
    (row,) = fates(ledger)
    assert (row["sop_instance_uid"], row["place"], row["moved_from"]) == (
        "1.2.3.1",
        "discarded",
        "quarantined",
    )


class Transaction:
    """A commitment as its log tells of it."""

    def __init__(self, ledger: Ledger, *uids: str, salt: bytes = b"") -> None:
        self.ledger, self.uids = ledger, uids
        self.id = TransactionId.of("CT1", "1.9.9")
        self.references = [Reference(CT_CLASS, uid) for uid in uids]
        self.digest = digest_of(self.references)
        self.salt = salt
        self.base = first_round(self.digest, salt)

    def write(self, commitment: Commitment, payload: memoryview | None = None) -> None:
        log = "commitments@1"
        before = self.ledger.positions().get(log, 0)
        pieces = [] if payload is None else [payload]
        header = encode_header(kind_of(commitment), self.id, 0, commitment, pieces)
        record = decode(header + b"".join(pieces))
        assert self.ledger.take(Batch(log, before, before + 1, [record]))

    def accept(self) -> None:
        count = len(self.uids)
        self.write(
            CommitAccepted(
                "1.9.9", "CT1", "DICOM-INGEST", "ct", count, self.digest, 1, 1, 1, 0.0, 5, self.salt
            )
        )

    def prove(self, findings: dict[str, Finding], round_: int = 0) -> None:
        found = [Found(CT_CLASS, uid, finding) for uid, finding in findings.items()]
        self.write(CommitProved(self.base + round_, 0, 1, 0, 6), encode_references(found))

    def decide(self, round_: int = 0) -> None:
        self.write(CommitDecided(self.base + round_, 7))


def committed(ledger: Ledger) -> set[str]:
    return {row["sop_instance_uid"] for row in fates(ledger) if row["committed"]}


def test_committed_is_what_was_proved_once_it_is_decided(ledger: Ledger) -> None:
    """The last round counts; repeats of the log change nothing; what was not proved is not committed."""
    take(ledger, outcome(1), outcome(2), outcome(3))
    transaction = Transaction(ledger, "1.2.3.1", "1.2.3.2")
    for _ in range(2):
        transaction.accept()
        transaction.prove({"1.2.3.1": Finding.PROVED, "1.2.3.2": Finding.ABSENT})
    assert committed(ledger) == set()
    transaction.decide()
    assert committed(ledger) == {"1.2.3.1"}
    transaction.prove({"1.2.3.2": Finding.PROVED}, 1)
    assert committed(ledger) == {"1.2.3.1"}  # of a round that the report was not made of
    transaction.decide(1)
    assert committed(ledger) == {"1.2.3.1", "1.2.3.2"}
    transaction.prove({"1.2.3.2": Finding.ABSENT})  # an older round, late
    transaction.write(CommitClosed("reported", 2, 0, 8))
    transaction.accept()  # carried forward, and read after its end
    assert committed(ledger) == {"1.2.3.1", "1.2.3.2"}
    (row,) = rows(ledger, "SELECT * FROM transactions")
    assert (row["closed_how"], row["committed"], row["source"], row["asked_for"]) == ("reported", 2, "ct", 2)


def test_other_content_of_a_committed_uid_is_not_committed(ledger: Ledger) -> None:
    """What was proved is what is stored; a duplicate is the same, a conflict and what is in quarantine are not."""
    places = (Place.STORED, Place.DUPLICATE, Place.CONFLICT, Place.QUARANTINED)
    take(ledger, *(outcome(1, place=place) for place in places), numbers=range(1, 5))
    transaction = Transaction(ledger, "1.2.3.1")
    transaction.accept()
    transaction.prove({"1.2.3.1": Finding.PROVED})
    transaction.decide()
    assert {row["place"] for row in fates(ledger) if row["committed"]} == {"stored", "duplicate"}


def test_proofs_of_a_try_that_failed_are_none_of_the_next(ledger: Ledger) -> None:
    """An N-ACTION that came again has other rounds."""
    take(ledger, outcome(1))
    Transaction(ledger, "1.2.3.1").prove({"1.2.3.1": Finding.PROVED}, 3)
    again = Transaction(ledger, "1.2.3.1", salt=b"2")
    again.accept()
    again.prove({"1.2.3.1": Finding.DAMAGED})
    again.decide()
    assert committed(ledger) == set()


def test_questions_find_by_study_patient_and_accession(ledger: Ledger) -> None:
    """A patient's studies whole: also what does not tell its patient itself."""
    take(
        ledger,
        outcome(1, accession="99" * 16),
        outcome(2, patient="", patient_scope="", source="", calling_ae_title="OTHER"),
        outcome(3, study_instance_uid="1.2.4", series_instance_uid="1.2.4.1", patient="bb" * 16),
    )
    assert [row.sop_instance_uid for row in of_study(ledger, "1.2.3")] == ["1.2.3.1", "1.2.3.2"]
    assert [row.sop_instance_uid for row in of_patient(ledger, ["aa" * 16])] == ["1.2.3.1", "1.2.3.2"]
    assert [row.sop_instance_uid for row in of_patient(ledger, ["bb" * 16, "cc" * 16])] == ["1.2.3.3"]
    assert [row.sop_instance_uid for row in of_accession(ledger, ["99" * 16])] == ["1.2.3.1"]
    assert of_study(ledger, "1.9") == []
    assert unconfigured_ae_titles(ledger) == ["OTHER"]


def test_a_day_by_source(ledger: Ledger, tmp_path: Path) -> None:
    """What came by each source, where it is, what waits, who was silent; the day before is not in it."""
    begin = bounds_of(dt.date(2026, 11, 27), "UTC").begin
    hour = 3_600_000_000_000
    place = {"received_at": begin}
    take(
        ledger,
        outcome(1, **place),
        outcome(2, received_at=begin + 23 * hour + hour - 1, findings=("patient-unidentified", "tag-order")),
        outcome(1, **place, place=Place.DUPLICATE),
        outcome(3, **place, place=Place.CONFLICT, reason="pixels"),
        outcome(4, **place, place=Place.QUARANTINED, reason="limit", source="", study_instance_uid=""),
        outcome(5, received_at=begin - 1),
        outcome(6, received_at=begin + 24 * hour),
    )
    known = UploadId.of(1, 1, 1).hex()
    waiting = [Waiting("ee" * 16, "mr", begin + hour, 50), Waiting(known, "ct", begin, 1000)]
    settings = settings_of(
        tmp_path, "",
        sources={
            "ct": {"ae_titles": ["CT1"], "expected": "daily"},
            "mr": {"ae_titles": ["MR1"], "expected": "daily"},
            "us": {"ae_titles": ["US1"], "expected": "weekdays"},
            "xa": {"ae_titles": ["XA1"]},
        },
    )  # fmt: skip
    settings = settings.model_copy(update={"ledger": settings.ledger.model_copy(update={"time_zone": "UTC"})})
    found = read_day(ledger, settings, dt.date(2026, 11, 27), waiting)
    by_name = {one.source: one for one in found.sources}
    assert by_name.keys() == {"(other)", "ct", "mr", "us"}
    ct = by_name["ct"]
    assert (ct.instances, ct.studies, ct.series, ct.bytes) == (4, 1, 1, 4000)
    assert (ct.stored, ct.duplicates, ct.conflicts, ct.quarantined, ct.not_yet_stored) == (2, 1, 1, 0, 0)
    assert (by_name["(other)"].quarantined, by_name["(other)"].studies) == (1, 0)
    assert (by_name["mr"].instances, by_name["mr"].not_yet_stored, by_name["mr"].bytes) == (1, 1, 50)
    assert found.silent_sources == ["us"]  # a Friday
    assert [(one.source, one.study_instance_uid, one.instances) for one in found.unidentified] == [
        ("ct", "1.2.3", 1)
    ]
    assert [(one.source, one.reason) for one in found.exceptions] == [("(other)", "limit"), ("ct", "pixels")]
    assert found.instances_by_hour == [4, 1, *[0] * 21, 1]
    only = read_day(ledger, settings, dt.date(2026, 11, 27), waiting, "mr")
    assert [one.source for one in only.sources] == ["mr"]
    assert sum(only.instances_by_hour) == 1

    # A conflict is resolved: what was the first is in the lane for another reason than before.
    (conflict,) = [row for row in fates(ledger) if row["place"] == "conflict"]
    ledger.note_moves(
        [
            Row(
                upload_id=conflict["upload_id"],
                source="stored",
                target="conflict",
                key="conflicts/x",
                moved_at=9,
            )
        ]
    )
    resolved = read_day(ledger, settings, dt.date(2026, 11, 27), waiting)
    assert [(one.source, one.reason) for one in resolved.exceptions] == [
        ("(other)", "limit"),
        ("ct", "was stored"),
    ]


def test_days_are_those_of_the_time_zone() -> None:
    """23 hours where the clocks go forward."""
    spring = bounds_of(dt.date(2026, 3, 29), "Europe/Berlin")
    assert (spring.end - spring.begin) // 3_600_000_000_000 == 23
    assert is_expected("weekdays", dt.date(2026, 11, 27))
    assert not is_expected("weekdays", dt.date(2026, 11, 28))
    assert is_expected("daily", dt.date(2026, 11, 28))
    assert not is_expected("", dt.date(2026, 11, 27))


def test_errors_do_not_repeat_rows(ledger: Ledger) -> None:
    """What a driver says quotes statements and values; what we say does not."""
    with pytest.raises(LedgerUnavailable) as caught, clear_errors(), ledger.engine.begin() as connection:
        connection.exec_driver_sql("SELECT 'ZZMARKER' FROM nowhere")
    assert "ZZMARKER" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_another_schema_is_refused_until_it_is_remade(ledger: Ledger, database: str, tmp_path: Path) -> None:
    """By name of the command that makes it anew."""
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger SET version = 0")
    settings = settings_of(tmp_path, database)
    with pytest.raises(LedgerUnavailable, match="ledger rebuild"):
        open_database(settings)
    Ledger(open_database(settings, remake=True)).close()
    assert fates(ledger) == []


def test_metrics_tell_nothing_of_a_ledger_that_was_not_asked(ledger: Ledger) -> None:
    """From 0 to what is in the database would look like new alarms after each restart."""
    metrics = LedgerMetrics()

    def kept() -> dict[str, dict[Labels, float]]:
        return {
            one.description.name: dict(one.values())
            for one in metrics.instruments
            if isinstance(one, KeptCounter)
        }

    assert kept() == {"ledger_lost_total": {}, "ledger_alarms_total": {}}
    metrics.raised, metrics.lost = ledger.counts()
    assert kept() == {
        "ledger_lost_total": {(): 0.0},
        "ledger_alarms_total": {("study-of-two-patients",): 0.0, ("series-in-two-studies",): 0.0},
    }
