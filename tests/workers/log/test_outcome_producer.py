"""The outcome log: what was announced is durable, found again and never announced twice."""

import asyncio
from pathlib import Path

import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Outcome, Place
from ingest.contract.spool import SpoolLocked
from tests.support.asynchronous import asynchronous, until
from tests.support.held_up import HeldUp
from workers.log.checkpoint import Announced
from workers.log.outcome_producer import OutcomeProducer


def announced(sequence: int) -> Announced:
    outcome = Outcome("1.2.3", Place.STORED, "", "ab" * 32, "default", "0ab/1.2.3.dcm", 1, sequence + 1)
    return Announced(UploadId.of(1, 2, sequence), outcome)


def test_what_is_beyond_the_checkpoint_is_found_again(tmp_path: Path) -> None:
    """After a crash between announcing and counting, the next start counts exactly the outcomes beyond."""

    async def scenario() -> None:
        producer = OutcomeProducer(tmp_path / "0", 0)
        assert producer.uncounted() == ([], 0)
        counted = await producer.announce([announced(n) for n in range(40)])
        end = await producer.announce([announced(n) for n in range(40, 90)])
        assert end > counted
        producer.close()
        for mark, first in ((0, 0), (counted, 40), (end, 90)):
            again = OutcomeProducer(tmp_path / "0", mark)
            assert again.uncounted() == ([announced(n) for n in range(first, 90)], end)
            again.close()

    asyncio.run(scenario())


def test_a_partition_has_one_writer(tmp_path: Path) -> None:
    """A second worker of the partition is refused while the first lives."""
    first = OutcomeProducer(tmp_path / "0", 0)
    with pytest.raises(SpoolLocked):
        OutcomeProducer(tmp_path / "0", 0)
    first.close()
    OutcomeProducer(tmp_path / "0", 0).close()


def test_a_lost_outcome_log_never_reuses_positions(tmp_path: Path) -> None:
    """With a checkpoint beyond the log's end, as after restoring an older copy, new outcomes go behind it."""

    async def scenario() -> None:
        producer = OutcomeProducer(tmp_path / "0", 10_000_000)
        end = await producer.announce([announced(1)])
        assert end > 10_000_000
        producer.close()
        again = OutcomeProducer(tmp_path / "0", 10_000_000)
        assert again.uncounted() == ([announced(1)], end)
        again.close()

    asyncio.run(scenario())


def test_counted_outcomes_make_room(tmp_path: Path) -> None:
    """The log stays small: what is counted, apart from a recent part, gives its segments to new outcomes."""

    async def scenario() -> None:
        producer = OutcomeProducer(tmp_path / "0", 0)
        batch = [announced(n) for n in range(4000)]  # about a megabyte
        for _ in range(16):
            producer.counted(await producer.announce(batch))
        size = sum(file.stat().st_size for file in (tmp_path / "0" / "segments").iterdir())
        assert size <= 8 * 1024 * 1024
        producer.close()

    asyncio.run(scenario())


@asynchronous
async def test_a_cancelled_announcement_ends_before_its_log_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its thread would write on behind a lock that is another's, to descriptors that may be of other files."""
    producer = OutcomeProducer(tmp_path / "0", 0)
    writing = HeldUp(monkeypatch, "fdatasync")
    announcing = asyncio.create_task(producer.announce([announced(1)]))
    await until(lambda: writing.is_reached)
    announcing.cancel()
    await asyncio.wait({announcing}, timeout=0.1)
    assert not announcing.done()
    writing.let_go()
    await asyncio.wait({announcing})
    assert announcing.cancelled()
    producer.close()
