"""Commit: announced before counted, partition by partition, and nothing lost by a failure in between."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.contract.checkpoint import Checkpoint, checkpoint_path, read_checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Outcome, Place
from tests.support.asynchronous import asynchronous, until
from tests.support.held_up import HeldUp
from workers.errors import Unavailable
from workers.log.checkpoint import Announced, CheckpointFolder, Progress, commit

NUMBERS = range(3)


class Outcomes:
    """An outcome log that has no room while ``full``."""

    def __init__(self) -> None:
        self.full = False
        self.announced: list[Announced] = []
        self.counted_to = 0

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        if self.full:
            raise Unavailable("no room", 1.0)
        self.announced += outcomes
        return len(self.announced)

    def counted(self, position: int) -> None:
        self.counted_to = position


def progress_with_one(partition: int) -> Progress:
    progress = Progress(Checkpoint(partition=partition))
    upload_id = UploadId.of(1, 1, partition + 1)
    progress.complete(upload_id, 0)
    progress.advance(10)
    progress.settle(upload_id, Outcome("1.2", Place.STORED, "lossy", "", "s", "k", 1, 10))
    return progress


def written(folder: Path) -> list[Checkpoint | None]:
    return [read_checkpoint(checkpoint_path(folder, number)) for number in NUMBERS]


def test_a_full_outcome_log_holds_its_partition_alone(tmp_path: Path) -> None:
    """The others are counted; its own uploads are counted, once, when there is room."""

    async def scenario() -> None:
        accounts = [(progress_with_one(number), Outcomes()) for number in NUMBERS]
        accounts[1][1].full = True
        write = CheckpointFolder(tmp_path).write

        with pytest.raises(Unavailable):
            await commit(accounts, write)
        first, held, last = written(tmp_path)
        assert held is None
        for found in (first, last):
            assert found is not None
            assert (found.low_water_mark, found.counters) == (10, {Place.STORED: 1})
            assert found.reasons == {"stored/lossy": 1}
        accounts[1][1].full = False
        await commit(accounts, write)
        assert [found.settled for found in written(tmp_path) if found] == [1, 1, 1]
        assert [len(outcomes.announced) for _, outcomes in accounts] == [1, 1, 1]
        assert [outcomes.counted_to for _, outcomes in accounts] == [1, 1, 1]

    asyncio.run(scenario())


def test_what_could_not_be_written_is_written_by_the_next(tmp_path: Path) -> None:
    """A checkpoint that failed is neither taken for written nor announced again; nothing new writes nothing."""

    async def scenario() -> None:
        accounts = [(progress_with_one(0), Outcomes())]
        writes: list[Sequence[Checkpoint]] = []

        async def fail(checkpoints: Sequence[Checkpoint]) -> None:
            raise Unavailable("no room", 1.0)

        async def write(checkpoints: Sequence[Checkpoint]) -> None:
            writes.append(checkpoints)

        with pytest.raises(Unavailable):
            await commit(accounts, fail)
        assert accounts[0][1].counted_to == 0
        await commit(accounts, write)
        await commit(accounts, write)
        assert len(writes) == 1
        assert writes[0][0].counters == {Place.STORED: 1}
        assert len(accounts[0][1].announced) == 1

    asyncio.run(scenario())


@asynchronous
async def test_a_cancelled_write_ends_before_its_partition_is_another_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a stop whose last commit takes too long: its thread must not replace what the next owner has written."""
    replacing = HeldUp(monkeypatch, "rename")
    writing = asyncio.create_task(CheckpointFolder(tmp_path).write([Checkpoint(partition=0)]))
    await until(lambda: replacing.is_reached)
    writing.cancel()
    await asyncio.wait({writing}, timeout=0.1)
    assert not writing.done()
    replacing.let_go()
    await asyncio.wait({writing})
    assert writing.cancelled()
    assert written(tmp_path)[0] == Checkpoint(partition=0)
