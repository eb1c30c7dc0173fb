"""What is told of a commitment that goes no straight way: metric, line and row together, by the engine on a log of its own.

Reports that are not delivered, by each word for it; one that an administrator gives up; and stores and workers that do not
answer. What goes over the wire is in `test_telling`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ingest.commitment import deliveries
from ingest.commitment.engine import Engine
from ingest.contract.commitments import Finding
from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.settings import Settings
from ingest.receiver.metrics import commitment_gauges
from ingest.sender import NoAnswer
from tests.support.admin import parsed
from tests.support.asynchronous import asynchronous
from tests.support.audit_trail import kinds, trail_of
from tests.support.command import run
from tests.support.commitment import open_transaction, quiet, until
from tests.support.commitment_bench import ID, REFERENCES, Bench, damage
from tests.support.ledger_runs import live
from tests.support.ledgers import rows
from tests.support.telling import counts, events

PROBLEMS = {word for name, word in vars(deliveries).items() if name.isupper() and isinstance(word, str)}
UNDELIVERED = "a commitment report was not delivered"
UNDELIVERABLE = "a commitment report cannot be delivered; see `dicom-ingest commitments`"
# Each word, what the peer does or what befalls, and whether it is tried again.
WAYS = [
    (deliveries.NO_ASSOCIATION, "refuses the association", True),
    (deliveries.NO_ANSWER, "ends the association instead of an answer", True),
    (deliveries.REFUSED, "answers with a failure", True),
    (deliveries.ASSOCIATION_GONE, "leaves before the report", False),
    (deliveries.NO_ADDRESS, "left before a restart", False),
    (deliveries.WRONG_PROOF, "is asked for after its proofs were damaged", False),
]


def states(engine: Engine) -> dict[tuple[str, ...], float]:
    text, _ = Exposition(commitment_gauges(engine)).text("")
    return dict(counts(parsed(text.decode()), "commitments_open"))


def rows_of(bench: Bench) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Of its one transaction, and of the findings."""
    ledger = live(bench.settings)
    (transaction,) = rows(ledger, "SELECT * FROM transactions")
    proofs = rows(ledger, "SELECT * FROM proofs")
    ledger.close()
    return transaction, proofs


def without_address(bench: Bench) -> None:
    source = {"ae_titles": ["CT1"], "same_association": True}
    bench.settings = Settings.model_validate(bench.settings.model_dump() | {"sources": {"ct": source}})


@asynccontextmanager
async def undelivered(bench: Bench, problem: str) -> AsyncIterator[Engine]:
    """A report that could not be delivered for this reason."""
    ways: dict[str, int | NoAnswer] = {deliveries.REFUSED: 0x0110, deliveries.NO_ANSWER: NoAnswer("ended")}
    bench.modality.answers = [ways.get(problem)]
    if problem in {deliveries.ASSOCIATION_GONE, deliveries.NO_ADDRESS}:
        without_address(bench)
        bench.channel.answers = [None]
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        if problem != deliveries.NO_ADDRESS:
            bench.prove()
            transaction = open_transaction(engine, ID)
            await until(lambda: transaction.attempted is not None, engine)
            if problem == deliveries.WRONG_PROOF:
                damage(bench.settings.data, transaction.proof_locations()[0])
                bench.clock.now += 50.0
                await until(
                    lambda: transaction.attempted is not None and transaction.attempted.wait > 1e9, engine
                )
            yield engine
            return
    async with bench.running() as engine:
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.attempted is not None, engine)
        yield engine


def test_no_problem_is_left_out() -> None:
    """Each word that the product has for a report that was not delivered."""
    assert {problem for problem, _, _ in WAYS} == PROBLEMS


@pytest.mark.parametrize(
    ("problem", "again"), [(word, again) for word, _, again in WAYS], ids=[how for _, how, _ in WAYS]
)
@asynchronous
async def test_a_report_that_is_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, *, again: bool
) -> None:
    """Open by its state, one line with the word, and a row that says decided; then reported, or given up by an administrator."""
    monkeypatch.setenv("DICOM_INGEST_AUDIT__DESTINATION", "file")
    bench = Bench(tmp_path, retry_first=50.0)
    with capture_logs() as lines:
        async with undelivered(bench, problem) as engine:
            assert states(engine) == {("retrying" if again else "undeliverable",): 1}
            row, _ = rows_of(bench)
            assert (row["source"], row["closed_how"], bool(row["decided_at"])) == ("ct", "", True)
            if again:
                bench.clock.now += 50.0
            else:
                assert run(tmp_path, "commitments", "expire", "--yes", ID.hex()).code == 0
            await until(lambda: not len(engine.transactions), engine)
            await quiet(engine)
            assert states(engine) == {}
    told = [dict(line) for line in lines]
    of_problem = [line for line in told if line.get("problem") == problem]
    assert [line["event"] for line in of_problem] == [UNDELIVERED if again else UNDELIVERABLE]
    assert of_problem[0]["transaction"] == ID.hex()
    assert len(events(told, "commitment reported")) == again
    assert kinds(trail_of(tmp_path)) == ([] if again else [("110103", "commitment")])
    row, _ = rows_of(bench)
    expected = ("reported", 10, 0) if again else ("expired", 0, 0)
    assert (row["closed_how"], row["committed"], row["failed"]) == expected


@pytest.mark.parametrize(
    "finding", [Finding.UNAVAILABLE, Finding.UNDECIDED], ids=["store away", "nobody answers"]
)
@asynchronous
async def test_what_is_not_found_out_in_time(tmp_path: Path, finding: Finding) -> None:
    """Open as proving all the while; the line of the decision counts what is undecided; the row has what was found last."""
    bench = Bench(tmp_path, absent_grace=0, wait_limit=50.0)
    bench.finding[REFERENCES[0]] = Finding.UNAVAILABLE
    with capture_logs() as lines:
        async with bench.running() as engine:
            assert await bench.ask(engine) == 0x0000
            assert states(engine) == {("proving",): 1}
            while not engine.transactions.is_closed(ID):
                if finding is Finding.UNAVAILABLE:
                    bench.prove()
                bench.clock.now += 1.0
                await quiet(engine)
            await quiet(engine)
            assert states(engine) == {}
    undecided = 1 if finding is Finding.UNAVAILABLE else 10
    told = [dict(line) for line in lines]
    (decided,) = events(told, "commitment decided")
    assert (decided["committed"], decided["failed"]) == (10 - undecided, {"undecided": undecided})
    (reported,) = events(told, "commitment reported")
    assert (reported["committed"], reported["failed"]) == (10 - undecided, undecided)
    row, proofs = rows_of(bench)
    assert (row["closed_how"], row["committed"], row["failed"]) == ("reported", 10 - undecided, undecided)
    assert [Finding(one["finding"]) for one in proofs].count(finding) == undecided
    assert len(proofs) == 10
