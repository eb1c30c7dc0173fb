"""The engine on the log of one machine: durable before success, proved before reported, and nothing forgotten."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ingest.commitment import unserved
from ingest.commitment.reading import aside
from ingest.commitment.transactions import ASKINGS
from ingest.commitment.unserved import tell_of_unserved
from ingest.contract.commitments import CommitAccepted, CommitAsked, Finding, commitment_of, references_of
from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.records import Kind, Record
from ingest.contract.settings import Settings
from ingest.errors import LogUnavailable, OutOfResources
from ingest.log.commitment_log import Location, Written
from ingest.receiver.metrics import commitment_gauges
from ingest.receiver.run import run_receiver
from tests.support.admin import Samples, of, parsed
from tests.support.asynchronous import asynchronous
from tests.support.commitment import open_transaction, quiet, until
from tests.support.commitment_bench import ID, REFERENCES, UID, Bench, damage


@asynchronous
async def test_all_proved_is_reported_once(tmp_path: Path) -> None:
    """Fences and acceptance are durable before success; the report comes from proof, to the source's address."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        assert set(bench.instances.kinds()) == {Kind.COMMIT_ASKED}
        assert engine.transactions.get(ID) is not None
        assert not bench.modality.tries
        bench.prove()
        await until(lambda: not len(engine.transactions))
        (report,) = bench.modality.reports
        assert (report.transaction_uid, len(report.committed), report.failed) == (UID, 10, [])
        assert report.peer is not None
        assert (report.peer.called_ae_title, report.peer.calling_ae_title) == ("CT1", "US")
        assert await bench.ask(engine) == 0x0131
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0131
        assert len(bench.modality.reports) == 1


@asynchronous
async def test_metrics_show_what_is_open(tmp_path: Path) -> None:
    """Transactions by state, and the age of the oldest; nothing once all are reported."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:

        def shown() -> Samples:
            found = parsed(Exposition(commitment_gauges(engine)).text("")[0].decode())
            return {
                key: value for key, value in found.items() if key[0].startswith("dicom_ingest_commitment")
            }

        assert shown() == {of("commitment_oldest_seconds"): 0.0}
        assert await bench.ask(engine) == 0x0000
        bench.clock.now += 90.0
        assert shown()[of("commitments_open", state="proving")] == 1
        assert shown()[of("commitment_oldest_seconds")] == pytest.approx(90.0, abs=1.0)
        bench.prove()
        await until(lambda: not len(engine.transactions))
        assert shown() == {of("commitment_oldest_seconds"): 0.0}


@asynchronous
async def test_a_repeated_request_is_one(tmp_path: Path) -> None:
    """The same UID and instances are a retransmission, other instances a duplicate UID; one report."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        assert await bench.ask(engine) == 0x0000
        assert await bench.ask(engine, count=9) == 0x0131
        fences = len(bench.instances.records)
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        assert len(bench.instances.records) == fences
        bench.prove()
        await until(lambda: not len(engine.transactions))
        assert len(bench.modality.reports) == 1


@asynchronous
async def test_absent_instances_are_asked_for_until_the_grace_is_over(tmp_path: Path) -> None:
    """An image that comes within the grace is committed; one that does not fails, and not before."""
    bench = Bench(tmp_path, absent_grace=100.0)
    late, never = REFERENCES[0], REFERENCES[1]
    bench.finding[late] = bench.finding[never] = Finding.ABSENT
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.round == 0)
        rounds = 0
        while bench.clock.now < 1100.0:
            bench.clock.now += 10.0
            bench.finding[late] = Finding.PROVED
            engine.wake()
            await quiet(engine)
            rounds += bench.prove() > 0
            await until(lambda: transaction.round >= transaction.asked_round)
            await quiet(engine)
            assert bench.clock.now >= 1100.0 or not bench.modality.tries
        await until(lambda: not len(engine.transactions), engine)
        assert 3 <= rounds <= 6
        (report,) = bench.modality.reports
        assert len(report.committed) == 9
        assert [(one.sop_instance_uid, one.finding) for one in report.failed] == [
            (never.sop_instance_uid, Finding.ABSENT)
        ]


@asynchronous
async def test_a_round_that_is_proved_before_it_is_known_to_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the fences of an earlier start, or by a quick worker: the next one is asked, and nothing waits for ever."""
    bench = Bench(tmp_path, absent_grace=20.0)
    bench.finding[REFERENCES[0]] = Finding.ABSENT
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.round == 0)
        ask = engine._asking.ask

        async def ask_slowly(*args: Any) -> None:
            await ask(*args)
            bench.prove()
            round_before = transaction.round
            await until(lambda: transaction.round > round_before)

        monkeypatch.setattr(engine._asking, "ask", ask_slowly)
        while len(engine.transactions):
            bench.clock.now += 1.0
            await quiet(engine)
            assert transaction.asked_round <= transaction.round
            assert bench.clock.now < 1100.0, "it waits for what nobody asked"
        (report,) = bench.modality.reports
        assert [one.finding for one in report.failed] == [Finding.ABSENT]


@asynchronous
async def test_a_store_that_does_not_answer_is_no_absence(tmp_path: Path) -> None:
    """What is out of reach is asked for again until the limit, and then fails as not found out."""
    bench = Bench(tmp_path, absent_grace=0, wait_limit=50.0)
    bench.finding[REFERENCES[0]] = Finding.UNAVAILABLE
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        while not engine.transactions.is_closed(ID):
            transaction = open_transaction(engine, ID)
            bench.prove()
            await until(lambda: transaction.round >= transaction.asked_round)  # noqa: B023 - awaited within the round
            bench.clock.now += 1.0
            await quiet(engine)
            assert bench.clock.now < 2000.0
        assert bench.clock.now >= 1050.0
        (report,) = bench.modality.reports
        assert [one.finding for one in report.failed] == [Finding.UNDECIDED]


@asynchronous
@pytest.mark.parametrize(
    ("failure", "status"), [(LogUnavailable("gone"), 0x0110), (OutOfResources("full"), 0x0213)]
)
async def test_no_success_without_durable_fences(tmp_path: Path, failure: Exception, status: int) -> None:
    """A log that fails is answered with failure, and leaves no transaction behind."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        bench.instances.failure = failure
        assert await bench.ask(engine) == status
        assert not len(engine.transactions)
        bench.instances.failure = None
        bench.instances.reason = "full"
        assert await bench.ask(engine) == 0x0213


@asynchronous
async def test_what_a_failed_request_left_behind_proves_nothing_of_another(tmp_path: Path) -> None:
    """The same UID with other instances, after a request that failed half-way: only the latter's are reported."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        bench.instances.failure = LogUnavailable("gone")
        assert await bench.ask(engine, count=4) == 0x0110
        bench.instances.failure = None
        bench.prove()
        assert await bench.ask(engine, count=7) == 0x0000
        bench.prove()
        await until(lambda: not len(engine.transactions))
        (report,) = bench.modality.reports
        assert {one.sop_instance_uid for one in report.committed} == {
            one.sop_instance_uid for one in REFERENCES[:7]
        }


@asynchronous
async def test_too_many_open_ones_are_refused(tmp_path: Path) -> None:
    """Transactions that nobody reports yet are bounded."""
    bench = Bench(tmp_path, maximum_open=2)
    async with bench.running() as engine:
        assert [await bench.ask(engine, f"1.2.{number}") for number in range(3)] == [0, 0, 0x0213]


@asynchronous
async def test_an_acceptance_that_was_answered_with_failure_is_served(tmp_path: Path) -> None:
    """A record that lands although nobody knew: the peer may ask again and be told yes, so there must be a report."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        publish = bench.log.publish

        async def lost(records: list[Written]) -> Any:
            place = await publish(records)
            if isinstance(records[-1].commitment, CommitAccepted):
                raise LogUnavailable(f"not known to be durable: {place}")
            return place

        bench.log.publish = lost  # type: ignore[method-assign, assignment]
        assert await bench.ask(engine) == 0x0110
        await until(lambda: engine.transactions.get(ID) is not None)
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        await until(lambda: engine.transactions.is_closed(ID))
        assert len(bench.modality.reports) == 1


@asynchronous
async def test_proofs_of_a_request_that_failed_are_none_for_the_next(tmp_path: Path) -> None:
    """Its fences were durable and were answered; what has become of the instances since is what counts."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        publish = bench.log.publish

        async def refused(_: list[Written]) -> Any:
            raise LogUnavailable("away")

        bench.log.publish = refused  # type: ignore[method-assign, assignment]
        assert await bench.ask(engine) == 0x0110
        bench.prove()
        await quiet(engine)
        bench.log.publish = publish  # type: ignore[method-assign]
        bench.finding = dict.fromkeys(REFERENCES, Finding.DAMAGED)
        assert await bench.ask(engine) == 0x0000
        await quiet(engine)
        assert not bench.modality.tries
        bench.prove()
        await until(lambda: engine.transactions.is_closed(ID))
    (report,) = bench.modality.reports
    assert (report.committed, len(report.failed)) == ([], 10)


def question(fence: Record) -> tuple[bytes, int]:
    """The references it asks for, and which part of the request they are."""
    asked = commitment_of(fence)
    assert isinstance(asked, CommitAsked)
    return bytes(fence.payload), asked.part


@asynchronous
async def test_lost_fences_are_asked_again(tmp_path: Path) -> None:
    """Nobody answers within the source's limit: the same parts are asked again, and what comes of them counts."""
    bench = Bench(tmp_path, wait_limit=100.0)
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        asked = bench.instances.records[:]
        bench.taken.update(bytes(record.upload_id) for record in asked[1:])  # lost
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(transaction.proof_locations)
        bench.clock.now += 99.0
        await quiet(engine)
        assert len(bench.instances.records) == len(asked)
        bench.clock.now += 1.0
        await until(lambda: len(bench.instances.records) == 2 * len(asked) - 1, engine)
        again = bench.instances.records[len(asked) :]
        assert [question(record) for record in again] == [question(record) for record in asked[1:]]
        bench.prove()
        await until(lambda: engine.transactions.is_closed(ID))
    (report,) = bench.modality.reports
    assert (len(report.committed), report.failed) == (10, [])


@asynchronous
async def test_what_nobody_answers_is_reported_as_not_found_out(tmp_path: Path) -> None:
    """So many times, and then the report says what was proved, and of the rest that it was not found out."""
    bench = Bench(tmp_path, wait_limit=100.0)
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        fences = len(bench.instances.records)
        bench.taken.update(bytes(record.upload_id) for record in bench.instances.records[1:])
        proved = len(references_of(bench.instances.records[0]))
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(transaction.proof_locations)
        for asking in range(1, ASKINGS):
            bench.clock.now += 100.0
            count = fences + asking * (fences - 1)
            await until(lambda: len(bench.instances.records) == count, engine)  # noqa: B023 - awaited within the round
            await quiet(engine)
        assert not bench.modality.tries
        bench.clock.now += 100.0
        await until(lambda: engine.transactions.is_closed(ID), engine)
        bench.prove()
        await quiet(engine)
    (report,) = bench.modality.reports
    assert len(report.committed) == proved
    assert [one.finding for one in report.failed] == [Finding.UNDECIDED] * (10 - proved)


@asynchronous
async def test_a_damaged_proof_is_asked_for_again(tmp_path: Path) -> None:
    """Proofs that cannot be read when it is decided: what they said is asked in another round, at once."""
    bench = Bench(tmp_path)
    damaged: list[Location] = []
    async with bench.running() as engine:
        fetch = bench.log.fetch

        async def fetch_damaged(location: Location) -> Record:
            transaction = open_transaction(engine, ID)
            if not damaged and location in transaction.proof_locations():
                damaged.append(location)
                damage(tmp_path, location)
            return await fetch(location)

        bench.log.fetch = fetch_damaged  # type: ignore[method-assign]
        assert await bench.ask(engine) == 0x0000
        fences = len(bench.instances.records)
        bench.prove()
        await until(lambda: len(bench.instances.records) == fences + 1)
        assert not bench.modality.tries
        bench.prove()
        await until(lambda: engine.transactions.is_closed(ID))
    assert damaged
    (report,) = bench.modality.reports
    assert (len(report.committed), report.failed) == (10, [])


async def started_once(settings: Settings) -> None:
    """A receiver without storage commitment, from its start to its end."""
    off = settings.commitment.model_copy(update={"enabled": False})
    receiver = settings.receiver.model_copy(update={"host": "127.0.0.1", "port": 0})
    running = asyncio.create_task(
        run_receiver(settings.model_copy(update={"commitment": off, "receiver": receiver}))
    )
    await until(lambda: running.done() or (settings.data / "run" / "receiver.json").exists())
    await until(lambda: all(thread.name != unserved.THREAD for thread in threading.enumerate()))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0


@pytest.mark.parametrize("finding", [Finding.SET_APART, Finding.DAMAGED])
@asynchronous
async def test_what_an_administrator_must_look_at_is_an_error(tmp_path: Path, finding: Finding) -> None:
    """Reported with 0110H, and said in the log with the transaction; what is merely absent is no error."""
    bench = Bench(tmp_path, absent_grace=0)
    bench.finding[REFERENCES[0]] = finding
    bench.finding[REFERENCES[1]] = Finding.ABSENT
    async with bench.running() as engine:
        with capture_logs() as lines:
            assert await bench.ask(engine) == 0x0000
            bench.prove()
            await until(lambda: not len(engine.transactions))
        (error,) = [line for line in lines if line["log_level"] == "error"]
        assert error["transaction"] == ID.hex()
        assert error["failed"] == {finding.name.lower(): 1, "absent": 1}
        (report,) = bench.modality.reports
        assert len(report.failed) == 2


@asynchronous
async def test_a_start_without_commitment_tells_of_open_transactions(tmp_path: Path) -> None:
    """How many, and what to do; nothing where none is open, or none ever was."""
    bench = Bench(tmp_path)
    with capture_logs() as lines:
        tell_of_unserved(bench.settings)
    assert not lines
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        assert await bench.ask(engine, "1.2.10") == 0x0000
    with capture_logs() as lines:
        tell_of_unserved(bench.settings)
    (line,) = lines
    assert (line["log_level"], line["open_transactions"]) == ("error", 2)
    with capture_logs() as lines:
        await started_once(bench.settings)
    assert [line["open_transactions"] for line in lines if line["log_level"] == "error"] == [2]
    async with bench.running() as engine:
        bench.prove()
        await until(lambda: not len(engine.transactions))
    with capture_logs() as lines:
        tell_of_unserved(bench.settings)
    assert not lines


@asynchronous
async def test_long_work_is_done_aside() -> None:
    """What takes a moment is done at once, what takes long in a thread, so that associations go on."""
    here = threading.get_ident()
    assert await aside(1000, threading.get_ident) == here
    assert await aside(1001, threading.get_ident) != here
