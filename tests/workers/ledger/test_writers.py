"""Several who write and ask at the same time: none is in another's way for ever, and an answer is of one moment."""

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
from sqlalchemy import Connection, event

from ingest.contract.identifiers import UploadId
from tests.support.ledger_runs import live, rebuilt
from tests.support.ledgers import outcome, rows, settings_of
from tests.workers.ledger.test_ledger import recorded
from workers.ledger.database import open_database, reading
from workers.ledger.day import Waiting, read_day
from workers.ledger.ledger import Ledger, take_batch
from workers.ledger.logs import Batch
from workers.log.checkpoint import Announced
from workers.log.outcome_producer import OutcomeProducer

_ON_POSTGRESQL = [pytest.mark.slow, pytest.mark.servers, pytest.mark.real]
DAY = dt.date(2023, 11, 14)  # of `outcome`
_WAITING = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@contextmanager
def after(ledger: Ledger, begin: str, do: Callable[[], None]) -> Iterator[None]:
    """Once, behind the first statement that begins so."""
    done: list[str] = []

    def executed(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if not done and statement.lstrip().startswith(begin):
            done.append(statement)
            do()

    event.listen(ledger.engine, "after_cursor_execute", executed)
    try:
        yield
    finally:
        event.remove(ledger.engine, "after_cursor_execute", executed)
    assert done


def until_it_waits(other: Ledger, writing: "Future[bool]") -> None:
    """For a lock."""
    deadline = monotonic() + 60
    while not writing.done():
        with reading(other.engine) as connection:
            if connection.exec_driver_sql(_WAITING).scalar():
                return
        assert monotonic() < deadline
        sleep(0.05)


def of_study(*numbers: int) -> list[dict[str, object]]:
    return [
        {"study_instance_uid": f"1.2.{number}", "series_instance_uid": f"1.2.{number}.1"}
        for number in numbers
    ]


def batch(log: str, *numbers: int, first: int) -> Batch:
    """An instance of each of these studies."""
    records = [
        recorded(outcome(first + at, **facts), first + at) for at, facts in enumerate(of_study(*numbers))
    ]
    return Batch(log, 0, 100, records)


@pytest.mark.parametrize("database", [pytest.param("postgresql", marks=_ON_POSTGRESQL)], indirect=True)
def test_two_that_write_of_the_same_studies(ledger: Ledger, database: str, tmp_path: Path) -> None:
    """Of other partitions, in another order: `find` beside the ledger's process. Neither is broken off."""
    with (
        closing(Ledger(open_database(settings_of(tmp_path, database)))) as other,
        ThreadPoolExecutor() as threads,
    ):
        with ledger.engine.begin() as connection:
            take_batch(connection, batch("a", 1, first=1))
            writing = threads.submit(other.take, batch("b", 2, 1, first=11))
            until_it_waits(ledger, writing)
            take_batch(connection, batch("c", 2, first=21))
        assert writing.result(60)
    assert ledger.positions() == {"a": 100, "b": 100, "c": 100}
    assert rows(ledger, "SELECT COUNT(*) AS n FROM instances") == [{"n": 4}]


@pytest.mark.parametrize("database", [pytest.param("postgresql", marks=_ON_POSTGRESQL)], indirect=True)
def test_a_rebuild_beside_a_ledger_that_writes(ledger: Ledger, database: str, tmp_path: Path) -> None:
    """It enters another instance of a study that is just made anew: what took hours is not broken off, nor is that."""
    settings = settings_of(tmp_path, database)
    with closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as producer:
        asyncio.run(producer.announce([Announced(UploadId.of(1, 1, 1), outcome(1))]))
    live(settings).close()
    with (
        closing(Ledger(open_database(settings))) as other,
        ThreadPoolExecutor() as threads,
    ):
        (log,) = ledger.positions()
        begun: list[Future[bool]] = []

        def write() -> None:
            before = other.positions()[log]
            begun.append(
                threads.submit(other.take, Batch(log, before, before + 1, [recorded(outcome(2), 2)]))
            )
            until_it_waits(other, begun[0])

        with after(ledger, "DELETE FROM relations", write):
            assert rebuilt(settings, ledger).records == 1
        begun[0].result(60)


def test_a_day_is_of_one_moment(ledger: Ledger, database: str, tmp_path: Path) -> None:
    """What waited as the report began, and is entered while it asks, is in it once."""
    settings = settings_of(tmp_path, database)
    late = outcome(2)
    waiting = [Waiting(recorded(late, 2).upload_id.hex(), "ct", late.received_at, late.size)]
    assert ledger.take(Batch("a", 0, 1, [recorded(outcome(1), 1)]))
    with closing(Ledger(open_database(settings))) as other:

        def enter() -> None:
            assert other.take(Batch("a", 1, 2, [recorded(late, 2)]))

        with after(ledger, "SELECT source, COUNT(*)", enter):
            found = read_day(ledger, settings, DAY, waiting)
    (ct,) = found.sources
    assert (ct.instances, ct.stored, ct.not_yet_stored) == (2, 1, 1)
    assert sum(found.instances_by_hour) == 2
