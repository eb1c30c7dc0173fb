"""Storage commitment where receivers share the log, on a real broker: claimed once, taken over, and read from the start."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition
from structlog.testing import capture_logs

from ingest.commitment import unserved
from ingest.commitment.carrying import carry_forward
from ingest.commitment.engine import Engine
from ingest.commitment.transactions import State
from ingest.commitment.unserved import tell_of_unserved
from ingest.contract.commitments import CommitDecided, CommitProved, Finding, Found, Reference, found_of
from ingest.contract.identifiers import TransactionId
from ingest.contract.kafka import TopicMismatch, client_options
from ingest.contract.kafka_topics import check_topics, create_topics
from ingest.contract.settings import CommitmentSettings, Settings, SourceSettings
from ingest.log.commitment_log import Entry, Location, Written
from ingest.log.commitment_reader import TopicReader
from ingest.log.commitment_topic import KafkaCommitmentLog, _looks
from tests.support.asynchronous import asynchronous
from tests.support.command import run
from tests.support.commitment import CT, Channel, Hand, Modality, Running, open_transaction, proofs_of, until
from tests.support.kafka_log import environment, kafka_settings
from tests.support.kafka_servers import KafkaServers
from tests.support.memory_log import MemoryLog

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]

REFERENCES = [Reference(CT, f"1.2.3.{number}") for number in range(10)]
ID = TransactionId.of("CT1", "1.2.9")
_numbers = itertools.count()
_LOGGED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} ")


def settings_on(kafka: KafkaServers, data: Path) -> Settings:
    settings = kafka_settings(kafka)
    source = SourceSettings(ae_titles=("CT1",), host="127.0.0.1")
    topic = {"commitment_topic": f"commitments-{next(_numbers)}"}
    settings = settings.model_copy(
        update={
            "data": data,
            "commitment": CommitmentSettings(enabled=True),
            "sources": {"ct": source},
            "kafka": settings.kafka.model_copy(update=topic),
        }
    )
    create_topics(settings)
    return settings


class Receiver:
    """One of several, all with one peer and one instance log's worker."""

    def __init__(self, settings: Settings, number: int, modality: Modality, clock: Hand) -> None:
        self.instances = MemoryLog()
        self.instances.partitions = settings.log.partitions
        self.instances.receiver_id = number
        self.log = KafkaCommitmentLog(settings)
        self.modality = modality
        self.taken: set[bytes] = set()
        self.engine = Engine(settings, self.instances, self.log, modality, clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        await self.engine.start()
        try:
            yield self.engine
        finally:
            await self.engine.close()

    async def prove(self) -> None:
        for transaction_id, proved, found in proofs_of(self.instances, lambda _: Finding.PROVED, self.taken):
            await self.log.publish([Written(transaction_id, proved, found)])


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[KafkaCommitmentLog]:
    log = KafkaCommitmentLog(settings)
    try:
        await log.start()
        yield log
    finally:
        await log.close()


async def all_of(log: KafkaCommitmentLog, count: int) -> list[Entry]:
    entries: list[Entry] = []
    while len(entries) < count or not log.caught_up:
        entries += await log.read(1.0)
    return entries


@asynchronous
async def test_records_come_in_order_and_again(kafka: KafkaServers, tmp_path: Path) -> None:
    """What is published is read by all, from the start, and found again by its place."""
    settings = settings_on(kafka, tmp_path)
    found = [Found(CT, "1.2.3", Finding.ABSENT)]
    async with opened(settings) as first:
        place = await first.publish(
            [Written(ID, CommitProved(0, 0, 1, 3, 5), found), Written(ID, CommitDecided(0, 6))]
        )
        entries = await all_of(first, 2)
        assert [entry.commitment for entry in entries] == [CommitProved(0, 0, 1, 3, 5), CommitDecided(0, 6)]
        assert entries[0].absent == 1
        assert entries[1].location == place
        assert first.passed(place)
        assert not first.passed(Location(place.partition, place.position + 1))
        async with opened(settings) as second:
            assert await all_of(second, 2) == entries
            assert found_of(await second.fetch(entries[0].location)) == found
            assert set((await second.threshold()).values()) == {0}


@asynchronous
async def test_the_topic_is_needed_only_for_commitment(kafka: KafkaServers) -> None:
    """Without commitment nobody asks for its topic; with it, a start names what is missing."""
    settings = kafka_settings(kafka, commitment_topic=f"absent-{next(_numbers)}")
    check_topics(settings)
    enabled = settings.model_copy(update={"commitment": CommitmentSettings(enabled=True)})
    with pytest.raises(TopicMismatch, match="does not exist"):
        check_topics(enabled)


@asynchronous
async def test_two_receivers_report_once(kafka: KafkaServers, tmp_path: Path) -> None:
    """Whoever accepted it, one reports; the other knows of it, and a repeated request there is the same one."""
    settings = settings_on(kafka, tmp_path)
    modality, clock = Modality(), Running()
    one, two = (Receiver(settings, number, modality, clock) for number in (1, 2))
    async with one.running() as first, two.running() as second:
        assert await first.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0000
        await until(lambda: second.transactions.get(ID))
        assert await second.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0000
        assert await second.ask("1.2.9", REFERENCES[:5], "CT1", "US", Channel()) == 0x0131
        await one.prove()
        await until(lambda: not len(first.transactions) and not len(second.transactions))
        assert len(modality.reports) == 1
        assert not two.instances.records
        assert await second.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0131


@asynchronous
async def test_another_receiver_takes_over_and_a_restart_forgets_nothing(
    kafka: KafkaServers, tmp_path: Path
) -> None:
    """The one that accepted is gone: the other waits for its claim to lapse, and then reports what was proved."""
    settings = settings_on(kafka, tmp_path)
    modality, clock = Modality(), Running()
    one, two = (Receiver(settings, number, modality, clock) for number in (1, 2))
    async with two.running() as second:
        async with one.running() as first:
            assert await first.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0000
        transaction = None
        while transaction is None:
            await until(lambda: second.transactions.get(ID))
            transaction = second.transactions.get(ID)
        for transaction_id, proved, found in proofs_of(one.instances, lambda _: Finding.PROVED, one.taken):
            await two.log.publish([Written(transaction_id, proved, found)])
        await until(lambda: transaction.round == 0)
        assert not modality.tries
        clock.now += 1000.0
        await until(lambda: not len(second.transactions), second)
    assert len(modality.reports) == 1
    assert len(modality.reports[0].committed) == 10
    three = Receiver(settings, 3, modality, clock)
    async with three.running() as third:
        assert await third.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0131
    assert len(modality.reports) == 1


@asynchronous
async def test_a_requester_that_is_back_at_another_receiver_gets_its_report(
    kafka: KafkaServers, tmp_path: Path
) -> None:
    """Without return address its report goes to the association that is there, though another had claimed it."""
    served = CommitmentSettings(enabled=True, without_address="same-association")
    settings = settings_on(kafka, tmp_path).model_copy(update={"commitment": served})
    transaction_id = TransactionId.of("STRANGER", "1.2.9")
    one, two = (Receiver(settings, number, Modality(), Running()) for number in (1, 2))
    gone, back, later = Channel(answers=[None]), Channel(answers=[None]), Channel()
    async with one.running() as first, two.running() as second:
        assert await first.ask("1.2.9", REFERENCES, "STRANGER", "US", gone) == 0x0000
        await until(lambda: second.transactions.get(transaction_id))
        assert await second.ask("1.2.9", REFERENCES, "STRANGER", "US", back) == 0x0000
        await one.prove()
        transaction = open_transaction(second, transaction_id)
        await until(
            lambda: not back.answers and second.transactions.state_of(transaction) is State.UNDELIVERABLE
        )
        await until(
            lambda: (
                first.transactions.state_of(open_transaction(first, transaction_id)) is State.UNDELIVERABLE
            )
        )
        assert await first.ask("1.2.9", REFERENCES, "STRANGER", "US", later) == 0x0000
        await until(lambda: first.transactions.is_closed(transaction_id))
    assert (len(gone.reports), len(back.reports), len(later.reports)) == (0, 0, 1)
    assert not one.modality.tries + two.modality.tries


@asynchronous
async def test_a_restart_goes_on_without_waiting_for_its_own_claim(
    kafka: KafkaServers, tmp_path: Path
) -> None:
    """On the same data folder a receiver is the same one: what it had claimed before holds back nobody."""
    settings = settings_on(kafka, tmp_path)
    modality, clock = Modality(), Running()
    one = Receiver(settings, 1, modality, clock)
    async with one.running() as first:
        assert await first.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0000
        transaction = first.transactions.get(ID)
        assert transaction is not None
        assert transaction.claim_until > clock.now
    again = Receiver(settings, 2, modality, clock)
    async with again.running() as second:
        for transaction_id, proved, found in proofs_of(one.instances, lambda _: Finding.PROVED, one.taken):
            await again.log.publish([Written(transaction_id, proved, found)])
        await until(lambda: second.transactions.is_closed(ID))
    assert len(modality.reports) == 1


def retention_takes(settings: Settings, engines: Sequence[Engine]) -> None:
    """All that nobody needs any more leaves the topic."""
    needed: dict[int, int] = {}
    for engine in engines:
        for transaction in engine.transactions:
            for place in transaction._locations():
                needed[place.partition] = min(place.position, needed.get(place.partition, place.position))
    admin = KafkaAdminClient(**client_options(settings.kafka))
    try:
        topic = settings.kafka.commitment_topic
        admin.delete_records({TopicPartition(topic, number): needed[number] for number in needed})
    finally:
        admin.close()


@asynchronous
async def test_receivers_carry_open_transactions_forward_together(
    kafka: KafkaServers, tmp_path: Path
) -> None:
    """Both at once, as often as they like: what is open outlives retention whole, and is reported once."""
    settings = settings_on(kafka, tmp_path)
    modality, clock = Modality(), Running()
    modality.answers = [None] * 1000
    uids = [f"1.2.9.{number}" for number in range(12)]
    one, two = (Receiver(settings, number, modality, clock) for number in (1, 2))
    async with one.running() as first, two.running() as second:
        for number, uid in enumerate(uids):
            asked = (first, second)[number % 2]
            assert await asked.ask(uid, REFERENCES, "CT1", "US", Channel()) == 0x0000
        await one.prove()
        await two.prove()
        await until(
            lambda: all(
                len([item for item in engine.transactions if item.decided is not None]) == len(uids)
                for engine in (first, second)
            )
        )
        before = {item.id: item.accepted_location for item in first.transactions}
        for receiver in (one, two):
            receiver.log._retention = 0  # all that there is may leave at any moment
        for _ in range(2):
            await asyncio.gather(
                *(
                    carry_forward(receiver.log, receiver.engine.transactions, clock, receiver.engine._write)
                    for receiver in (one, two)
                )
            )
            # The claim of one keeps the other from it.
            clock.now += 1000.0
        assert all(item.accepted_location > before[item.id] for item in first.transactions)
        end = await one.log.publish([Written(ID, CommitDecided(0, 0))])  # both have read all before it
        await until(lambda: one.log.passed(end) and two.log.passed(end))
        retention_takes(settings, (first, second))
    modality.answers.clear()
    clock.now += 1_000_000.0
    three = Receiver(settings, 3, modality, clock)
    async with three.running() as third:
        assert {item.accepted.transaction_uid for item in third.transactions if item.accepted} == set(uids)
        clock.now += 1000.0  # the claims that it found lapse
        await until(lambda: not len(third.transactions), third)
    assert sorted(report.transaction_uid for report in modality.reports) == sorted(uids)
    assert {len(report.committed) for report in modality.reports} == {10}


@pytest.mark.parametrize(
    ("retention", "looks"),
    [(-1, (60.0, 600.0)), (7 * 86_400_000, (60.0, 600.0)), (1_600_000, (10.0, 100.0))],
)
def test_looks_are_often_enough_for_the_retention(retention: int, looks: tuple[float, float]) -> None:
    """Half of it is for carrying, of which a look that comes late, or fails, must leave enough."""
    assert _looks(retention) == looks


@asynchronous
async def test_a_topic_that_cannot_be_read_to_its_end_is_told(
    kafka: KafkaServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With commitment off, what was read of it is no count of what is open, and is not given as one."""
    settings = settings_on(kafka, tmp_path)
    one = Receiver(settings, 1, Modality(), Running())
    async with one.running() as first:
        assert await first.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0000
    monkeypatch.setattr(unserved, "_SILENCE", 5.0)
    monkeypatch.setattr(TopicReader, "caught_up", False)  # as if brokers kept the rest back
    off = settings.model_copy(update={"commitment": CommitmentSettings(enabled=False)})
    with capture_logs() as lines:
        await asyncio.to_thread(tell_of_unserved, off)
    # The client's library logs, too, where a machine is slow.
    (line,) = (each for each in lines if "open_as_far_as_read" in each)
    assert (line["log_level"], line["open_as_far_as_read"]) == ("warning", 1)


def printed(data: Path, *arguments: str) -> str:
    """What a command says, without the lines that a client's library logs where a machine is slow."""
    lines = run(data, *arguments).out.splitlines()
    return "\n".join(line for line in lines if not _LOGGED.match(line))


@asynchronous
async def test_administrators_see_and_decide(
    kafka: KafkaServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`list`, `show` and `expire` work with no receiver; the next one finds it expired."""
    settings = settings_on(kafka, tmp_path)
    modality, clock = Modality(), Running()
    one = Receiver(settings, 1, modality, clock)
    async with one.running() as first:
        assert await first.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0000
    for key, value in environment(settings).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("DICOM_INGEST_COMMITMENT__ENABLED", "true")
    with capture_logs() as lines:
        off = CommitmentSettings(enabled=False)
        await asyncio.to_thread(tell_of_unserved, settings.model_copy(update={"commitment": off}))
    assert [line["open_transactions"] for line in lines if "open_transactions" in line] == [1]
    listed = json.loads(printed(tmp_path, "commitments", "list", "--json"))
    assert [(found["transaction"], found["state"]) for found in listed] == [(ID.hex(), "proving")]
    expired = await asyncio.to_thread(run, tmp_path, "commitments", "expire", "--yes", ID.hex())
    assert expired.code == 0
    assert printed(tmp_path, "commitments", "list") == "no open transactions"
    two = Receiver(settings, 2, modality, clock)
    async with two.running() as second:
        assert not len(second.transactions)
        assert await second.ask("1.2.9", REFERENCES, "CT1", "US", Channel()) == 0x0131
