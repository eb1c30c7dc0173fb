"""A partition's account on Kafka, held against its log: a commit and back, and what retention or brokers have lost since."""

import msgspec
import structlog
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from ingest.contract.kafka import LogRewound
from workers.log.commit_metadata import OffsetCheckpoint, Range, decode_metadata, encode_metadata
from workers.log.leader_epochs import UNKNOWN, EpochEnd, LeaderEpochs

logger = structlog.get_logger(__name__)


def commit_of(checkpoint: OffsetCheckpoint, epochs: LeaderEpochs) -> OffsetAndMetadata:
    """The commit that says ``checkpoint``, with the epoch of the last record that this speaks of."""
    epoch = epochs.before(end_of(checkpoint))
    return OffsetAndMetadata(checkpoint.low_water_mark, encode_metadata(checkpoint), epoch)


def account_of(
    place: TopicPartition,
    committed: OffsetAndMetadata | None,
    first: int,
    end: int,
    epoch_end: EpochEnd | None,
) -> OffsetCheckpoint:
    """What is committed of a partition that has records from ``first`` to ``end``, and of the commit's epoch to ``epoch_end``.

    Raises:
        ForeignCommit: the commit is no account that this release can read.
        LogRewound: it is ahead of the log, and from where is unknown.
    """
    if committed is None:  # nobody of this group has read anything
        found = OffsetCheckpoint(partition=place.partition, low_water_mark=0)
    else:
        found = decode_metadata(place.partition, committed.offset, committed.metadata)
    if epoch_end is not None:
        found = _within_the_log(found, first if epoch_end.position == UNKNOWN else epoch_end.position)
    elif found.low_water_mark > end:
        raise LogRewound(
            f"partition {place.partition} of {place.topic} ends at {end}, and {found.low_water_mark} was read of it: the "
            "topic was made anew, or its brokers have lost records"
        )
    return _from_the_start_of_the_log(found, first)


def _within_the_log(checkpoint: OffsetCheckpoint, end: int) -> OffsetCheckpoint:
    """The account where brokers have lost what was read from ``end`` on: what is there now, nobody has read."""
    read = end_of(checkpoint)
    if read <= end:
        return checkpoint
    logger.error(
        "brokers have lost records that were acknowledged and read; what has their places now is read, too",
        partition=checkpoint.partition,
        first=end,
        records=read - end,
    )
    ranges = (Range(found.first, min(found.last, end - 1)) for found in checkpoint.done_ranges)
    return msgspec.structs.replace(
        checkpoint,
        low_water_mark=min(checkpoint.low_water_mark, end),
        done={upload_id: behind for upload_id, behind in checkpoint.done.items() if behind <= end},
        done_ranges=tuple(found for found in ranges if found.first <= found.last),
        lost=checkpoint.lost + read - end,
    )


def end_of(checkpoint: OffsetCheckpoint) -> int:
    """The position behind the last record that an account speaks of."""
    last = checkpoint.done_ranges[-1].last + 1 if checkpoint.done_ranges else 0
    return max(checkpoint.low_water_mark, last, *checkpoint.done.values())


def _from_the_start_of_the_log(checkpoint: OffsetCheckpoint, first: int) -> OffsetCheckpoint:
    """The account where retention has overtaken it: what was not read is lost, and that is said and counted."""
    mark = checkpoint.low_water_mark
    if mark >= first:
        return checkpoint
    lost = report_loss(checkpoint.partition, mark, first)
    ranges = (Range(max(found.first, first), found.last) for found in checkpoint.done_ranges)
    return msgspec.structs.replace(
        checkpoint,
        low_water_mark=first,
        done_ranges=tuple(found for found in ranges if found.first <= found.last),
        lost=checkpoint.lost + lost,
    )


def report_loss(partition: int, expected: int, found: int) -> int:
    """Say that records from ``expected`` to ``found`` are gone; how many."""
    logger.error(
        "the log has lost records that were not read: retention has overtaken the workers",
        partition=partition,
        first=expected,
        records=found - expected,
    )
    return found - expected
