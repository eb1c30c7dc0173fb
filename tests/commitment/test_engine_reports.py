"""Reports of the engine: in their order, until they are taken, and then never again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ingest.commitment.deliveries import WRONG_PROOF
from ingest.commitment.transaction import Transaction
from ingest.commitment.transactions import State
from ingest.contract.commitments import CommitClosed, Finding
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import Record
from ingest.contract.settings import Settings
from ingest.contract.spool import OsDisk
from ingest.errors import LogUnavailable
from ingest.log.commitment_handover import leave_request
from ingest.log.commitment_log import Location, Request, Written
from tests.support.asynchronous import asynchronous
from tests.support.commitment import Channel, Reported, open_transaction, quiet, until
from tests.support.commitment_bench import ID, REFERENCES, UID, Bench, damage


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
@pytest.mark.parametrize("status", [0x0107, 0x0116, 0xB000])
async def test_a_report_that_is_taken_with_a_warning_is_not_sent_again(tmp_path: Path, status: int) -> None:
    """The peer has it (PS3.7 C.4); what it remarks changes nothing."""
    bench = Bench(tmp_path)
    bench.modality.answers = [status]
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        await until(lambda: engine.transactions.is_closed(ID))
    assert bench.modality.tries == 1


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
async def test_a_wall_clock_that_is_set_forward_gives_up_no_report(tmp_path: Path) -> None:
    """How long a report is tried is time that has passed; what passed before a start only the wall clock tells."""
    bench = Bench(tmp_path)
    bench.modality.answers = [None, None, None]

    async def tried(transaction: Transaction, attempts: int) -> None:
        await until(lambda: transaction.attempted is not None and transaction.attempted.attempts == attempts)

    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        transaction = open_transaction(engine, ID)
        await tried(transaction, 1)
        bench.clock.ahead = 30 * 86400.0
        bench.clock.now += 10.0
        engine.wake()
        await tried(transaction, 2)
        assert engine.transactions.state_of(transaction) is State.RETRYING
    async with bench.running() as engine:
        bench.clock.now += 20.0
        engine.wake()
        transaction = open_transaction(engine, ID)
        await tried(transaction, 3)
        assert engine.transactions.state_of(transaction) is State.UNDELIVERABLE


@asynchronous
async def test_a_source_that_asks_again_after_too_long_gets_its_report(tmp_path: Path) -> None:
    """Whoever repeats its request is there: what was given up is sent once more, where its reports go."""
    bench = Bench(tmp_path, retry_limit=5.0, retry_first=5.0)
    bench.modality.answers = [None, None]
    async with bench.running() as engine:
        assert await bench.ask(engine) == 0x0000
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.attempted is not None)
        bench.clock.now += 5.0
        engine.wake()
        await until(lambda: engine.transactions.state_of(transaction) is State.UNDELIVERABLE)
        assert await bench.ask(engine) == 0x0000
        await until(lambda: engine.transactions.is_closed(ID))
        assert bench.channel.leases == 0
    assert (bench.modality.tries, len(bench.modality.reports)) == (3, 1)


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
