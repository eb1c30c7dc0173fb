"""Accounts held against their partition, without a broker."""

import pytest
from kafka import TopicPartition

from ingest.contract.identifiers import UploadId
from workers.log.commit_metadata import OffsetCheckpoint, Range
from workers.log.kafka_account import account_of, commit_of, end_of
from workers.log.leader_epochs import UNKNOWN, EpochEnd, LeaderEpochs

PLACE = TopicPartition("instances", 0)
LATE, EARLY = bytes(UploadId.of(1, 1, 1)), bytes(UploadId.of(1, 1, 2))
ACCOUNT = OffsetCheckpoint(
    partition=0,
    low_water_mark=10,
    done={EARLY: 13, LATE: 22},
    done_ranges=(Range(12, 14), Range(16, 19)),
    lost=1,
)


def held(end: int, first: int = 0) -> OffsetCheckpoint:
    """The account on a log that has lost what it had from ``end`` on."""
    commit = commit_of(ACCOUNT, LeaderEpochs(3, 22))
    return account_of(PLACE, commit, first, 1000, EpochEnd(3, end))


def test_a_whole_log_leaves_the_account_alone() -> None:
    """Its last record is there still."""
    assert end_of(ACCOUNT) == 22
    assert held(22) == ACCOUNT


@pytest.mark.parametrize(
    ("end", "mark", "ranges", "done"),
    [
        (21, 10, ((12, 14), (16, 19)), {EARLY: 13}),
        (18, 10, ((12, 14), (16, 17)), {EARLY: 13}),
        (16, 10, ((12, 14),), {EARLY: 13}),
        (12, 10, (), {}),
        (4, 4, (), {}),
    ],
)
def test_what_is_lost_is_done_no_more(
    end: int, mark: int, ranges: tuple[tuple[int, int], ...], done: dict[bytes, int]
) -> None:
    """Other records have its positions, and must be read; what is before it stays as it was."""
    found = held(end)
    assert found.low_water_mark == mark
    assert found.done_ranges == ranges
    assert found.done == done
    assert found.lost == 1 + 22 - end


def test_an_epoch_that_no_broker_knows_begins_anew() -> None:
    """From the first record that there is."""
    found = held(UNKNOWN, first=2)
    assert (found.low_water_mark, found.done_ranges, found.done) == (2, (), {})


def test_a_commit_has_the_epoch_of_the_last_record_it_speaks_of() -> None:
    """Not of what was read since: that a log has this says nothing of what is committed."""
    epochs = LeaderEpochs(3, 22)
    epochs.add(15, 2)
    epochs.add(22, 3)
    epochs.add(23, 5)
    assert (epochs.last, epochs.end) == (5, 24)
    assert commit_of(ACCOUNT, epochs).leader_epoch == 3
    assert [epochs.before(at) for at in (0, 22, 23, 24, 99)] == [3, 3, 3, 5, 5]
