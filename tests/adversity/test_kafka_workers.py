"""`dicom-ingest worker` processes in a consumer group on a real broker: kills, zombies, and workers that come and go."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info

from ingest.contract.records import Kind, Place, decode, outcome_of
from ingest.contract.running import running_processes
from ingest.contract.settings import Settings
from tests.support.datasets import data_set_bytes
from tests.support.kafka_records import Publisher, expected_places, kafka_settings
from tests.support.kafka_servers import KafkaServers
from tests.support.pipeline import CORPUS
from tests.support.scu import ct_data_set
from workers.cli.status_report import read_report
from workers.log.commit_metadata import OffsetCheckpoint, decode_metadata

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("kafka")]
numbers = itertools.count()


class Group:
    """Worker processes of one log, each with its output in one file, ended by their process ids."""

    def __init__(self, settings: Settings, config: Path) -> None:
        self.settings = settings
        self.config = config
        self.output = config.parent / "workers.log"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.publisher = Publisher(settings)

    def start(self, module: str = "ingest", **environment: str) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", module, "worker", "--config", str(self.config)],
                stdout=output, stderr=output, start_new_session=True, env={**os.environ, **environment},
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGKILL to it and its codecs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        self.workers.remove(worker)

    def stop(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGTERM, and it must end well, or not have begun."""
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) in {0, -signal.SIGTERM}, self.said()
        self.workers.remove(worker)

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        self.publisher.close()

    def said(self) -> str:
        return self.output.read_text()[-6000:]

    def told(self) -> int:
        """How many partitions the worker processes say they have."""
        return sum(len(found.partitions) for found in running_processes(self.settings.data))

    def accounts(self) -> dict[int, OffsetCheckpoint]:
        kafka = self.settings.kafka
        with closing(
            KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=kafka.group)
        ) as client:
            places = [
                TopicPartition(kafka.instance_topic, number) for number in range(self.settings.log.partitions)
            ]
            found = {place.partition: client.committed(place, metadata=True) for place in places}
        return {
            number: decode_metadata(number, commit.offset, commit.metadata)
            for number, commit in found.items()
            if commit is not None
        }

    def counters(self) -> Counter[Place]:
        return sum((Counter(account.counters) for account in self.accounts().values()), Counter())

    def settle(self, timeout: float = 240) -> None:
        """Wait until the accounts count everything that was published."""
        deadline = time.monotonic() + timeout
        while self.counters().total() < len(self.publisher.published):
            assert time.monotonic() < deadline, (self.counters(), len(self.publisher.published), self.said())
            for worker in self.workers:
                assert worker.poll() is None, self.said()
            time.sleep(0.2)

    def objects(self) -> dict[str, Path]:
        store = self.settings.data / "store"
        return {path.stem: path for path in store.glob("[0-9a-f][0-9a-f][0-9a-f]/*.dcm")}

    def outcomes(self) -> dict[bytes, set[Place]]:
        """The places announced of each upload id."""
        kafka = self.settings.kafka
        places: dict[bytes, set[Place]] = {}
        with closing(KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)) as client:
            parts = [TopicPartition(kafka.outcome_topic, n) for n in range(self.settings.log.partitions)]
            client.assign(parts)
            client.seek_to_beginning(*parts)
            ends = client.end_offsets(parts)
            while any(client.position(part) < ends[part] for part in parts):
                for records in client.poll(timeout_ms=200).values():
                    for found in records:
                        record = decode(found.value)
                        assert record.kind is Kind.OUTCOME
                        places.setdefault(bytes(record.upload_id), set()).add(outcome_of(record).place)
        return places

    def check(self) -> None:
        """Every instance at exactly one place, once, as one undisturbed worker would have had it."""
        published = self.publisher.published
        assert self.counters() == expected_places(published), self.said()
        assert self.objects().keys() == {upload.uid for upload in published}
        outcomes = self.outcomes()
        assert outcomes.keys() == {bytes(upload.upload_id) for upload in published}
        assert all(len(places) == 1 for places in outcomes.values())
        first = {upload.uid: upload for upload in reversed(published)}
        for uid, path in self.objects().items():
            assert first[uid].upload_id.hex().encode() in path.read_bytes()[:40_000], (
                "the first of a UID stays"
            )


@pytest.fixture
def group(kafka: KafkaServers, tmp_path: Path) -> Iterator[Group]:
    settings, config = kafka_settings(
        kafka, tmp_path, f"workers-{next(numbers)}", worker={"memory_limit": 1 << 20}
    )
    found = Group(settings, config)
    yield found
    found.close()


def until(condition: Callable[[], bool], group: Group, timeout: float = 240) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, group.said()
        time.sleep(0.05)


def publish_some(group: Group, rng: random.Random, count: int) -> None:
    """Instances of all sizes, some resent, some resent altered, and an orphan now and then."""
    for _ in range(count):
        uid = f"1.2.{rng.randint(0, 10**9) if rng.random() < 0.6 else rng.randint(0, 40)}"
        data = ct_data_set(uid, rng.choice((3000, 3000, 40_000, 300_000, 1_500_000)))
        if rng.random() < 0.2:
            data = data[:-1] + b"\xee"
        group.publisher.upload(uid, data)
        if rng.random() < 0.05:
            group.publisher.orphan(uid)
    group.publisher.flush()


def test_the_corpus_ends_in_the_store(group: Group) -> None:
    """Real instances of many kinds, from records to objects that pydicom reads, by one worker that stops well."""
    files = [path for path in sorted(CORPUS.glob("*.dcm")) if path.read_bytes()[128:132] == b"DICM"][:40]
    sent = set()
    for path in files:
        meta = read_file_meta_info(path)
        uid = str(meta.MediaStorageSOPInstanceUID)
        if uid in sent:
            continue
        sent.add(uid)
        group.publisher.upload(
            uid,
            data_set_bytes(path),
            syntax=str(meta.TransferSyntaxUID),
            sop_class=str(meta.MediaStorageSOPClassUID),
        )
    group.publisher.flush()
    worker = group.start()
    group.settle()
    group.stop(worker)
    counters = group.counters()
    assert counters.total() == len(sent)
    assert counters[Place.STORED] > len(sent) / 2
    for path in group.objects().values():
        assert dcmread(path).SOPInstanceUID == path.stem
    assert not [
        path
        for path in (group.settings.data / "scratch").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    ]


def test_a_killed_workers_partitions_go_to_another(group: Group) -> None:
    """kill -9 in the midst of work: the other takes over, nothing is lost, nothing is counted twice."""
    rng = random.Random(1)
    first = group.start()
    publish_some(group, rng, 60)
    until(lambda: group.counters().total() > 10, group)
    group.kill(first)
    second = group.start()
    publish_some(group, rng, 20)
    group.settle()
    group.stop(second)
    group.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"),
    [({}, -signal.SIGKILL), ({"POISON_RAISES": "yes"}, 1)],
    ids=["killed", "error"],
)
def test_a_deadly_instance_is_found_out(group: Group, how: dict[str, str], code: int) -> None:
    """It takes each process with it; after three in vain its tries are marked, and then it must go on without harm."""
    poison = {"POISON": "1.2.7", **how}
    for number in range(20):
        group.publisher.upload(f"1.2.{number}", ct_data_set(f"1.2.{number}", 3000))
    group.publisher.flush()
    deaths = 0
    deadline = time.monotonic() + 240
    worker = group.start("tests.support.poisoned_worker", **poison)
    while group.counters().total() < 20:
        assert time.monotonic() < deadline, (deaths, group.accounts(), group.said())
        if worker.poll() is not None:
            assert worker.returncode == code, group.said()
            deaths += 1
            assert deaths <= 9, (group.accounts(), group.said())
            group.kill(worker)  # its codecs
            worker = group.start("tests.support.poisoned_worker", **poison)
        time.sleep(0.1)
    group.stop(worker)
    group.check()
    assert 6 <= deaths <= 9, "three in vain and its three tries; three more when something moved before"
    assert all(not account.attempts for account in group.accounts().values())


def test_what_never_ends_lets_go_of_the_log(kafka: KafkaServers, tmp_path: Path) -> None:
    """Uploads without END hold the low-water mark only as long as a receiver might be at work on them."""
    settings, config = kafka_settings(
        kafka, tmp_path, "orphans", receiver={"stall_timeout": 1.0}, client={"delivery_timeout": 1.0}
    )
    group = Group(settings, config)
    try:
        for number in range(8):
            group.publisher.orphan(f"1.3.{number}")
            group.publisher.upload(f"1.2.{number}", ct_data_set(f"1.2.{number}", 3000))
        group.publisher.flush()
        worker = group.start()
        group.settle()
        marks = [account.low_water_mark for account in group.accounts().values()]
        assert sum(marks) < 16
        until(lambda: sum(account.low_water_mark for account in group.accounts().values()) == 16, group)
        group.stop(worker)
        group.check()
        assert all(not account.done_ranges for account in group.accounts().values())
    finally:
        group.close()


def test_a_worker_outlives_its_broker(tmp_path: Path) -> None:
    """The broker dies and comes back under load: no restart of the worker, exact accounts; without it, a clean stop."""
    with KafkaServers(tmp_path / "kafka") as kafka:
        settings, config = kafka_settings(
            kafka, tmp_path, "outage", worker={"stop_timeout": 10.0}, client={"delivery_timeout": 2.0}
        )
        group = Group(settings, config)
        try:
            worker = group.start()
            rng = random.Random(2)
            publish_some(group, rng, 40)
            until(lambda: group.counters().total() > 3, group)
            kafka.nodes[0].kill()
            time.sleep(8)  # past the session's time-out
            kafka.nodes[0].start()
            kafka.wait_complete()
            publish_some(group, rng, 20)
            group.settle()
            assert worker.poll() is None
            kafka.nodes[0].kill()
            group.stop(worker)
            kafka.nodes[0].start()
            kafka.wait_complete()
            second = group.start()
            publish_some(group, rng, 5)
            group.settle()
            group.stop(second)
            group.check()
        finally:
            group.close()


def test_a_static_members_partitions_wait_for_it(kafka: KafkaServers, tmp_path: Path) -> None:
    """Stopped and started within the session it has the same partitions, and the other has never been asked."""
    settings, config = kafka_settings(kafka, tmp_path, "static", client={"session_timeout": 300})
    group = Group(settings, config)
    name = "DICOM_INGEST_KAFKA__GROUP_INSTANCE_ID"
    try:
        first = group.start(**{name: "one"})
        second = group.start(**{name: "two"})

        def shares() -> dict[str, tuple[int, ...]]:
            return {worker.name: worker.partitions for worker in read_report(settings, quick=True).workers}

        until(lambda: sorted(map(len, shares().values())) == [2, 2], group)
        before = shares()
        assert before.keys() == {"one", "two"}
        until(lambda: group.told() == 4, group)
        group.stop(first)
        first_again = group.start(**{name: "one"})
        until(lambda: group.told() == 4, group)
        assert shares() == before
        publish_some(group, random.Random(3), 20)
        group.settle()
        group.stop(first_again)
        group.stop(second)
        group.check()
    finally:
        group.close()


def test_two_members_of_one_name(kafka: KafkaServers, tmp_path: Path) -> None:
    """The group lets the younger one have it; the older one ends with its next commit, and says why."""
    settings, config = kafka_settings(kafka, tmp_path, "namesakes")
    group = Group(settings, config)
    name = {"DICOM_INGEST_KAFKA__GROUP_INSTANCE_ID": "one"}
    try:
        older = group.start(**name)
        until(lambda: group.told() == 4, group)
        younger = group.start(**name)
        until(lambda: group.told() == 8, group)
        publish_some(group, random.Random(4), 5)
        assert older.wait(60) == 1, group.said()
        group.kill(older)  # its codecs
        ends = [line for line in group.output.read_text().splitlines() if '"worker ends"' in line]
        assert ["FencedInstanceIdError" in line for line in ends] == [True], group.said()
        group.settle()
        group.stop(younger)
        group.check()
    finally:
        group.close()


@pytest.mark.long
def test_leaders_may_die_under_load(kafka_three: KafkaServers, tmp_path: Path) -> None:
    """Replication 3, one broker after the other killed and started again, coordinators and leaders: exact accounts."""
    replicas = {"replication_factor": 3, "min_insync_replicas": 2}
    settings, config = kafka_settings(kafka_three, tmp_path, "leaders", client=replicas)
    group = Group(settings, config)
    try:
        workers = [group.start(), group.start()]
        until(lambda: len(running_processes(settings.data)) == 2 and group.told() == 4, group)
        rng = random.Random(4)
        for node in kafka_three.nodes:
            publish_some(group, rng, 30)
            node.kill()
            publish_some(group, rng, 30)
            time.sleep(3)
            node.start()
            kafka_three.wait_complete()
        group.settle()
        for worker in workers:
            assert worker.poll() is None, group.said()
            group.stop(worker)
        group.check()
    finally:
        group.close()


@pytest.mark.parametrize("seed", [1])
def test_workers_come_and_go_while_records_flow(group: Group, seed: int) -> None:
    """Added, stopped, killed, and stopped beyond the session to wake up as zombies: exact accounts at the end."""
    churn(group, random.Random(seed), 8)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 105))
def test_workers_come_and_go_for_long(group: Group, seed: int) -> None:
    """The same with other seeds, longer."""
    churn(group, random.Random(seed), 30)


def churn(group: Group, rng: random.Random, rounds: int) -> None:
    zombies: list[tuple[float, subprocess.Popen[bytes]]] = []
    stay = group.start()
    acts = ["add", "zombie", "kill", "stop"]
    for number in range(rounds):
        publish_some(group, rng, 12)
        others = [one for one in group.workers if one is not stay and one not in [z for _, z in zombies]]
        act = acts[number % 4] if number < 4 else rng.choice(acts)
        if act == "add" or not others:
            group.start()
        elif act == "kill":
            group.kill(rng.choice(others))
        elif act == "stop":
            group.stop(rng.choice(others))
        else:
            zombie = rng.choice(others)
            os.killpg(zombie.pid, signal.SIGSTOP)
            zombies.append((time.monotonic() + 8, zombie))  # the session's time-out is six
        time.sleep(rng.uniform(0.2, 1.5))
        report = read_report(group.settings, quick=True)
        assert report.received == len(group.publisher.published), (report, group.said())
        for wakes, zombie in list(zombies):
            if time.monotonic() > wakes:
                os.killpg(zombie.pid, signal.SIGCONT)
                zombies.remove((wakes, zombie))
    for wakes, zombie in zombies:
        time.sleep(max(0.0, wakes - time.monotonic()))
        os.killpg(zombie.pid, signal.SIGCONT)
    publish_some(group, rng, 10)
    group.settle()
    for worker in list(group.workers):
        group.stop(worker)
    group.check()
