"""Where every received instance is, when the log is Kafka: the group's commits count, and what lies above them waits.

The order of the reads is that of `account`: moves, marks, ends, the records between them, the commits again. A commit
that was on its way when its partition changed hands may set a mark back once; then the readings begin anew.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from ingest.contract.identifiers import UploadId
from ingest.contract.kafka import KafkaUnreachable
from ingest.contract.records import HEADER, MAX_METADATA, CorruptRecord, Kind, Place, Record, instance_of
from ingest.contract.settings import MiB, Settings
from workers.cli.account import Account, Move, balance, open_uploads
from workers.cli.backlog import SEALING, Completed, Heads
from workers.dataset.subject import HEAD
from workers.log.commit_metadata import OffsetCheckpoint
from workers.log.group_commits import accounts_of, group_admin, looking

_POLL: Final = 500  # ms
_FETCH: Final = 16 * MiB
_ANSWER: Final = 30.0  # s without a record that is known to be there


class Member(NamedTuple):
    """A worker of the group, on whatever host."""

    name: str
    partitions: tuple[int, ...]


class GroupAccount(NamedTuple):
    """The account, and what else the group tells."""

    account: Account
    lost: int  # records that retention took unread, or brokers lost
    members: list[Member]


class Waiting(NamedTuple):
    """What the group has counted, and how many records lie behind it; nothing of the log is read."""

    places: Mapping[Place, int]  # as the workers counted, whatever an administrator has moved since
    # By partition, from its mark to its end: a part is one, too, and some may be done.
    records: Mapping[int, int]
    lost: int
    members: list[Member]


def read_waiting(settings: Settings) -> Waiting:
    """Commits and ends only, so the size of the backlog does not matter.

    Raises:
        ForeignCommit: the group's offsets are not ours.
        KafkaUnreachable: no broker answers, or none lets us in.
    """
    with group_admin(settings) as admin, closing(_consumer(settings)) as consumer:
        accounts = accounts_of(admin, settings)
        places = _partitions(settings)
        first, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        marks = {number: account.low_water_mark for number, account in accounts.items()}
        counted: Counter[Place] = Counter()
        for account in accounts.values():
            counted.update(account.counters)
        return Waiting(
            counted,
            {at.partition: max(ends[at] - max(marks.get(at.partition, 0), first[at]), 0) for at in places},
            sum(account.lost for account in accounts.values()),
            _members(admin, settings),
        )


def read_group_account(settings: Settings, moves: Iterable[Move]) -> GroupAccount:
    """Count; ``moves`` must have been read before the call. Reads all that waits, so a large backlog takes a while.

    Raises:
        ForeignCommit: the group's offsets are not ours.
        KafkaUnreachable: no broker answers, or none lets us in.
    """
    moves = list(moves)
    with group_admin(settings) as admin, closing(_consumer(settings)) as consumer:
        completed, accounts = _readings(admin, consumer, settings, None)
        lost = sum(account.lost for account in accounts.values())
        return GroupAccount(balance(completed, accounts, moves), lost, _members(admin, settings))


def read_open_uploads(settings: Settings, heads: Heads | None) -> list[Completed]:
    """What is completely received and not yet at a place. Reads all that waits, so a large backlog takes a while.

    Raises:
        ForeignCommit: the group's offsets are not ours.
        KafkaUnreachable: no broker answers, or none lets us in.
    """
    with group_admin(settings) as admin, closing(_consumer(settings)) as consumer:
        return list(open_uploads(*_readings(admin, consumer, settings, heads)).values())


def _readings(
    admin: KafkaAdminClient, consumer: KafkaConsumer, settings: Settings, heads: Heads | None
) -> tuple[list[Completed], dict[int, OffsetCheckpoint]]:
    """The completed uploads above the marks, and the commits read after them."""
    while True:
        before = accounts_of(admin, settings)
        marks = {number: account.low_water_mark for number, account in before.items()}
        completed = list(_completed_uploads(consumer, settings, marks, heads))
        accounts = accounts_of(admin, settings)
        if all(accounts[number].low_water_mark >= mark for number, mark in marks.items()):
            return completed, accounts


def _consumer(settings: Settings) -> KafkaConsumer:
    return KafkaConsumer(
        **looking(settings),
        auto_offset_reset="earliest",
        check_crcs=False,
        fetch_max_bytes=_FETCH,
        max_partition_fetch_bytes=_FETCH,
        metrics_enabled=False,
        allow_auto_create_topics=False,
    )


def _members(admin: KafkaAdminClient, settings: Settings) -> list[Member]:
    kafka = settings.kafka
    found = admin.describe_groups([kafka.group])[kafka.group]
    members = []
    for member in found["members"]:
        assignment = (member["member_assignment"] or {}).get("assigned_partitions", ())
        partitions = [
            number
            for topic in assignment
            if topic["topic"] == kafka.instance_topic
            for number in topic["partitions"]
        ]
        # Of a static member that came back, the broker has the client id from before.
        name = member["group_instance_id"] or member["client_id"]
        members.append(Member(name, tuple(sorted(partitions))))
    return sorted(members)


def _completed_uploads(
    consumer: KafkaConsumer, settings: Settings, marks: Mapping[int, int], heads: Heads | None
) -> Iterator[Completed]:
    """What was completely received between each partition's mark and its end of this moment.

    Raises:
        KafkaUnreachable: no record comes any more, though some are there.
    """
    places = _partitions(settings)
    first = consumer.beginning_offsets(places)
    ends = consumer.end_offsets(places)
    starts = {place: max(marks.get(place.partition, 0), first[place]) for place in places}
    left = {place for place in places if starts[place] < ends[place]}
    consumer.assign(sorted(left))
    for place in left:
        consumer.seek(place, starts[place])
    heard = time.monotonic()
    while left:
        polled = consumer.poll(timeout_ms=_POLL)
        if polled:
            heard = time.monotonic()
        elif time.monotonic() - heard > _ANSWER:
            raise KafkaUnreachable(settings.kafka, TimeoutError())
        for place, records in polled.items():
            for record in records:
                if record.offset < ends[place]:
                    yield from _completed(record, heads)
        left = {place for place in left if consumer.position(place) < ends[place]}


def _partitions(settings: Settings) -> list[TopicPartition]:
    topic = settings.kafka.instance_topic
    return [TopicPartition(topic, number) for number in range(settings.log.partitions)]


def _completed(record: Any, heads: Heads | None) -> Iterator[Completed]:
    """The upload that this record completes, if it completes one."""
    value = memoryview(record.value or b"")
    if len(value) < HEADER.size:
        return
    _, kind, length, _, _, upload_id, index = HEADER.unpack_from(value)
    payload = b"" if heads is None else bytes(value[HEADER.size + length :][:HEAD])
    if heads is not None:
        heads.add(kind, upload_id, index, payload)
    if kind not in SEALING:
        return
    metadata = value[HEADER.size : HEADER.size + min(length, MAX_METADATA)]
    try:
        instance = instance_of(Record(Kind(kind), UploadId(upload_id), index, metadata, memoryview(b"")))
    except CorruptRecord:
        return  # damage, which the worker will find and account for
    subject = None if heads is None else heads.subject(upload_id, instance, payload)
    yield Completed(
        record.partition, upload_id, record.offset + 1, instance.size, instance.received_at, instance, subject
    )
