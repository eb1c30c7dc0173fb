"""A peer that is down for days: nothing is lost, nothing is tried too often, and nothing grows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ingest.commitment.engine import Engine
from ingest.contract.commitments import Finding
from ingest.contract.identifiers import TransactionId
from tests.support.asynchronous import asynchronous
from tests.support.commitment import open_transaction, quiet, until
from tests.support.commitment_bench import REFERENCES, Bench
from tests.support.open_transactions import TWO_DAYS

COUNT = 60
# With 16 proofs each some 2 KiB: what its acceptance says, the places of its proofs, its turns in the schedule. Twice
# that is for other allocators; the instances of one, 45 KiB on disk, must not be there.
KIB_A_TRANSACTION: Final = 4
# One report of 1,000 instances is made at each try, and Python keeps what it took for that.
GROWTH: Final = 8  # MiB in two days


def most_tries(engine: Engine, seconds: float) -> int:
    """What the settings allow one peer: doubled waits up to the longest, then one each."""
    limits = engine._settings.commitment
    tries, wait, at = 1, limits.retry_first, 0.0
    while at < seconds:
        at += wait
        wait = min(2 * wait, limits.retry_longest)
        tries += 1
    return tries


async def wait_for_days(bench: Bench, engine: Engine, seconds: float) -> int:
    """Sleep as the engine would, from one moment that it wants to be woken at to the next; how many there were."""
    end, wake_ups = bench.clock.now + seconds, 0
    await quiet(engine)
    while engine.transactions.next_time() < end:
        assert engine.transactions.next_time() > bench.clock.now, "a busy loop"
        bench.clock.now = engine.transactions.next_time()
        wake_ups += 1
        await quiet(engine)
    bench.clock.now = end
    return wake_ups


@asynchronous
async def test_a_peer_that_is_down_for_two_days(tmp_path: Path) -> None:
    """It gets every report when it is back, in the order of the decisions, each with its own instances."""
    bench = Bench(tmp_path)
    bench.finding[REFERENCES[3]] = Finding.DAMAGED
    bench.modality.answers = [None] * 10_000
    uids = [f"1.2.9.{number}" for number in range(COUNT)]
    async with bench.running() as engine:
        for number, uid in enumerate(uids):
            assert await bench.ask(engine, uid, 1 + number % len(REFERENCES)) == 0x0000
            bench.prove()
            transaction = open_transaction(engine, TransactionId.of("CT1", uid))
            await until(lambda: transaction.decided is not None)  # noqa: B023 - awaited within the round
            bench.clock.now += 0.001
        wake_ups = await wait_for_days(bench, engine, TWO_DAYS / 2)
        assert 24 <= bench.modality.tries <= most_tries(engine, TWO_DAYS / 2)
        assert wake_ups <= 2 * bench.modality.tries
    tries = bench.modality.tries
    async with bench.running() as engine:
        wake_ups = await wait_for_days(bench, engine, TWO_DAYS / 2)
        assert 24 <= bench.modality.tries - tries <= most_tries(engine, TWO_DAYS / 2)
        assert wake_ups <= 2 * (bench.modality.tries - tries)
        assert len(engine.transactions) == COUNT
        assert not bench.modality.reports
        bench.modality.answers.clear()
        # At the next try at the latest; all others follow at once.
        bench.clock.now = engine.transactions.next_time()
        await until(lambda: not len(engine.transactions), engine)
    assert [report.transaction_uid for report in bench.modality.reports] == uids
    for number, report in enumerate(bench.modality.reports):
        asked = REFERENCES[: 1 + number % len(REFERENCES)]
        assert [one.sop_instance_uid for one in report.failed] == [one.sop_instance_uid for one in asked[3:4]]
        assert [one.sop_instance_uid for one in report.committed] == [
            one.sop_instance_uid for one in asked[:3] + asked[4:]
        ]


@pytest.mark.slow
@pytest.mark.timeout(900)  # writes and reads half a gigabyte, record by record
def test_memory_with_ten_thousand_open_transactions(tmp_path: Path) -> None:
    """Of 1,000 instances each: these stay on disk, and two days of tries leave nothing behind."""

    def child(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.open_transactions", *arguments],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return done.stdout

    few, many = tmp_path / "few", tmp_path / "many"
    child("fill", str(few), "10")
    child("fill", str(many), "10000")
    without, found = (json.loads(child("hold", str(folder)).splitlines()[-1]) for folder in (few, many))
    assert (without["open"], found["open"]) == (10, 10_000)
    assert found["started"] - without["started"] < 10_000 * KIB_A_TRANSACTION / 1024, (without, found)
    assert found["later"] - found["started"] < GROWTH, found
    assert found["wake_ups"] <= 2 * found["tries"], found
