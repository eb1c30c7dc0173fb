"""The reader of a consumer group on a real broker: order, hand-over, commits, back-pressure, and what stops it."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from ingest.contract.identifiers import UploadId
from ingest.contract.kafka import LogRewound, TopicMismatch
from ingest.contract.records import Kind, NewerRecord, encode_header
from ingest.contract.settings import Settings
from tests.support.group_member import Member, commit_by_hand, committed, until
from tests.support.kafka_records import Publisher, kafka_settings
from tests.support.kafka_servers import KafkaServers
from tests.support.next_release import newer_record
from workers.errors import Unavailable
from workers.log import kafka_poller
from workers.log.commit_metadata import ForeignCommit
from workers.log.entries import DamagedRecord, LogRecord

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("kafka"),
    # On a busy machine the client leaves sockets to the garbage collector when its close takes too long.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]
numbers = itertools.count()


@pytest.fixture
def settings(kafka: KafkaServers, tmp_path: Path) -> Settings:
    """A log of four partitions of its own."""
    return kafka_settings(kafka, tmp_path, f"reader-{next(numbers)}")[0]


@pytest.fixture
def publisher(settings: Settings) -> Iterator[Publisher]:
    found = Publisher(settings)
    yield found
    found.close()


def uids(count: int) -> list[str]:
    return [f"1.2.{number}" for number in range(count)]


def test_records_come_in_the_order_of_their_partition(settings: Settings, publisher: Publisher) -> None:
    """All of a new group's log, decoded, with append times; nothing of it is committed but the start."""

    async def scenario() -> None:
        for uid in uids(40):
            publisher.upload(uid, uid.encode() * 100)
        publisher.flush()
        member = Member(settings)
        await member.reader.start()
        await until(lambda: len(member.entries) == 40, member)
        assert len(member.owned) == 4
        for partition in range(4):
            found = member.positions(partition)
            assert found == list(range(len(found)))
            assert await member.reader.end_of(partition) == len(found)
            assert member.reader.read_to(partition) == len(found)
        for entry in member.entries:
            assert isinstance(entry, LogRecord)
            assert entry.appended_at > 1_600_000_000_000
            assert committed(settings, entry.partition).starts == 1
            assert committed(settings, entry.partition).low_water_mark == 0
        await member.reader.close()
        assert committed(settings, 0).starts == 0, "it was not lost, it was given back"

    asyncio.run(scenario())


def test_the_next_owner_goes_on_where_the_commit_says(settings: Settings, publisher: Publisher) -> None:
    """A second member takes half over, each record is read by one of them, and by closing all goes to the other."""

    async def scenario() -> None:
        first, second = Member(settings), Member(settings)
        for uid in uids(20):
            publisher.upload(uid, b"a")
        publisher.flush()
        await first.reader.start()
        await until(lambda: len(first.entries) == 20, first)
        await first.commit()
        assert committed(settings, 1).low_water_mark == len(first.positions(1))
        assert committed(settings, 1).starts == 0, "the mark has moved"
        await second.reader.start()
        await until(lambda: len(second.owned) == 2 and len(first.owned) == 2, first, second)
        assert set(first.dropped) == set(second.owned)
        for uid in uids(40)[20:]:
            publisher.upload(uid, b"b")
        publisher.flush()
        await until(lambda: len(first.entries) + len(second.entries) == 40, first, second)
        await first.commit()
        await first.reader.close()
        await until(lambda: len(second.owned) == 4, second)
        publisher.upload("1.3", b"c")
        publisher.flush()
        await until(lambda: len(first.entries) + len(second.entries) == 41, second)
        await second.reader.close()
        seen = sorted((entry.partition, entry.position) for entry in first.entries + second.entries)
        assert len(seen) == len(set(seen)) == 41

    asyncio.run(scenario())


def test_what_was_offered_last_is_committed_on_revocation(settings: Settings, publisher: Publisher) -> None:
    """An account whose own commit has not come through yet goes with the partition, fenced by the group."""

    async def scenario() -> None:
        member = Member(settings)
        publisher.upload("1.2", b"a")
        publisher.flush()
        await member.reader.start()
        await until(lambda: len(member.entries) == 1 and len(member.owned) == 4, member)
        partition = member.entries[0].partition
        member.reader._owned[partition][0].offered = member.owned[partition].checkpoint()
        assert committed(settings, partition).low_water_mark == 0
        await member.reader.close()
        assert committed(settings, partition).low_water_mark == 1
        assert not member.owned

    asyncio.run(scenario())


def test_nobody_reads_more_than_the_budget(settings: Settings, publisher: Publisher) -> None:
    """Nobody takes what was read: polling goes on, reading stops, and goes on when it is taken."""

    async def scenario() -> None:
        kafka = settings.kafka.model_copy(update={"fetch_maximum": 1024 * 1024})
        member = Member(settings.model_copy(update={"kafka": kafka}))
        for uid in uids(60):
            publisher.upload(uid, bytes(200_000))
        publisher.flush()
        await member.reader.start()
        held = 0
        for _ in range(80):  # past the session's time-out
            await asyncio.sleep(0.1)
            held = member.reader._poller._pushed - member.reader._poller._taken
            assert held < 1024 * 1024 + 16 * 200_100
        assert held >= 1024 * 1024
        assert len(member.owned) == 4
        assert not member.dropped
        await until(lambda: len(member.entries) == 60, member)
        await member.commit()
        await member.reader.close()

    asyncio.run(scenario())


def test_a_record_that_is_none_is_damage(settings: Settings, publisher: Publisher) -> None:
    """Flipped bits, other programs' records and tombstones are handed out as damage; what follows is not hurt."""

    async def scenario() -> None:
        payload = memoryview(b"payload")
        sound = encode_header(Kind.PART, UploadId.of(1, 1, 1), 0, None, [payload]) + b"payload"
        publisher.send(0, sound[:-1] + b"X")
        publisher.send(0, b"another program's")
        publisher.producer.send(settings.kafka.instance_topic, None, key=b"k", partition=0)
        publisher.send(0, sound)
        publisher.flush()
        member = Member(settings)
        await member.reader.start()
        await until(lambda: len(member.entries) == 4, member)
        kinds = [type(entry) for entry in member.entries]
        assert kinds == [DamagedRecord, DamagedRecord, DamagedRecord, LogRecord]
        await member.reader.close()

    asyncio.run(scenario())


def test_retention_that_overtakes_is_counted(
    settings: Settings, publisher: Publisher, kafka: KafkaServers
) -> None:
    """Records deleted before they were read are lost, and the account says how many; done ranges are cut."""

    async def scenario() -> None:
        for _ in range(10):
            publisher.upload("1.2", b"a")
        publisher.flush()
        member = Member(settings)
        await member.reader.start()
        await until(lambda: len(member.entries) == 10, member)
        partition = member.entries[0].partition
        await member.reader.close()
        place = TopicPartition(settings.kafka.instance_topic, partition)
        with closing(kafka.admin()) as admin:
            admin.delete_records({place: 7})
        member = Member(settings)
        await member.reader.start()
        await until(lambda: len(member.entries) == 3 and len(member.owned) == 4, member)
        assert member.owned[partition].lost == 7
        await member.commit()
        assert committed(settings, partition).lost == 7
        assert committed(settings, partition).low_water_mark == 10
        await member.reader.close()

    asyncio.run(scenario())


def test_a_log_made_anew_stops_the_worker(settings: Settings, publisher: Publisher) -> None:
    """An account of more than there is must not be taken for another log's."""

    async def scenario() -> None:
        publisher.upload("1.2", b"a")
        publisher.flush()
        for partition in range(4):
            commit_by_hand(settings, partition, 1000, "dicom-ingest/1 {}")
        member = Member(settings)
        await member.reader.start()
        with pytest.raises(LogRewound, match="made anew"):
            await until(lambda: False, member)
        await member.reader.close()

    asyncio.run(scenario())


def test_a_record_of_a_newer_release_stops_the_worker(settings: Settings, publisher: Publisher) -> None:
    """It is no damage: nothing of it or behind it is handed out, and it is there for the worker that can read it."""

    async def scenario() -> None:
        publisher.send(0, newer_record(UploadId.of(1, 1, 1)))
        publisher.flush()
        member = Member(settings)
        await member.reader.start()
        with pytest.raises(NewerRecord, match="upgrade"):
            await until(lambda: False, member)
        assert not member.entries
        await member.reader.close()
        assert committed(settings, 0).low_water_mark == 0

    asyncio.run(scenario())


def test_a_foreign_commit_stops_the_worker(settings: Settings) -> None:
    """Offsets that somebody has set by hand carry no account."""

    async def scenario() -> None:
        commit_by_hand(settings, 2, 0, "")
        member = Member(settings)
        await member.reader.start()
        with pytest.raises(ForeignCommit, match="partition 2"):
            await until(lambda: False, member)
        await member.reader.close()

    asyncio.run(scenario())


def test_topics_that_break_the_promise_stop_the_start(settings: Settings) -> None:
    """A worker says what is wrong before it joins."""

    async def scenario() -> None:
        log = settings.log.model_copy(update={"partitions": 5})
        with pytest.raises(TopicMismatch, match="5"):
            await Member(settings.model_copy(update={"log": log})).reader.start()

    asyncio.run(scenario())


def test_a_zombies_commit_is_refused(settings: Settings, publisher: Publisher) -> None:
    """A member that the group has given up cannot commit; the account stays the new owner's."""

    async def scenario() -> None:
        for uid in uids(20):
            publisher.upload(uid, b"a")
        publisher.flush()
        zombie, heir = Member(settings), Member(settings)
        await zombie.reader.start()
        await until(lambda: len(zombie.entries) == 20, zombie)
        consumer = zombie.reader._poller._consumer
        # As after a SIGSTOP beyond the session: its heartbeats fail to come, and it knows nothing of it.
        consumer._coordinator._disable_heartbeat()
        poll, consumer.poll = consumer.poll, lambda **_: {}
        await heir.reader.start()
        await until(lambda: len(heir.owned) == 4, heir)
        assert len(zombie.owned) == 4
        with pytest.raises(Unavailable):
            await zombie.commit()
        assert committed(settings, 0).low_water_mark == 0
        assert committed(settings, 0).starts == 2
        consumer.poll = poll
        await until(lambda: len(zombie.owned) == 2, zombie, heir)
        assert len(zombie.dropped) == 4
        await heir.reader.close()
        await zombie.reader.close()

    asyncio.run(scenario())


def test_a_commit_is_none_before_the_coordinator_has_it(settings: Settings, publisher: Publisher) -> None:
    """The client looks for a coordinator that it has lost, and its answer to a commit is then that it has found one."""

    async def scenario() -> None:
        member = Member(settings)
        publisher.upload("1.2", b"a")
        publisher.flush()
        await member.reader.start()
        await until(lambda: len(member.entries) == 1 and len(member.owned) == 4, member)
        partition = member.entries[0].partition
        consumer = member.reader._poller._consumer
        poll, consumer.poll = consumer.poll, lambda **_: {}
        consumer._coordinator._disable_heartbeat()
        consumer._coordinator.coordinator_dead("brokers were out of reach")
        consumer._coordinator.reset_generation()
        with pytest.raises(Unavailable):
            await member.commit()
        assert committed(settings, partition).low_water_mark == 0
        consumer.poll = poll
        await member.reader.close()

    asyncio.run(scenario())


def test_who_comes_back_to_the_group_sets_no_mark_back(settings: Settings, publisher: Publisher) -> None:
    """It was put out while brokers were out of its reach, and learns so from its next join alone: others went on meanwhile."""

    async def scenario() -> None:
        for uid in uids(40):
            publisher.upload(uid, b"a")
        publisher.flush()
        zombie, heir = Member(settings), Member(settings)
        await zombie.reader.start()
        await until(lambda: len(zombie.entries) == 40, zombie)
        consumer = zombie.reader._poller._consumer
        consumer._coordinator._disable_heartbeat()
        poll, consumer.poll = consumer.poll, lambda **_: {}
        await heir.reader.start()
        await until(lambda: len(heir.entries) == 40, heir)
        await heir.commit()
        marks = {number: committed(settings, number).low_water_mark for number in range(4)}
        assert all(marks.values())
        assert not zombie.dropped
        consumer._coordinator.request_rejoin()
        consumer.poll = poll
        await until(
            lambda: len(zombie.dropped) == 4 and len(zombie.owned) == len(heir.owned) == 2, zombie, heir
        )
        assert {number: committed(settings, number).low_water_mark for number in range(4)} == marks
        # What it has now is as the other left it.
        assert {
            number: progress.checkpoint().low_water_mark for number, progress in zombie.owned.items()
        } == {number: marks[number] for number in zombie.owned}
        await heir.reader.close()
        await zombie.reader.close()

    asyncio.run(scenario())


def test_who_was_put_out_of_the_group_claims_nothing(settings: Settings, publisher: Publisher) -> None:
    """It comes back together with another: what it has lost is shared out at once, and not kept for it by nobody."""

    async def scenario() -> None:
        first, second = Member(settings), Member(settings)
        await first.reader.start()
        await until(lambda: len(first.owned) == 4, first)
        # As when the broker has not heard of it for a session; its old self holds the join open as long.
        first.reader._poller._consumer._coordinator.reset_generation()
        await second.reader.start()
        await until(lambda: bool(first.dropped), first, second)
        await until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
        assert first.owned.keys() | second.owned.keys() == set(range(4))
        await first.reader.close()
        await second.reader.close()

    asyncio.run(scenario())


def test_a_topic_that_grows_is_shared_out_anew(
    settings: Settings, kafka: KafkaServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader finds it, and its join outlasts a poll: no member is left without what the join gave it."""
    monkeypatch.setattr(kafka_poller, "_POLL", 1)  # else only one join in thirty ends beside a poll

    async def scenario() -> None:
        first, second = Member(settings), Member(settings)
        await first.reader.start()
        await until(lambda: len(first.owned) == 4, first)
        await second.reader.start()
        await until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)) as admin:
            admin.create_partitions({settings.kafka.instance_topic: 8})
        for member in first, second:
            # Else it is seen within five minutes.
            member.reader._poller._consumer._cluster.request_update()
        await until(lambda: len(first.owned) == len(second.owned) == 4, first, second)
        await first.reader.close()
        await second.reader.close()

    asyncio.run(scenario())
