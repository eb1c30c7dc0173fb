"""Thousands of seeded schedules of a partition: receivers that die, workers that die, replays, damage.

The reassembler, the account and the commit are the real ones; log, store, outcome log and checkpoint are
lists that outlive a crash. Afterwards an auditor who knows what was sent counts.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import xxhash

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, Outcome, Place, decode, encode_header
from tests.support.asynchronous import at_once
from workers.log.checkpoint import Announced, Progress, commit
from workers.log.entries import DamagedRecord, Entry, LogRecord
from workers.log.reassembly import Reassembler
from workers.log.scratch import ScratchPayload
from workers.log.upload import Upload

T = TypeVar("T")
MEMORY_LIMIT = 300


class Crash(Exception):  # noqa: N818 - an event of the simulation, not an error
    """The worker process is gone."""


class Scratch:
    """Real files would cost a thousandfold; the payloads read through these instead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: set[str] = set()

    async def write(self, name: str, offset: int, pieces: Iterable[bytes | memoryview]) -> None:
        self.files.add(name)
        with (self.folder / name).open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.writelines(pieces)

    def spares(self, size: int) -> bool:
        return True

    def payload(self, name: str, size: int) -> ScratchPayload:
        return ScratchPayload(name, self.folder / name, size)

    async def remove(self, name: str) -> None:
        self.files.discard(name)
        (self.folder / name).unlink(missing_ok=True)


class Log:
    """One partition as its receivers wrote it, and what the auditor knows of it."""

    def __init__(self, rng: random.Random, damage: bool) -> None:
        self.rng = rng
        self.damage = damage
        self.records: list[bytes] = []
        self.written: list[tuple[Kind, UploadId, int]] = []  # true kind, upload id and payload size of each
        self.sent: dict[UploadId, bytes] = {}
        self.orphans: set[UploadId] = set()
        self.hurt: set[UploadId] = set()
        self.damaged: set[int] = set()
        for epoch in range(1, rng.randint(2, 4)):
            self.receiver(epoch)
        self.append(Kind.EPOCH, UploadId.of(1, 99, 0))

    def append(
        self,
        kind: Kind,
        upload_id: UploadId,
        index: int = 0,
        instance: Instance | None = None,
        payload: bytes = b"",
    ) -> None:
        record = bytearray(encode_header(kind, upload_id, index, instance, [memoryview(payload)]) + payload)
        if self.damage and kind is not Kind.EPOCH and self.rng.random() < 0.1:
            at = self.rng.randrange(len(record)) if self.rng.random() < 0.5 else self.rng.randrange(8, 12)
            record[at] ^= 1 << self.rng.randrange(8)
            self.damaged.add(len(self.records))
            self.hurt.add(upload_id)
        self.records.append(bytes(record))
        self.written.append((kind, upload_id, len(payload)))

    def receiver(self, epoch: int) -> None:
        self.append(Kind.EPOCH, UploadId.of(1, epoch, 0))
        uploads = [self.upload(UploadId.of(1, epoch, sequence)) for sequence in range(self.rng.randint(0, 8))]
        dies = self.rng.random() < 0.7
        while uploads:
            if dies and self.rng.random() < 0.05:
                break
            steps = self.rng.choice(uploads)
            if next(steps, None) is None:
                uploads.remove(steps)

    def upload(self, upload_id: UploadId) -> Iterator[bool]:
        """One sender; each step appends a record."""
        rng = self.rng
        data = rng.randbytes(rng.choice((0, 10, 40, 200)))
        seal = xxhash.xxh3_128_digest(data)
        instance = Instance("1.2", f"1.2.{rng.randint(0, 3)}", "1.2.1", len(data), seal, "A", "B", "::1", 1)
        if len(data) <= 40:
            self.sent[upload_id] = data
            self.append(Kind.INSTANCE, upload_id, 1, instance, data)
            yield True
            return
        self.orphans.add(upload_id)
        parts = [data[at : at + 40] for at in range(0, len(data), 40)]
        for index, part in enumerate(parts):
            self.append(Kind.PART, upload_id, index, None, part)
            yield True
            if rng.random() < 0.1:
                self.append(Kind.PART, upload_id, index, None, part)  # a producer's retry
                yield True
            if rng.random() < 0.05:
                self.append(Kind.ABORT, upload_id)
                yield True
                return
        self.orphans.discard(upload_id)
        self.sent[upload_id] = data
        self.append(Kind.END, upload_id, len(parts), instance)
        yield True

    def acknowledged_payloads(self) -> Iterator[bytes]:
        """Of every record that is sound or holds a whole instance, in the state that the log has it."""
        for position, (kind, upload_id, size) in enumerate(self.written):
            if upload_id in self.sent and size and (position not in self.damaged or kind is Kind.INSTANCE):
                yield self.records[position][-size:]

    def entry(self, position: int) -> Entry:
        data = memoryview(self.records[position])
        if position in self.damaged:
            return DamagedRecord(position, position + 1, 0, data)
        return LogRecord(position, position + 1, 0, decode(data))


class World:
    """What outlives the worker: objects by upload id, the outcome log, the checkpoint."""

    def __init__(self, rng: random.Random, log: Log, loop: asyncio.Runner) -> None:
        self.rng = rng
        self.log = log
        self.loop = loop
        self.placed: dict[UploadId, bytes] = {}
        self.outcomes: list[Announced] = []
        self.checkpoint = Checkpoint(partition=0)
        self.may_crash = True

    def maybe_crash(self, chance: float) -> None:
        if self.may_crash and self.rng.random() < chance:
            raise Crash

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        self.maybe_crash(0.05)
        self.outcomes += outcomes
        self.maybe_crash(0.05)
        return len(self.outcomes)

    def counted(self, position: int) -> None:
        assert position <= len(self.outcomes)

    async def write(self, checkpoints: Sequence[Checkpoint]) -> None:
        self.maybe_crash(0.05)
        (checkpoint,) = checkpoints
        unplaced = [at for at in range(checkpoint.low_water_mark) if self.loses(self.log.entry(at))]
        assert not unplaced, f"the mark {checkpoint.low_water_mark} passes {unplaced}"
        self.checkpoint = checkpoint
        self.maybe_crash(0.05)

    def loses(self, entry: Entry) -> bool:
        """Whether skipping this entry would lose a sound, acknowledged instance."""
        if isinstance(entry, DamagedRecord) or entry.record.kind is Kind.EPOCH:
            return False
        upload_id = entry.record.upload_id
        return upload_id in self.log.sent and upload_id not in self.placed and upload_id not in self.log.hurt

    def place(self, upload: Upload) -> Outcome:
        payload = b"".join(bytes(block) for block in upload.payload.blocks())
        sound = not upload.damage and xxhash.xxh3_128_digest(payload) == upload.instance.seal
        place = Place.STORED if sound else Place.QUARANTINED
        self.placed.setdefault(upload.upload_id, payload)
        assert self.placed[upload.upload_id] == payload, "a replay gives other bytes"
        return Outcome(upload.instance.sop_instance_uid, place, "", "", "", "", 1, upload.end_position)


def work(world: World, folder: Path) -> None:
    """One life of a worker, until it has counted everything or crashes."""
    rng = world.rng
    progress = Progress(world.checkpoint)
    progress.count(world.outcomes[world.checkpoint.outcomes_end :], len(world.outcomes))
    scratch = Scratch(folder)
    reassembler = Reassembler({0: progress}, scratch, MEMORY_LIMIT)
    in_hand: list[Upload] = []
    position = world.checkpoint.low_water_mark
    while position < len(world.log.records) or in_hand or progress.settled():
        choice = rng.random()
        if choice < 0.5 and position < len(world.log.records):
            in_hand += at_once(reassembler.add(world.log.entry(position)))
            position += 1
            assert reassembler.held <= MEMORY_LIMIT
        elif choice < 0.9 and in_hand:
            upload = in_hand.pop(rng.randrange(len(in_hand)))
            outcome = world.place(upload)
            world.maybe_crash(0.02)
            progress.settle(upload.upload_id, outcome)
            at_once(reassembler.release(upload))
        elif choice > 0.9:
            world.loop.run(commit([(progress, world)], world.write))
    world.loop.run(commit([(progress, world)], world.write))
    assert not scratch.files
    assert reassembler.held == 0


def simulate(seed: int, folder: Path, damage: bool) -> None:
    rng = random.Random(seed)
    log = Log(rng, damage)
    with asyncio.Runner() as loop:
        world = World(rng, log, loop)
        for life in range(100):
            world.may_crash = life < 20
            try:
                work(world, folder)
                break
            except Crash:
                pass
    checkpoint = world.checkpoint
    ids = [upload_id for upload_id, _ in world.outcomes]
    assert len(ids) == len(set(ids)), "an upload was announced twice"
    assert checkpoint.counters == Counter(outcome.place for _, outcome in world.outcomes)
    assert checkpoint.low_water_mark == len(log.records)
    assert not checkpoint.done
    assert checkpoint.outcomes_end == len(world.outcomes)
    for upload_id, data in log.sent.items():
        if upload_id not in log.hurt:
            assert world.placed[upload_id] == data, "an acknowledged instance is not whole"
    if damage:
        kept = b"|".join(world.placed.values())
        for payload in log.acknowledged_payloads():
            assert payload in kept, "acknowledged bytes vanished"
    else:
        assert set(ids) == log.sent.keys()
        assert not log.orphans & world.placed.keys()
        assert checkpoint.count(Place.STORED) == len(log.sent)


@pytest.mark.parametrize("block", range(10))
def test_each_acknowledged_upload_is_counted_once(block: int, tmp_path: Path) -> None:
    """Whatever dies when: one outcome and one count per acknowledged upload, whole; none for the others."""
    for seed in range(block * 100, block * 100 + 100):
        try:
            simulate(seed, tmp_path, damage=False)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("block", range(10))
def test_damage_hurts_none_but_the_damaged(block: int, tmp_path: Path) -> None:
    """With flipped bits in the log: sound uploads are whole, hurt ones are kept and counted, none twice."""
    for seed in range(block * 100, block * 100 + 100):
        try:
            simulate(seed, tmp_path, damage=True)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
