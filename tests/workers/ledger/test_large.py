"""Many instances of a day, many AE titles: neither memory nor statements grow with them."""

import datetime as dt
import tracemalloc
from pathlib import Path

from tests.support.ledgers import outcome, settings_of
from workers.ledger.day import Waiting, read_day
from workers.ledger.inserts import INSERT_INSTANCE, outcome_inserts
from workers.ledger.ledger import Ledger
from workers.ledger.questions import of_accession, of_patient

INSTANCES = 20_000
DAY = dt.date(2023, 11, 14)  # of `outcome`
DIGESTS = [
    f"{number:032x}" for number in range(130_000)
]  # more than any database takes twice in one statement


def fill(ledger: Ledger, count: int, **changes: object) -> None:
    row = next(outcome_inserts("", outcome(1, **changes))).row
    with ledger.engine.begin() as connection:
        for first in range(0, count, 1000):
            some = [
                row | {"upload_id": f"{number:032x}"} for number in range(first, min(first + 1000, count))
            ]
            connection.execute(INSERT_INSTANCE, some)


def test_a_day_is_counted_in_the_database(ledger: Ledger, tmp_path: Path) -> None:
    """A report is made beside a ledger in a container of 512 MiB: a day of a million instances took half of it."""
    fill(ledger, INSTANCES)
    settings = settings_of(tmp_path, "", sources={"ct": {"ae_titles": ["CT1"]}})
    waiting = [Waiting(upload, "ct", outcome(1).received_at, 10) for upload in (f"{1:032x}", "e" * 32)]
    tracemalloc.start()
    try:
        found = read_day(ledger, settings, DAY, waiting)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (ct,) = found.sources
    assert (ct.instances, ct.stored, ct.not_yet_stored) == (INSTANCES + 1, INSTANCES, 1)
    assert peak < 2 << 20


def test_a_number_of_very_many_senders_is_found(ledger: Ledger) -> None:
    """Who may send under any AE title must not make it that nobody is found any more."""
    fill(ledger, 2, patient=DIGESTS[-1], accession=DIGESTS[-2])
    assert [row.upload_id for row in of_patient(ledger, DIGESTS)] == [f"{0:032x}", f"{1:032x}"]
    assert len(of_accession(ledger, DIGESTS)) == 2
