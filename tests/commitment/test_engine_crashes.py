"""The engine dies at each numbered step, and the next start goes on from the logs alone."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.cli.commitment_view import SpoolRecords
from ingest.commitment import carrying, engine, proving, reporting
from ingest.commitment.engine import system_clock
from ingest.commitment.transactions import watched
from ingest.contract.commitments import CommitAccepted, CommitClosed, Finding
from ingest.contract.failpoints import Failpoint
from ingest.log.commitment_log import Location, Written
from tests.support.asynchronous import asynchronous
from tests.support.commitment import open_transaction, until
from tests.support.commitment_bench import ID, REFERENCES, Bench

STEPS = [
    Failpoint.FENCED,
    Failpoint.ACCEPTED,
    Failpoint.BEFORE_DECISION,
    Failpoint.DECIDED,
    Failpoint.BEFORE_REPORT,
    Failpoint.REPORTED,
    Failpoint.CLOSED,
]


class Died(Exception):  # noqa: N818 - what a test makes happen
    pass


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("step", STEPS)
@asynchronous
async def test_a_death_at_any_step_loses_nothing(
    step: Failpoint, turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far it came: the peer asks again if it had no answer, and each request leads to one report, or its repetition."""
    reached: list[Failpoint] = []
    dead = asyncio.Event()

    def reach(point: Failpoint) -> None:
        if dead.is_set():
            raise Died
        reached.append(point)
        if reached.count(step) == turn:
            dead.set()
            raise Died

    def reach_nothing_when_dead() -> None:
        if dead.is_set():
            raise Died

    for module in (engine, proving, reporting):
        monkeypatch.setattr(module, "reach", reach)
    bench = Bench(tmp_path, absent_grace=0)
    bench.finding[REFERENCES[0]] = Finding.ABSENT
    answered: set[str] = set()
    uids = ["1.2.9", "1.2.10", "1.2.11"]

    async def life() -> None:
        async with bench.running() as running:
            publish = bench.log.publish

            async def unless_dead(records: list[Written]) -> Location:
                reach_nothing_when_dead()
                return await publish(records)

            bench.log.publish = unless_dead  # type: ignore[method-assign, assignment]
            for uid in uids:
                if uid not in answered:
                    with contextlib.suppress(Died):
                        if await bench.ask(running, uid) in (0x0000, 0x0131) and not dead.is_set():
                            answered.add(uid)
            while not dead.is_set() and len(running.transactions):
                bench.prove()
                bench.clock.now += (
                    0.1  # a round that may have been asked before is asked once more, a second later
                )
                running.wake()
                await asyncio.sleep(0.01)

    await life()
    dead.clear()
    reached.clear()
    for module in (engine, proving, reporting):
        monkeypatch.setattr(module, "reach", lambda _: None)
    bench.taken.clear()  # the worker died, too, and proves all once more
    await life()
    assert answered == set(uids)
    for uid in uids:
        reports = [report for report in bench.modality.reports if report.transaction_uid == uid]
        assert 1 <= len(reports) <= 2
        assert all(report == reports[0] for report in reports)
        assert len(reports[0].committed) == 9


@asynchronous
async def test_what_is_carried_forward_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open transaction outlives the segments that it began in, a closed one is remembered, and nothing is sent twice."""
    bench = Bench(tmp_path, retry_first=1000.0)
    bench.modality.answers = [0, None]
    async with bench.running() as running:
        await bench.ask(running, "1.2.10")
        bench.prove()
        await until(lambda: not len(running.transactions))
        await bench.ask(running)
        bench.prove()
        transaction = open_transaction(running, ID)
        await until(lambda: transaction.attempted is not None)
        oldest = transaction.oldest

        async def threshold() -> dict[int, int]:
            return {0: 2**62}

        monkeypatch.setattr(bench.log, "threshold", threshold)
        await carrying.carry_forward(bench.log, running.transactions, system_clock, running._write)
        await until(lambda: transaction.oldest > oldest)
        await carrying.carry_forward(bench.log, running.transactions, system_clock, running._write)
        assert bench.log._wanted_mark > oldest
        bench.log._low_water_mark()
    async with bench.running() as running:
        assert await bench.ask(running, "1.2.10") == 0x0131
        transaction = open_transaction(running, ID)
        assert transaction.attempted is not None
        assert transaction.attempted.attempts == 1
        bench.clock.now += 1000.0
        await until(lambda: not len(running.transactions), running)
    assert [report.transaction_uid for report in bench.modality.reports] == ["1.2.10", "1.2.9"]
    assert len(bench.modality.reports[1].committed) == 10


@asynchronous
async def test_what_ends_while_it_is_carried_forward_stays_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its acceptance has come behind its end: when only the former is left, it must not begin once more."""
    bench = Bench(tmp_path, retry_first=1000.0)
    bench.modality.answers = [None]
    async with bench.running() as running:
        await bench.ask(running)
        bench.prove()
        transaction = open_transaction(running, ID)
        await until(lambda: transaction.attempted is not None)

        async def threshold() -> dict[int, int]:
            return {0: bench.log._log.durable_end}

        async def write(records: Sequence[Written]) -> None:
            if running.transactions.get(ID) is not None:
                await running._write([Written(ID, CommitClosed("expired", 0, 0, system_clock().wall))])
            await running._write(records)

        monkeypatch.setattr(bench.log, "threshold", threshold)
        end = bench.log._log.durable_end
        await carrying.carry_forward(bench.log, running.transactions, system_clock, write)
        assert not len(running.transactions)
    log = SpoolRecords(bench.settings)
    behind = [entry for entry in log.entries() if entry.location.position > end]
    log.close()
    (closing, *rest) = behind
    assert isinstance(closing.commitment, CommitClosed)
    transactions = watched()
    for entry in rest:
        transactions.apply(entry, system_clock())
    assert any(isinstance(entry.commitment, CommitAccepted) for entry in rest)
    assert not len(transactions)
