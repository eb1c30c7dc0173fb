"""The account of a partition on Kafka beside a dead store: thousands wait, and a commit is always possible."""

import random

import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Outcome, Place
from workers.log.checkpoint import Announced
from workers.log.commit_metadata import LIMIT, OffsetCheckpoint, decode_metadata, encode_metadata
from workers.log.offset_progress import FRUITLESS, CommittedMarks, OffsetProgress, given_back, started

UPLOADS = 4000
SHARE = 4  # one in so many waits


def upload_at(position: int) -> UploadId:
    return UploadId.of(1, 1, position)


def outcome_at(position: int) -> Announced:
    return Announced(upload_at(position), Outcome("1.2", Place.STORED, "", "", "", "", 1, position + 1))


def read(progress: OffsetProgress, position: int) -> None:
    progress.begin(upload_at(position), position)
    progress.complete(upload_at(position), position, position)
    progress.advance(position + 1)


def count(progress: OffsetProgress, positions: list[int], *, others: int = 0) -> OffsetCheckpoint | None:
    """As a worker does, announced in order; ``others``: records below the mark, once it moves, that end no upload."""
    for position in positions:
        progress.settle(*outcome_at(position))
    if positions:
        progress.count(progress.settled(), 0)
    checkpoint = progress.changed()
    if checkpoint is None:
        return None
    assert isinstance(checkpoint, OffsetCheckpoint)
    text = encode_metadata(checkpoint)
    assert len(text) <= LIMIT
    assert decode_metadata(0, checkpoint.low_water_mark, text) == checkpoint
    told = checkpoint.low_water_mark + sum(last - first + 1 for first, last in checkpoint.done_ranges)
    assert checkpoint.count(Place.STORED) == told - others, "counted, and not told which"
    progress.written(checkpoint)
    return checkpoint


@pytest.mark.parametrize("seed", range(2))
def test_thousands_wait_in_one_partition(seed: int) -> None:
    """None of them keeps others from being read; who continues from any commit repeats work, and counts nothing twice."""
    rng = random.Random(seed)
    waiting = {position for position in range(UPLOADS) if rng.randrange(SHARE) == 0}
    progress = OffsetProgress(OffsetCheckpoint(partition=0), UPLOADS)
    for start in range(0, UPLOADS, 100):
        assert not progress.is_full, f"no more is read at {start}"
        for position in range(start, start + 100):
            read(progress, position)
        count(progress, [position for position in range(start, start + 100) if position not in waiting])
    assert progress.low_water_mark == min(waiting)
    left = sorted(waiting)
    rng.shuffle(left)
    for start in range(0, len(left), 50):
        last = count(progress, left[start : start + 50])
    assert last is not None
    assert (last.low_water_mark, last.count(Place.STORED), last.done_ranges) == (UPLOADS, UPLOADS, ())


def test_what_waited_for_room_is_counted_though_nothing_more_comes() -> None:
    """An upload without an end holds the mark; when it is given up, all behind it is counted by the next commit."""
    progress = OffsetProgress(OffsetCheckpoint(partition=0), UPLOADS)
    orphan = UploadId.of(2, 1, 0)
    progress.begin(orphan, 0)
    progress.advance(1)
    positions = range(1, UPLOADS)
    for position in positions:
        read(progress, position)
    kept = set(range(2, UPLOADS, 2))
    count(progress, [position for position in positions if position not in kept])
    assert progress.checkpoint().settled < UPLOADS // 2 - 1, "all had room"
    count(progress, sorted(kept))
    progress.drop(orphan)
    last = count(progress, [], others=1)
    assert last is not None
    assert (last.low_water_mark, last.count(Place.STORED)) == (UPLOADS, UPLOADS - 1)


def test_an_upload_that_is_still_arriving_keeps_nothing_from_being_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It holds the mark, beside a store that is away until no more is read: with the store back its end must be found."""
    monkeypatch.setattr("workers.log.offset_progress.UNDONE_AT_MOST", 1500)
    progress = OffsetProgress(OffsetCheckpoint(partition=0), UPLOADS)
    arriving = UploadId.of(2, 1, 0)
    progress.begin(arriving, 0)
    progress.advance(1)
    while not progress.is_full:
        start = progress.read_to
        for position in range(start, start + 100):
            read(progress, position)
        count(progress, list(range(start, start + 100, 2)), others=0)
    end = progress.read_to
    assert end < UPLOADS
    last = count(progress, list(range(2, end, 2)))
    assert not progress.is_full
    assert last is not None
    assert (last.low_water_mark, last.count(Place.STORED)) == (0, end - 1)


def test_who_is_asked_to_leave_blames_no_upload() -> None:
    """A careful partition that goes to others again and again: no try of what was in hand counts, as none ended a process."""
    account = OffsetCheckpoint(partition=0, starts=FRUITLESS, attempts={bytes(upload_at(0)): 1})
    for _ in range(3):
        progress = OffsetProgress(started(account), 2)
        marks = CommittedMarks(progress)
        for position in range(2):
            read(progress, position)
            assert marks.mark(upload_at(position))
        offered = progress.changed()
        assert isinstance(offered, OffsetCheckpoint)
        in_vain = decode_metadata(0, offered.low_water_mark, encode_metadata(offered))
        assert in_vain.attempts == {bytes(upload_at(0)): 2, bytes(upload_at(1)): 1}, (
            "where the process ends by it"
        )
        left = given_back(offered)
        account = decode_metadata(0, left.low_water_mark, encode_metadata(left))
        assert (account.starts, account.attempts) == (FRUITLESS, {bytes(upload_at(0)): 1})
