"""The engine on the log of one machine: durable before success, proved before reported, and nothing forgotten."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ingest.commitment import unserved
from ingest.commitment.deliveries import WRONG_PROOF
from ingest.commitment.engine import Engine
from ingest.commitment.reading import aside
from ingest.commitment.transaction import Transaction
from ingest.commitment.transactions import ASKINGS, State
from ingest.commitment.unserved import tell_of_unserved
from ingest.contract.commitments import (
    CommitAccepted,
    CommitAsked,
    CommitClosed,
    Finding,
    Reference,
    commitment_of,
    references_of,
)
from ingest.contract.identifiers import TransactionId
from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.records import Kind, Record
from ingest.contract.settings import Settings
from ingest.contract.spool import OsDisk
from ingest.errors import LogUnavailable, OutOfResources
from ingest.log.commitment_handover import leave_request
from ingest.log.commitment_log import Location, Request, Written
from ingest.log.commitment_spool import SpoolCommitmentLog
from ingest.receiver.metrics import commitment_gauges
from ingest.receiver.run import run_receiver
from tests.support.admin import Samples, of, parsed
from tests.support.asynchronous import asynchronous
from tests.support.commitment import (
    CT,
    Channel,
    Hand,
    Modality,
    Reported,
    leave_proofs,
    open_transaction,
    quiet,
    until,
)
from tests.support.memory_log import MemoryLog

REFERENCES = [Reference(CT, f"1.2.3.{number}") for number in range(10)]
UID = "1.2.9"
ID = TransactionId.of("CT1", UID)


class Bench:
    """One receiver's engine, with its worker and its peer."""

    def __init__(self, data: Path, **commitment: Any) -> None:
        source = {"ae_titles": ["CT1"], "host": "127.0.0.1", "port": 104}
        for key in ("same_association", "report_limit"):
            if key in commitment:
                source[key] = commitment.pop(key)
        self.settings = Settings.model_validate(
            {"data": data, "commitment": {"enabled": True, **commitment}, "sources": {"ct": source}}
        )
        self.instances = MemoryLog()
        self.clock = Hand()
        self.modality = Modality()
        self.channel = Channel()
        self.taken: set[bytes] = set()
        self.finding = dict.fromkeys(REFERENCES, Finding.PROVED)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        self.instances.epoch += 1
        self.log = SpoolCommitmentLog(self.settings)
        engine = Engine(self.settings, self.instances, self.log, self.modality, self.clock)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()

    async def ask(self, engine: Engine, uid: str = UID, count: int = 10, ae_title: str = "CT1") -> int:
        return await engine.ask(uid, REFERENCES[:count], ae_title, "US", self.channel)

    def prove(self) -> int:
        return leave_proofs(
            self.settings.data / "proofs", self.instances, lambda one: self.finding[one], self.taken
        )


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
async def test_a_report_that_is_not_taken_is_tried_again_across_restarts(tmp_path: Path) -> None:
    """No association or another status: again after a doubled wait, the same report, until it is taken."""
    bench = Bench(tmp_path)
    bench.modality.answers = [None, 0x0110, None]
    bench.finding[REFERENCES[0]] = Finding.DAMAGED
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        await until(lambda: bench.modality.tries == 1)
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.attempted is not None)
        assert engine.transactions.state_of(transaction) is State.RETRYING
        bench.clock.now += 9.0
    async with bench.running() as engine:
        assert bench.modality.tries == 1
        bench.clock.now += 1.0
        await until(lambda: bench.modality.tries == 2, engine)
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.attempted is not None and transaction.attempted.attempts == 2)
        bench.clock.now += 20.0
        await until(lambda: bench.modality.tries == 3, engine)
        await until(lambda: transaction.attempted is not None and transaction.attempted.attempts == 3)
        bench.clock.now += 40.0
        await until(lambda: not len(engine.transactions), engine)
    first, second = bench.modality.reports
    assert first == second
    assert [one.finding for one in first.failed] == [Finding.DAMAGED]


@asynchronous
async def test_after_too_long_an_administrator_decides(tmp_path: Path) -> None:
    """Past the limit a report waits, across restarts, for `retry` or `expire`."""
    bench = Bench(tmp_path, retry_limit=5.0, retry_first=5.0)
    bench.modality.answers = [None, None, None]
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.attempted is not None)
        bench.clock.now += 5.0
        await until(lambda: bench.modality.tries == 2, engine)
        await until(lambda: engine.transactions.state_of(transaction) is State.UNDELIVERABLE)
        bench.clock.now += 1e6
    leave_request(OsDisk(), tmp_path, ID, Request.RETRY)
    async with bench.running() as engine:
        await until(lambda: bench.modality.tries == 3, engine)
        assert await bench.ask(engine) == 0x0000
        leave_request(OsDisk(), tmp_path, ID, Request.EXPIRE)
        await until(lambda: not len(engine.transactions), engine)
        assert await bench.ask(engine) == 0x0131
    assert not bench.modality.reports


@asynchronous
async def test_same_association_first_then_a_new_one(tmp_path: Path) -> None:
    """Where the source wants it, the association of the request is tried, and a new one once that is gone."""
    bench = Bench(tmp_path, same_association=True)
    async with bench.running() as engine:
        await bench.ask(engine)
        bench.prove()
        await until(lambda: not len(engine.transactions))
        assert len(bench.channel.reports) == 1
        bench.channel.answers = [None]
        await bench.ask(engine, "1.2.10")
        bench.prove()
        await until(lambda: not len(engine.transactions))
        assert (len(bench.channel.reports), len(bench.modality.reports)) == (1, 1)


@asynchronous
async def test_the_association_is_kept_while_a_report_may_go_there(tmp_path: Path) -> None:
    """Until it is reported or expired, on the last one that asked; and not where reports go to an address."""
    bench = Bench(tmp_path, same_association=True)
    async with bench.running() as engine:
        await bench.ask(engine)
        assert bench.channel.leases == 1
        first, bench.channel = bench.channel, Channel()
        await bench.ask(engine)
        assert (first.leases, bench.channel.leases) == (0, 1)
        bench.prove()
        await until(lambda: not len(engine.transactions))
        assert bench.channel.leases == 0
        bench.channel.answers = [None]
        await bench.ask(engine, "1.2.10")
        bench.prove()
        await until(lambda: not len(engine.transactions))
        assert bench.channel.leases == 0
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        await bench.ask(engine, "1.2.11")
        assert bench.channel.leases == 0


@asynchronous
async def test_without_a_return_address(tmp_path: Path) -> None:
    """Refused as long as the settings say so; else reported on the same association, or visibly not at all."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        assert await bench.ask(engine, ae_title="STRANGER") == 0x0110
        assert not bench.instances.records
    bench = Bench(tmp_path, without_address="same-association")
    async with bench.running() as engine:
        assert await bench.ask(engine, ae_title="STRANGER") == 0x0000
        bench.prove()
        await until(lambda: not len(engine.transactions))
        assert len(bench.channel.reports) == 1
        bench.channel.answers = [None]
        assert await bench.ask(engine, "1.2.10", ae_title="STRANGER") == 0x0000
        bench.prove()
        transaction = open_transaction(engine, TransactionId.of("STRANGER", "1.2.10"))
        await until(lambda: engine.transactions.state_of(transaction) is State.UNDELIVERABLE)


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
async def test_reports_are_split_only_where_a_peer_needs_it(tmp_path: Path) -> None:
    """Each of the reports has at most so many instances, and together they have all."""
    bench = Bench(tmp_path, report_limit=4, absent_grace=0)
    bench.finding[REFERENCES[0]] = Finding.ABSENT
    async with bench.running() as engine:
        await bench.ask(engine)
        bench.prove()
        await until(lambda: not len(engine.transactions))
    sizes = [(len(report.committed), len(report.failed)) for report in bench.modality.reports]
    assert sizes == [(4, 0), (4, 0), (1, 1)]


@asynchronous
async def test_too_many_open_ones_are_refused(tmp_path: Path) -> None:
    """Transactions that nobody reports yet are bounded."""
    bench = Bench(tmp_path, maximum_open=2)
    async with bench.running() as engine:
        assert [await bench.ask(engine, f"1.2.{number}") for number in range(3)] == [0, 0, 0x0213]


@asynchronous
async def test_reports_come_in_order_when_the_peer_is_back(tmp_path: Path) -> None:
    """While a source cannot be reached, its first report alone is tried; then all come in the order of the requests."""
    bench = Bench(tmp_path)
    bench.modality.answers = [None] * 8
    async with bench.running() as engine:
        for number in range(20):
            assert await bench.ask(engine, f"1.2.{number}", count=2) == 0
            bench.prove()
            transaction = open_transaction(engine, TransactionId.of("CT1", f"1.2.{number}"))
            await until(lambda: transaction.decided is not None)  # noqa: B023 - awaited within the round
            bench.clock.now += 0.01
        while len(engine.transactions):
            bench.clock.now += 30.0
            await quiet(engine)
    assert [report.transaction_uid for report in bench.modality.reports] == [f"1.2.{n}" for n in range(20)]
    assert bench.modality.tries == 28


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


@asynchronous
async def test_a_report_that_was_taken_is_not_sent_again_for_a_log_that_is_away(tmp_path: Path) -> None:
    """Only that it was taken is written again, until the log takes it."""
    bench = Bench(tmp_path)
    refusals = 5
    async with bench.running() as engine:
        publish = bench.log.publish

        async def away(records: list[Written]) -> Any:
            nonlocal refusals
            if refusals and isinstance(records[0].commitment, CommitClosed):
                refusals -= 1
                raise LogUnavailable("away")
            return await publish(records)

        bench.log.publish = away  # type: ignore[method-assign, assignment]
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        while not engine.transactions.is_closed(ID):
            await quiet(engine)
            bench.clock.now += 2.0
    assert not refusals
    assert bench.modality.tries == 1


def damage(data: Path, place: Location) -> None:
    """Flip a bit of the record at this place."""
    segments = sorted((data / "commitments" / "segments").iterdir())
    size = segments[0].stat().st_size
    with segments[place.position // size].open("r+b") as file:
        file.seek(place.position % size + 120)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


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


@asynchronous
async def test_what_was_decided_is_not_read_again_to_be_reported(tmp_path: Path) -> None:
    """The verdict waits in memory for its first report; a later one is read from the log, and says the same."""
    bench = Bench(tmp_path)
    bench.modality.answers = [0x0110]
    fetched = 0
    async with bench.running() as engine:
        fetch = bench.log.fetch

        async def counted(location: Location) -> Record:
            nonlocal fetched
            fetched += 1
            return await fetch(location)

        bench.log.fetch = counted  # type: ignore[method-assign]
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.attempted is not None)
        records = len(transaction.request_locations()) + len(transaction.proof_locations())
        assert fetched == records, "once, for the decision"
        bench.clock.now += 10.0
        await until(lambda: engine.transactions.is_closed(ID), engine)
        assert fetched == 2 * records
    first, second = bench.modality.reports
    assert first == second


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


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (True, "a commitment report waits: our claim may end before it"),
        (False, "another receiver has claimed a commitment report"),
    ],
)
@asynchronous
async def test_a_report_that_is_not_ours_to_send_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, mine: bool, said: str
) -> None:
    """A claim that ends too soon is not another's; either way nothing is sent, and it is tried again."""
    bench = Bench(tmp_path)
    async with bench.running() as engine:
        refusals = 0

        async def still_ours(transaction: Transaction) -> bool:
            nonlocal refusals
            refusals += 1
            transaction.claim_mine = mine
            return refusals > 1

        monkeypatch.setattr(engine, "_still_ours", still_ours)
        with capture_logs() as lines:
            assert await bench.ask(engine) == 0x0000
            bench.prove()
            await until(lambda: not len(engine.transactions))
        assert refusals == 2
        assert len(bench.modality.reports) == 1
        assert [line["event"] for line in lines if "claim" in line["event"]] == [said]


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


@asynchronous
async def test_a_decision_that_cannot_be_told_any_more_waits_for_an_administrator(tmp_path: Path) -> None:
    """Nothing is said that was not decided: what is damaged after that is no report, and visible."""
    bench = Bench(tmp_path, retry_first=50.0)
    bench.modality.answers = [None]
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.attempted is not None)
        damage(tmp_path, transaction.proof_locations()[0])
        bench.clock.now += 50.0
        await until(lambda: engine.transactions.state_of(transaction) is State.UNDELIVERABLE, engine)
        assert transaction.attempted is not None
        assert transaction.attempted.problem == WRONG_PROOF
    assert not bench.modality.reports


@asynchronous
async def test_reports_use_the_sources_that_were_reloaded(tmp_path: Path) -> None:
    """To the new address, over TLS where it has that; with files that cannot be used nothing is sent."""

    def reloaded(**source: object) -> Settings:
        return Settings.model_validate({"sources": {"ct": {"ae_titles": ["CT1"], **source}}})

    bench = Bench(tmp_path)
    bench.modality.answers = [None]
    async with bench.running() as engine:
        await bench.ask(engine)
        bench.prove()
        await until(lambda: bench.modality.tries == 1)
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.attempted is not None)
        engine.take_sources(reloaded(host="10.0.0.8", tls=True, tls_ca_file="/none.pem"))
        bench.clock.now += 10.0
        await until(lambda: transaction.attempted is not None and transaction.attempted.attempts == 2, engine)
        assert bench.modality.tries == 1
        engine.take_sources(reloaded(host="10.0.0.9", tls=True))
        bench.clock.now += 20.0
        await until(lambda: not len(engine.transactions), engine)
    (report,) = bench.modality.reports
    assert report.peer is not None
    assert (report.peer.host, report.peer.tls is not None) == ("10.0.0.9", True)


@asynchronous
async def test_a_requester_without_address_that_is_back_gets_its_report(tmp_path: Path) -> None:
    """Its association was gone before the report: the same request on another is answered success, and is reported there."""
    bench = Bench(tmp_path, without_address="same-association")
    transaction_id = TransactionId.of("STRANGER", UID)
    async with bench.running() as engine:
        bench.channel.answers = [None]
        assert await bench.ask(engine, ae_title="STRANGER") == 0x0000
        bench.prove()
        transaction = open_transaction(engine, transaction_id)
        await until(lambda: engine.transactions.state_of(transaction) is State.UNDELIVERABLE)
    async with bench.running() as engine:
        transaction = open_transaction(engine, transaction_id)
        assert engine.transactions.state_of(transaction) is State.UNDELIVERABLE
        publish, bench.log.publish = bench.log.publish, refusing(LogUnavailable("gone"))  # type: ignore[method-assign]
        assert await bench.ask(engine, ae_title="STRANGER") == 0x0110
        bench.log.publish = publish  # type: ignore[method-assign]
        assert await bench.ask(engine, ae_title="STRANGER") == 0x0000
        await until(lambda: not len(engine.transactions))
        assert len(bench.channel.reports) == 1
        assert bench.channel.leases == 0


def refusing(error: Exception) -> Any:
    async def publish(_records: object) -> None:
        raise error

    return publish


class Dead(Channel):
    """An association whose peer is gone, as is known late."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.known = asyncio.Event(), asyncio.Event()

    async def report(self, *_: object) -> int | None:
        self.asked.set()
        await self.known.wait()
        return None


@asynchronous
async def test_a_requester_that_is_back_before_its_association_is_known_to_be_gone(tmp_path: Path) -> None:
    """The report goes to the association that asked last, also where it was under way on the one before."""
    bench = Bench(tmp_path, without_address="same-association")
    async with bench.running() as engine:
        first = bench.channel = Dead()
        assert await bench.ask(engine, ae_title="STRANGER") == 0x0000
        bench.prove()
        await first.asked.wait()
        bench.channel = Channel()
        assert await bench.ask(engine, ae_title="STRANGER") == 0x0000
        first.known.set()
        await until(lambda: not len(engine.transactions))
        assert len(bench.channel.reports) == 1
        assert (first.leases, bench.channel.leases) == (0, 0)


@asynchronous
@pytest.mark.parametrize("asked_as", ["CT1", "STRANGER"])
async def test_a_report_goes_to_whoever_has_the_ae_title_by_now(tmp_path: Path, asked_as: str) -> None:
    """A source that was renamed, or was none yet when it asked, is reported to; another that has its name is not."""
    bench = Bench(tmp_path, without_address="same-association")
    bench.channel.answers = [None]
    sources = {
        "ct": {"ae_titles": ["OTHER"], "host": "10.0.0.66"},
        "new": {"ae_titles": [asked_as], "host": "10.0.0.9"},
    }
    async with bench.running() as engine:
        assert await bench.ask(engine, ae_title=asked_as) == 0x0000
        engine.take_sources(Settings.model_validate({"sources": sources}))
        bench.prove()
        await until(lambda: not len(engine.transactions))
    (report,) = bench.modality.reports
    assert report.peer is not None
    assert report.peer.host == "10.0.0.9"


@asynchronous
async def test_a_source_that_was_renamed_keeps_its_patience(tmp_path: Path) -> None:
    """How long an absent instance is waited for is what the source that has the AE title by now says."""
    bench = Bench(tmp_path, absent_grace=0)
    bench.finding[REFERENCES[0]] = Finding.ABSENT
    patient = {"ae_titles": ["CT1"], "host": "127.0.0.1", "absent_grace": 600}
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        engine.take_sources(Settings.model_validate({"sources": {"renamed": patient}}))
        transaction = open_transaction(engine, ID)
        bench.prove()
        await until(lambda: transaction.round == 0)
        await quiet(engine)
        assert engine.transactions.state_of(transaction) is State.WAITING
    assert not bench.modality.tries


def parts_of(reports: Sequence[Reported]) -> list[list[str]]:
    """The last numbers of the instances in each."""
    return [
        [one.sop_instance_uid.rpartition(".")[2] for one in [*each.committed, *each.failed]]
        for each in reports
    ]


@asynchronous
async def test_a_part_that_was_taken_is_not_sent_again(tmp_path: Path) -> None:
    """After a part that was refused, what was answered with 0000H before it stays with the peer: only the rest goes out."""
    bench = Bench(tmp_path, report_limit=4)
    bench.modality.answers = [0, 0x0110, 0, None]
    async with bench.running() as engine:
        await bench.ask(engine)
        bench.prove()
        transaction = open_transaction(engine, ID)

        def attempts() -> int:
            return transaction.attempted.attempts if transaction.attempted is not None else 0

        await until(lambda: attempts() == 1)
        bench.clock.now += 100.0
        await until(lambda: attempts() == 2, engine)
        bench.clock.now += 100.0
        await until(lambda: not len(engine.transactions), engine)
    first, second, third = list("0123"), list("4567"), list("89")
    assert parts_of(bench.modality.reports) == [first, second, second, third]


@asynchronous
async def test_a_new_association_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    """Parts taken on the association of the request are not sent on another."""
    bench = Bench(tmp_path, report_limit=4, same_association=True)
    bench.channel.answers = [0, None]
    async with bench.running() as engine:
        await bench.ask(engine)
        bench.prove()
        await until(lambda: not len(engine.transactions))
    assert parts_of(bench.channel.reports) == [list("0123")]
    assert parts_of(bench.modality.reports) == [list("4567"), list("89")]
