"""A commitment log that is nearly full: it refuses in time, finishes what it accepted, and goes on."""

import itertools
from pathlib import Path

import pytest

from ingest.commitment.carrying import carried_payloads
from ingest.commitment.engine import Engine
from ingest.commitment.transaction import Clock, Transaction, promise_of
from ingest.contract.commitments import (
    CommitAccepted,
    CommitProved,
    CommitRequested,
    Finding,
    Found,
    Reference,
    digest_of,
    first_round,
    found_of,
)
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import Record, decode
from ingest.contract.spool import Layout, OsDisk, PoolLimits, SegmentPool, SpoolFull
from ingest.log.commitment_handover import leave_request
from ingest.log.commitment_log import Location, Request, Written, entry_of
from tests.support.asynchronous import asynchronous
from tests.support.commitment import CT, quiet, until
from tests.support.commitment_bench import Bench

MiB = 1 << 20
MANY = [Reference(CT, f"1.2.3.{number:050d}") for number in range(2000)]


def bench_of(data: Path, size: int, references: list[Reference], **commitment: object) -> Bench:
    """One whose logs have so many bytes."""
    bench = Bench(data, **commitment)
    log = bench.settings.log.model_copy(update={"maximum_size": size, "reserve": 0})
    bench.settings = bench.settings.model_copy(update={"log": log})
    bench.finding = dict.fromkeys(references, Finding.PROVED)
    return bench


def written(data: Path) -> int:
    """Bytes of the log's segments."""
    return sum(path.stat().st_size for path in (data / "commitments" / "segments").iterdir())


@asynchronous
async def test_a_full_log_refuses_in_time_is_drained_and_goes_on(tmp_path: Path) -> None:
    """Many times its size goes through it; what does not fit is refused before a fence is written."""
    bench = bench_of(tmp_path, 10 * MiB, MANY)
    numbers = itertools.count()
    refused = 0

    async def ask(engine: Engine) -> int:
        return await engine.ask(f"1.2.{next(numbers)}", MANY, "CT1", "US", bench.channel)

    for _ in range(2):
        async with bench.running() as engine:
            for _ in range(15):
                fences = len(bench.instances.records)
                while (status := await ask(engine)) == 0x0000:
                    fences = len(bench.instances.records)
                    assert len(engine.transactions) < 10
                assert status == 0x0213
                assert len(bench.instances.records) == fences
                refused += 1
                bench.prove()
                bench.instances.records.clear()
                await until(lambda: not len(engine.transactions))
        assert written(tmp_path) <= 10 * MiB
    accepted = next(numbers) - refused
    assert len(bench.modality.reports) == accepted
    assert all(len(report.committed) == 2000 for report in bench.modality.reports)
    assert accepted * 2 * 2000 * 80 > 10 * MiB, "less than its size went through it"


@asynchronous
async def test_rounds_without_end_do_not_fill_it(tmp_path: Path) -> None:
    """Each answer replaces the one before, so a store that is away for long takes no more than one that is not."""
    references = [Reference(CT, f"1.2.3.{number:050d}") for number in range(6000)]
    bench = bench_of(tmp_path, 14 * MiB, references, wait_limit=1e7)
    bench.finding = dict.fromkeys(references, Finding.UNAVAILABLE)
    async with bench.running() as engine:
        assert await engine.ask("1.2.9", references, "CT1", "US", bench.channel) == 0x0000
        (transaction,) = engine.transactions
        for number in range(20):
            bench.prove()
            bench.instances.records.clear()
            await until(lambda: transaction.round == number)  # noqa: B023 - awaited within the round
            bench.clock.now += 5.0 * 2**number
            await until(lambda: bench.instances.records, engine)
        bench.finding = dict.fromkeys(references, Finding.PROVED)
        bench.prove()
        await until(lambda: not len(engine.transactions), engine)
    (report,) = bench.modality.reports
    assert len(report.committed) == 6000


@asynchronous
async def test_an_administrator_is_heard_while_proofs_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Giving up a transaction needs no room to speak of, and makes some."""
    bench = bench_of(tmp_path, 10 * MiB, MANY)
    async with bench.running() as engine:
        assert await engine.ask("1.2.9", MANY, "CT1", "US", bench.channel) == 0x0000

        async def has_no_room(_size: int, _promised: int) -> bool:
            return False

        monkeypatch.setattr(bench.log, "_has_room", has_no_room)
        bench.prove()
        await quiet(engine)
        transaction_id = TransactionId.of("CT1", "1.2.9")
        leave_request(OsDisk(), tmp_path, transaction_id, Request.EXPIRE)
        await until(lambda: engine.transactions.is_closed(transaction_id))
        assert list((tmp_path / "proofs").glob("*-*")), "proofs wait"


def test_what_is_carried_has_each_instance_once() -> None:
    """Of each the last finding, under its own round; an answer that is not complete replaces nothing yet."""
    references = [Reference(CT, f"1.2.{number}") for number in range(4)]
    digest = digest_of(references)
    base = first_round(digest)
    accepted = CommitAccepted("1.2.9", "CT", "US", "", 4, digest, 1, 1, 1, 0.0, 5)
    transaction = Transaction(TransactionId.of("CT", "1.2.9"), 0.0)
    clock = Clock(0.0, 5)

    def record(commitment: CommitProved | CommitRequested, found: list[Found] | list[Reference]) -> Record:
        header, payload = Written(transaction.id, commitment, found).encode()
        return decode(header + bytes(payload))

    def found(numbers: list[int], finding: Finding) -> list[Found]:
        return [Found(CT, f"1.2.{number}", finding) for number in numbers]

    proofs = [
        record(CommitProved(base, 0, 1, 0, 5), found([0, 1, 2, 3], Finding.UNAVAILABLE)),
        record(CommitProved(base + 1, 0, 1, 0, 5), found([0, 1, 2], Finding.PROVED)),
        record(CommitProved(base + 2, 0, 2, 0, 5), found([2], Finding.ABSENT)),
    ]
    requested = [record(CommitRequested(base, 0), references)]
    transaction.accept(entry_of(Location(0, 0), 9, decode(Written(transaction.id, accepted).encode()[0])),
        accepted, clock, sure=True)  # fmt: skip
    kept = carried_payloads(transaction, requested, proofs, base + 1)
    assert kept[0].found == references
    assert [[one.sop_instance_uid for one in each.found] for each in kept[1:]] == [
        ["1.2.3"],
        ["1.2.0", "1.2.1", "1.2.2"],
        ["1.2.2"],
    ]
    assert all(each.carried for each in kept)
    empty = Written(transaction.id, CommitProved(base, 0, 1, 0, 5), [])
    header, payload = empty.encode()
    assert found_of(decode(header + bytes(payload))) == []


def test_a_promise_covers_a_request_and_two_answers() -> None:
    """What it takes is no more, be its UIDs as long as they get."""
    references = [Reference("1" * 64, f"2.{number:062d}") for number in range(4000)]
    size = len(Written(TransactionId(b"d" * 16), CommitRequested(0, 0), references).encode()[1])
    answer = [Found(one.sop_class_uid, one.sop_instance_uid, Finding.PROVED) for one in references]
    proved = len(Written(TransactionId(b"d" * 16), CommitProved(0, 0, 1, 0, 5), answer).encode()[1])
    assert size + 2 * proved < promise_of(size, 4000, 16)
    assert promise_of(0, 4000, 16) < promise_of(size, 4000, 16)


def test_segments_are_made_in_advance_or_not_at_all(tmp_path: Path) -> None:
    """Beyond the log's size, or into the space kept free for others, none is made."""
    layout = Layout(tmp_path)
    layout.segments.mkdir(parents=True)
    disk = OsDisk()
    pool = SegmentPool(disk, layout, PoolLimits(2 * MiB, 8 * MiB, 0), lambda: 0, 0)
    pool.prepare(5 * MiB)
    assert pool.size == 6 * MiB
    assert pool.may_grow() <= 2 * MiB
    with pytest.raises(SpoolFull):
        pool.prepare(9 * MiB)
    assert pool.size == 6 * MiB
    for number in range(4):
        disk.close(pool.take(number))
    with pytest.raises(SpoolFull):
        pool.take(4)
    total = disk.space(tmp_path).available * 20
    greedy = SegmentPool(disk, layout, PoolLimits(2 * MiB, total, 0), lambda: 0, 4)
    with pytest.raises(SpoolFull):
        greedy.prepare(total)
    assert greedy.size == 8 * MiB
