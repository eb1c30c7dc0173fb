"""Thousands of seeded schedules of a consumer group: workers that come, go, die and wake up as zombies.

Reassembler, account, commit metadata and marks are the real ones. The log, a broker that keeps one commit a
partition and refuses those of older generations, and a store that creates and never replaces, outlive the
workers. Meanwhile receivers append interleaved uploads, retransmit, and die. An auditor who knows what was
sent checks each commit, and at the end everything.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import xxhash

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, Outcome, Place, decode, encode_header
from tests.support.asynchronous import at_once
from workers.dataset.payload import BLOCK, MemoryPayload
from workers.log import offset_progress
from workers.log.commit_metadata import OffsetCheckpoint, decode_metadata, encode_metadata
from workers.log.entries import LogRecord
from workers.log.offset_progress import FRUITLESS, CommittedMarks, OffsetProgress, given_back, started
from workers.log.reassembly import Reassembler
from workers.log.scratch import ScratchPayload
from workers.log.upload import Upload

T = TypeVar("T")
PARTITIONS = 2
RECORDS = 70  # of each partition, about
PART = 40  # bytes
MEMORY_LIMIT = 300  # bytes
GAP = 100.0  # seconds between two records of one upload, at most
EXPIRE_AFTER = 2 * GAP
ATTEMPTS = 2  # after which a poisonous upload is left alone


class Died(Exception):  # noqa: N818 - an event of the simulation, not an error
    """A worker process is gone."""


class ScratchFile(ScratchPayload):
    """A payload in the scratch of one life."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(name, Path(), len(data))
        self._data = MemoryPayload([memoryview(data)])

    def read(self, offset: int, length: int) -> memoryview:
        return self._data.read(offset, length)

    def blocks(self, size: int = BLOCK) -> Iterator[memoryview]:
        return self._data.blocks(size)


class Scratch:
    """Files in memory: real ones would cost a hundredfold."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def write(self, name: str, offset: int, pieces: Iterable[bytes | memoryview]) -> None:
        before = self.files[name][:offset] if offset else b""
        assert len(before) == offset
        self.files[name] = before + b"".join(pieces)

    def spares(self, size: int) -> bool:
        return True

    def payload(self, name: str, size: int) -> ScratchFile:
        assert len(self.files[name]) == size
        return ScratchFile(name, self.files[name])

    async def remove(self, name: str) -> None:
        self.files.pop(name, None)


class Sent(NamedTuple):
    """A completely received upload, as the auditor knows it."""

    uid: str
    data: bytes
    first: int  # position of its first record


class Log:
    """One partition, to which receivers append while workers read."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.rng = rng
        self.number = number
        self.records: list[tuple[bytes, int]] = []  # and its append time, ms
        self.sent: dict[UploadId, Sent] = {}
        self.ends: dict[int, UploadId] = {}  # by position
        self.poison: set[UploadId] = set()
        # Each with the time of its last record, and whether its sender takes all the time there is.
        self.open: list[tuple[float, Iterator[None], bool]] = []
        self.sequence = 0
        self.skew = 0.0  # of the leader's clock, seconds

    def step(self, now: float) -> None:
        """One record of some upload; those that would wait too long go first, as receivers give them up."""
        rng = self.rng
        if rng.random() < 0.03:
            self.skew = rng.choice((-3600.0, 0.0, 3600.0))  # another leader
        self.now = now
        if self.open and rng.random() < 0.03:
            self.open.pop(rng.randrange(len(self.open)))  # its receiver has died
            return
        late = [one for one in self.open if now - one[0] > GAP * 0.8]
        ready = late or [one for one in self.open if not one[2]]
        if not late and (not ready or rng.random() < 0.4) and len(self.records) < RECORDS:
            self.sequence += 1
            steps = self.upload(UploadId.of(self.number, 1, self.sequence))
        elif ready:
            chosen = rng.choice(ready)
            self.open.remove(chosen)
            if now - chosen[0] > GAP:
                return  # as the receiver does: it refuses to go on
            steps = chosen[1]
        else:
            return
        if next(steps, True) is None:
            self.open.append((now, steps, rng.random() < 0.2))

    @property
    def is_written(self) -> bool:
        return len(self.records) >= RECORDS and not self.open

    def append(
        self, kind: Kind, upload_id: UploadId, index: int, instance: Instance | None, payload: bytes
    ) -> None:
        record = encode_header(kind, upload_id, index, instance, [memoryview(payload)]) + payload
        self.records.append((record, int(1000 * (1e6 + self.now + self.skew))))

    def upload(self, upload_id: UploadId) -> Iterator[None]:
        rng = self.rng
        uid = f"1.{self.number}.{rng.randint(0, 5)}"
        size = rng.choice((3, 20, 40, 100, 200))
        data = bytes([rng.randint(0, 1)]) * size  # resent, or another one under the same UID
        seal = xxhash.xxh3_128_digest(data)
        instance = Instance("1.2", uid, "1.2.1", len(data), seal, "A", "B", "::1", 1)
        if rng.random() < 0.02:
            self.poison.add(upload_id)
        first = len(self.records)
        if size <= PART:
            self.seal(upload_id, Sent(uid, data, first))
            self.append(Kind.INSTANCE, upload_id, 1, instance, data)
            return
        parts = [data[at : at + PART] for at in range(0, size, PART)]
        for index, part in enumerate(parts):
            self.append(Kind.PART, upload_id, index, None, part)
            yield
            if rng.random() < 0.03:
                self.append(Kind.ABORT, upload_id, 0, None, b"")
                return
        self.seal(upload_id, Sent(uid, data, first))
        self.append(Kind.END, upload_id, len(parts), instance, b"")

    def seal(self, upload_id: UploadId, sent: Sent) -> None:
        self.sent[upload_id] = sent
        self.ends[len(self.records)] = upload_id


class Store:
    """Create-only: the first under a key stays."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[UploadId, bytes]] = {}
        self.settled: set[UploadId] = set()  # durable at some place

    def place(self, upload: Upload) -> Outcome:
        data = b"".join(bytes(block) for block in upload.payload.blocks())
        assert not upload.damage
        assert xxhash.xxh3_128_digest(data) == upload.instance.seal
        uid = upload.instance.sop_instance_uid
        owner, found = self.objects.setdefault(uid, (upload.upload_id, data))
        self.settled.add(upload.upload_id)
        return Outcome(
            uid, self.judge(upload.upload_id, owner, data, found), "", "", "", "", 1, upload.end_position
        )

    @staticmethod
    def judge(mine: UploadId, owner: UploadId, data: bytes, found: bytes) -> Place:
        if owner == mine:
            return Place.STORED
        return Place.DUPLICATE if data == found else Place.CONFLICT


class Broker:
    """The commits of the group; who may commit is known by generation."""

    def __init__(self, logs: list[Log], store: Store) -> None:
        self.logs = logs
        self.store = store
        self.commits: list[tuple[int, str] | None] = [None] * PARTITIONS
        self.generation = [0] * PARTITIONS
        self.outcomes: list[tuple[UploadId, Outcome]] = []

    def committed(self, partition: int) -> OffsetCheckpoint:
        commit = self.commits[partition]
        if commit is None:
            return OffsetCheckpoint(partition=partition)
        return decode_metadata(partition, *commit)

    def commit(self, checkpoint: OffsetCheckpoint, generation: int) -> bool:
        partition = checkpoint.partition
        if generation != self.generation[partition]:
            return False
        self.audit(checkpoint)
        self.commits[partition] = (checkpoint.low_water_mark, encode_metadata(checkpoint))
        return True

    def audit(self, checkpoint: OffsetCheckpoint) -> None:
        log = self.logs[checkpoint.partition]
        for upload_id, sent in log.sent.items():
            if sent.first < checkpoint.low_water_mark and upload_id not in self.store.settled:
                raise AssertionError(f"the mark {checkpoint.low_water_mark} passes {sent.first}")
        counted = 0
        for position, upload_id in log.ends.items():
            done = any(first <= position <= last for first, last in checkpoint.done_ranges)
            assert not done or upload_id in self.store.settled, f"{position} is not done"
            counted += done or position < checkpoint.low_water_mark
        assert checkpoint.settled == counted, "the counters are not those of the uploads done"


class Life:
    """One worker's ownership of one partition, or what it takes for that."""

    def __init__(self, broker: Broker, partition: int) -> None:
        self.broker = broker
        self.generation = broker.generation[partition]
        self.log = broker.logs[partition]
        checkpoint = started(broker.committed(partition))
        assert broker.commit(checkpoint, self.generation)
        self.progress = OffsetProgress(checkpoint, len(self.log.records))
        self.marks = CommittedMarks(self.progress)
        self.scratch = Scratch()
        self.reassembler = Reassembler({partition: self.progress}, self.scratch, MEMORY_LIMIT, EXPIRE_AFTER)
        self.in_hand: list[Upload] = []
        self.position = checkpoint.low_water_mark
        self.offered = checkpoint  # what a revocation commits
        self.before = checkpoint

    def step(self, rng: random.Random, now: float) -> bool:
        """Do something; False when a commit was refused.

        Raises:
            Died: the whole worker has.
        """
        choice = rng.random()
        if choice < 0.5 and self.position < len(self.log.records) and not self.progress.is_full:
            record, appended_at = self.log.records[self.position]
            entry = LogRecord(self.position, self.position + 1, self.log.number, decode(record), appended_at)
            self.in_hand += at_once(self.reassembler.add(entry, now))
            self.position += 1
            assert self.reassembler.held <= MEMORY_LIMIT
        elif choice < 0.85 and self.in_hand:
            return self.place(rng)
        elif choice < 0.9:
            return self.commit(rng)
        elif self.position == len(self.log.records):
            waits = self.reassembler.waits_since(self.log.number)
            if now - waits > EXPIRE_AFTER:
                self.in_hand += at_once(self.reassembler.expire(self.log.number, now))
        return True

    def place(self, rng: random.Random) -> bool:
        upload = self.next_of(rng)
        if self.marks.mark(upload.upload_id) and not self.commit(rng):
            return False
        tries = self.progress.attempts(upload.upload_id)
        if upload.upload_id in self.log.poison and tries < ATTEMPTS:
            raise Died
        outcome = self.broker.store.place(upload)
        maybe_die(rng)
        self.marks.clear(upload.upload_id)
        self.progress.settle(upload.upload_id, outcome)
        self.in_hand.remove(upload)
        at_once(self.reassembler.release(upload))
        return True

    def next_of(self, rng: random.Random) -> Upload:
        """Any; of one SOP Instance UID the first; of a careful partition the very first."""
        chosen = self.in_hand[0] if self.progress.is_careful else rng.choice(self.in_hand)
        uid = chosen.instance.sop_instance_uid
        return next(upload for upload in self.in_hand if upload.instance.sop_instance_uid == uid)

    def commit(self, rng: random.Random) -> bool:
        settled = self.progress.settled()
        self.broker.outcomes += settled
        maybe_die(rng)
        if settled:
            self.progress.count(settled, 0)
        checkpoint = self.progress.changed()
        if checkpoint is None:
            return True
        assert isinstance(checkpoint, OffsetCheckpoint)
        self.before, self.offered = self.offered, checkpoint
        accepted = self.broker.commit(checkpoint, self.generation)
        maybe_die(rng)
        if accepted:
            self.progress.written(checkpoint)
        return accepted


def maybe_die(rng: random.Random) -> None:
    if rng.random() < 0.005:
        raise Died


def simulate(seed: int) -> Counter[str]:
    rng = random.Random(seed)
    logs = [Log(rng, number) for number in range(PARTITIONS)]
    store = Store()
    broker = Broker(logs, store)
    owners: list[Life | None] = [None] * PARTITIONS
    zombies: list[Life] = []
    seen: Counter[str] = Counter()
    now = 0.0
    steps = 0
    while True:
        steps += 1
        assert steps < 60_000, "no end"
        now += rng.choice((0.0, 0.1, 1.0, 3.0))
        calm = steps > 20_000
        for log in logs:
            if rng.random() < 0.3:
                log.step(now)
        partition = rng.randrange(PARTITIONS)
        owner = owners[partition]
        if owner is None:
            owners[partition] = Life(broker, partition)
            continue
        if rng.random() < 0.01 and not calm:
            seen[rebalance(rng, broker, partition, owner, zombies)] += 1
            owners[partition] = None
            continue
        if zombies and rng.random() < 0.2:
            zombie = rng.choice(zombies)
            try:
                alive = zombie.step(rng, now)
            except Died:
                alive = False
            if not alive:
                zombies.remove(zombie)
                seen["zombies refused"] += 1
        try:
            if not owner.step(rng, now):
                raise AssertionError("an owner's commit was refused")
        except Died:
            seen["deaths"] += 1
            owners[partition] = None
            broker.generation[partition] += 1
            continue
        if (
            all(log.is_written for log in logs)
            and all(found is not None and is_finished(found) for found in owners)
            and steps > 300
        ):
            break
    check(broker, logs, store)
    return seen


def rebalance(
    rng: random.Random,
    broker: Broker,
    partition: int,
    owner: Life,
    zombies: list[Life],
) -> str:
    """Another gets the partition: asked for, or because its owner was not heard of for too long."""
    if rng.random() < 0.6:
        broker.commit(given_back(owner.offered), owner.generation)
        if rng.random() < 0.2:
            broker.commit(
                given_back(owner.before), owner.generation
            )  # one that was on its way, and came late
        how = "revoked"
    else:
        zombies.append(owner)
        how = "lost"
    broker.generation[partition] += 1
    return how


def is_finished(life: Life) -> bool:
    checkpoint = life.broker.committed(life.log.number)
    return checkpoint.low_water_mark == len(life.log.records)


def check(broker: Broker, logs: list[Log], store: Store) -> None:
    for log in logs:
        checkpoint = broker.committed(log.number)
        assert not checkpoint.done_ranges
        assert not checkpoint.done
        assert not checkpoint.attempts
        expected: Counter[Place] = Counter()
        for upload_id, sent in log.sent.items():
            owner, found = store.objects[sent.uid]
            expected[store.judge(upload_id, owner, sent.data, found)] += 1
        assert checkpoint.counters == expected, "received is not the sum of the places"
        assert checkpoint.settled == len(log.sent)
    acknowledged = {upload_id for log in logs for upload_id in log.sent}
    assert store.settled == acknowledged, "an incomplete upload was placed, or an acknowledged one was not"
    assert {upload_id for upload_id, _ in broker.outcomes} == acknowledged
    places: dict[UploadId, Place] = {}
    for upload_id, outcome in broker.outcomes:
        assert places.setdefault(upload_id, outcome.place) is outcome.place, "two outcomes that differ"


@pytest.mark.parametrize("block", range(2))
def test_a_group_counts_each_acknowledged_upload_once(block: int) -> None:
    """Nothing acknowledged is lost, nothing is stored twice, no commit passes what is open, counters are exact."""
    simulate_all(range(block * 100, block * 100 + 100))


def test_a_commit_without_room_counts_the_rest_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where a commit has room for a few ranges only, as beside a dead store that many uploads wait for."""
    monkeypatch.setattr(offset_progress, "ROOM", 150)
    simulate_all(range(1000, 1100))


@pytest.mark.long
@pytest.mark.parametrize("block", range(21))
def test_a_group_counts_each_acknowledged_upload_once_at_length(block: int) -> None:
    """The same with twenty thousand seeds more."""
    simulate_all(range(block * 1000, block * 1000 + 1000))


def simulate_all(seeds: range) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            seen += simulate(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert all(seen[what] > 50 for what in ("deaths", "revoked", "lost", "zombies refused")), seen


def test_the_poisonous_one_alone_is_blamed() -> None:
    """An upload that ends every process: after three starts in vain each try is marked, and only its tries grow."""
    rng = random.Random(1)
    log = Log(rng, 0)
    log.now = 0.0
    for sequence in range(20):
        for _ in log.upload(UploadId.of(0, 1, sequence)):
            pass
    log.poison = {next(upload_id for upload_id, sent in log.sent.items() if sent.first > 5)}
    broker = Broker([log, Log(rng, 1)], Store())
    deaths = 0
    life = Life(broker, 0)
    while not is_finished(life):
        try:
            life.step(rng, 0.0)
        except Died:
            deaths += 1
            life = Life(broker, 0)
        assert broker.committed(0).attempts.keys() <= {*map(bytes, log.poison), *map(bytes, log.sent)}
    assert FRUITLESS + ATTEMPTS <= deaths <= 2 * FRUITLESS + ATTEMPTS
    assert broker.committed(0).settled == len(log.sent)
