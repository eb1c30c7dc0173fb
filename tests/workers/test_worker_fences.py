"""A worker that meets fences: it waits for what they name and for nothing else, and a crash asks them again."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import xxhash

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.commitments import CommitAsked, Finding, Found, Reference
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, Outcome, Place, decode, encode_header
from ingest.contract.settings import WorkerSettings
from tests.support.asynchronous import asynchronous, until
from tests.support.fences import AllProved, ProofList, fence_record
from workers import fences as fences_module
from workers.errors import Unavailable
from workers.fences import Fences
from workers.log.checkpoint import Announced, Progress
from workers.log.entries import Entry, LogRecord
from workers.log.in_hand import InHand
from workers.log.proof import Proof
from workers.log.scratch import ScratchFolder
from workers.log.upload import Upload
from workers.partition import OwnedPartition
from workers.pipeline import Tries
from workers.worker import UPLOADS_AT_ONCE, Worker


class QuickScratch(ScratchFolder):
    """Writes at once: a cancelled task stands for a killed process, which leaves no file open."""

    async def write(self, name: str, offset: int, pieces: Iterable[bytes | memoryview]) -> None:
        with self._path(name).open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.writelines(pieces)


class FullDisk(ProofList):
    """Takes no proof while it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = True

    async def publish(self, proof: Proof) -> None:
        if self.is_full:
            raise Unavailable("No space left on device", 0.005)
        await super().publish(proof)


class World:
    """One partition's log, and all that outlives a worker: places, outcomes, proofs, the checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[bytes] = []
        self.completed: dict[int, tuple[UploadId, str]] = {}  # position of its last record -> upload
        self.fences: dict[int, Sequence[str]] = {}  # part of the question, the same as its position -> UIDs
        self.at = 0
        self.more = asyncio.Event()
        self.placed: set[UploadId] = set()
        self.held: set[str] = set()  # UIDs whose store does not answer
        self.gates: dict[str, asyncio.Event] = {}  # UIDs that are slow
        self.outcomes: list[Announced] = []
        self.proofs = ProofList()
        self.asked: list[int] = []
        self.prover = AllProved()
        self.checkpoint = Checkpoint(partition=0)
        self.attempts = 0

    # the log

    def upload(self, uid: str, parts: int = 0, *, ends: bool = True) -> UploadId:
        """An upload of so many parts, or one of a single record."""
        upload_id = UploadId.of(1, 1, len(self.records))
        data = b"data"
        whole = data * max(parts, 1)
        seal = xxhash.xxh3_128_digest(whole)
        facts = Instance("1.2", uid, "1.2.1", len(whole), seal, "A", "B", "::1", 1)
        for index in range(parts):
            self.records.append(encode_header(Kind.PART, upload_id, index, None, [memoryview(data)]) + data)
        if ends:
            self.completed[len(self.records)] = upload_id, uid
            if parts:
                self.records.append(encode_header(Kind.END, upload_id, parts, facts))
            else:
                self.records.append(
                    encode_header(Kind.INSTANCE, upload_id, 1, facts, [memoryview(data)]) + data
                )
        self.more.set()
        return upload_id

    def fence(self, *uids: str) -> None:
        """A question about these."""
        at = len(self.records)
        self.fences[at] = uids
        self.records.append(fence_record(UploadId.of(9, 1, at), uids, part=at))
        self.more.set()

    def read_to(self, partition: int) -> int:
        return self.at

    def read(self) -> Sequence[Entry]:
        end = min(self.at + 4, len(self.records))
        entries = [LogRecord(at, at + 1, 0, decode(self.records[at])) for at in range(self.at, end)]
        self.at = end
        return entries

    async def end_of(self, partition: int) -> int:
        return len(self.records)

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - as the real one's
        self.more.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.more.wait(), 0.01)

    # the pipeline, the outcome log, the checkpoints

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        uid = upload.instance.sop_instance_uid
        if uid in self.held:
            raise Unavailable("store is away", 0.005)
        if uid in self.gates:
            await self.gates[uid].wait()
        await asyncio.sleep(0)
        self.placed.add(upload.upload_id)
        return Outcome(uid, Place.STORED, "", "", "default", "key", 1, upload.end_position)

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        self.outcomes += outcomes
        return len(self.outcomes)

    def counted(self, position: int) -> None:
        pass

    async def write(self, checkpoints: Sequence[Checkpoint]) -> None:
        (checkpoint,) = checkpoints
        for at in self.unpublished():
            assert checkpoint.low_water_mark <= at, "the mark passes a fence that is not proved"
        await asyncio.sleep(0)
        self.checkpoint = checkpoint

    def unpublished(self) -> list[int]:
        """The fences whose proof nobody has."""
        return sorted(self.fences.keys() - {proof.proved.part for proof in self.proofs.published})

    # the prover

    async def prove(self, asked: CommitAsked, references: Sequence[Reference]) -> list[Found]:
        """Judges: everything completed before the fence, of what it names, has its place."""
        self.asked.append(asked.part)
        named = {one.sop_instance_uid for one in references}
        assert named == set(self.fences[asked.part])
        for position, (upload_id, uid) in self.completed.items():
            if position < asked.part and uid in named:
                assert upload_id in self.placed, "proved before an upload that was completed before it"
        await asyncio.sleep(0)
        return await self.prover.prove(asked, references)

    # a life of the worker

    def start(self) -> "Life":
        """A process that begins where the last one's checkpoint says."""
        self.attempts += 1
        self.at = self.checkpoint.low_water_mark
        return Life(self)


class Life:
    """One worker process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.progress = Progress(world.checkpoint)
        self.progress.count(
            world.outcomes[world.checkpoint.outcomes_end :], len(world.outcomes)
        )  # as the next start does
        marks = InHand(world.folder / "marks")
        self.fences = Fences(world, world.proofs)
        self.worker = Worker(
            WorkerSettings.model_validate({"checkpoint_interval": 0.005}),
            [OwnedPartition(self.progress, marks, world)],
            checkpoints=world,
            reader=world,
            scratch=QuickScratch(world.folder / "scratch", [0]),
            pipeline=world,
            fences=self.fences,
        )
        self.run = asyncio.create_task(self.worker.run())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what must come."""
        await until(condition, self.run)

    async def turns(self, count: int = 50) -> None:
        """Let everything happen that can."""
        for _ in range(count):
            await asyncio.sleep(0.001)

    async def crash(self) -> None:
        """End at once, with nothing more written."""
        self.progress.abandon()
        self.run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.run

    async def stop(self) -> None:
        """End in order."""
        self.worker.stop()
        await self.run


@asynchronous
async def test_a_fence_waits_for_a_slow_placer(tmp_path: Path) -> None:
    """Asked at once after the last of many, it is proved when the last is at its place, and the mark is held."""
    world = World(tmp_path)
    world.gates["1.9"] = asyncio.Event()
    for number in range(40):
        world.upload(f"1.{number}", parts=2 * (number % 2))
    world.fence(*(f"1.{number}" for number in range(40)))
    at = len(world.records) - 1
    life = world.start()
    await life.until(lambda: len(world.placed) == 39)
    await life.turns()
    assert not world.asked
    assert world.checkpoint.low_water_mark < at
    world.gates["1.9"].set()
    await life.until(lambda: world.checkpoint.low_water_mark == len(world.records))
    (proof,) = world.proofs.published
    assert (proof.proved.part, proof.proved.partition, len(proof.found)) == (at, 0, 40)
    await life.stop()
    assert world.checkpoint.counters == {Place.STORED: 40}
    assert not world.checkpoint.done


@asynchronous
async def test_it_waits_for_no_others(tmp_path: Path) -> None:
    """Not for other instances, nor what came after it, nor an upload that hangs half-way; not even for their slots."""
    world = World(tmp_path)
    world.upload("1.1")
    slow = [f"2.{number}" for number in range(2 * UPLOADS_AT_ONCE)]
    world.gates = {uid: asyncio.Event() for uid in slow}
    for uid in slow:
        world.upload(uid)
    world.upload("1.1", parts=3, ends=False)
    world.fence("1.1", "1.2")
    world.gates["1.2"] = asyncio.Event()
    world.upload("1.2")
    life = world.start()
    await life.until(lambda: len(world.proofs.published) == 1)
    assert len(world.placed) == 1
    await life.crash()


@asynchronous
async def test_it_waits_for_what_is_put_by_for_a_dead_store(tmp_path: Path) -> None:
    """An upload out of memory and out of the way counts as one before it; others are proved meanwhile."""
    world = World(tmp_path)
    world.held = {"1.1"}
    world.upload("1.1")
    life = world.start()
    await life.until(lambda: life.worker.unsettled.waiting > 0)
    world.fence("1.1")
    world.fence("1.2")
    await life.until(lambda: len(world.proofs.published) == 1)
    await life.turns()
    assert world.asked == [2]
    world.held.clear()
    await life.until(lambda: not world.unpublished())
    await life.stop()
    assert world.checkpoint.low_water_mark == 3


@asynchronous
async def test_a_stop_leaves_it_to_the_next_start(tmp_path: Path) -> None:
    """With its uploads unfinished nothing is proved, and the mark stays for the next to ask again."""
    world = World(tmp_path)
    world.held = {"1.1"}
    world.upload("1.0")
    world.upload("1.1")
    world.fence("1.1")
    life = world.start()
    await life.until(lambda: life.worker.unsettled.waiting > 0 and life.progress.read_to == 3)
    await life.stop()
    assert not world.asked
    assert world.checkpoint.low_water_mark == 1
    world.held.clear()
    life = world.start()
    await life.until(lambda: not world.unpublished())
    await life.stop()
    assert world.checkpoint.low_water_mark == 3


@asynchronous
async def test_a_partition_that_is_lost_takes_its_fences_along(tmp_path: Path) -> None:
    """They end without a proof, even one in the making."""
    world = World(tmp_path)
    world.gates["1.1"] = asyncio.Event()
    world.upload("1.1")
    world.fence("1.1")
    life = world.start()
    await life.until(lambda: len(life.fences.of(life.progress)) == 1)
    life.worker.drop(0)
    await life.until(lambda: not life.fences.of(life.progress))
    assert not world.asked
    await life.stop()
    assert world.checkpoint.low_water_mark == 0


@asynchronous
async def test_a_proof_that_cannot_be_handed_over_holds_the_mark(tmp_path: Path) -> None:
    """As on a full disk: it is tried again, and nothing else waits."""
    world = World(tmp_path)
    world.proofs = disk = FullDisk()
    world.fence("1.1")
    world.upload("1.1")
    life = world.start()
    await life.until(lambda: len(world.placed) == 1)
    await life.turns()
    assert world.checkpoint.low_water_mark == 0
    disk.is_full = False
    await life.until(lambda: world.checkpoint.low_water_mark == 2)
    await life.stop()


@asynchronous
async def test_beyond_the_limit_fences_are_put_off_and_reading_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that find no room to wait are answered: not known. What comes behind them is placed and proved."""
    monkeypatch.setattr(fences_module, "FENCES_AT_MOST", 3)
    world = World(tmp_path)
    world.gates["1.1"] = asyncio.Event()
    world.upload("1.1")
    for _ in range(20):
        world.fence("1.1")
    world.upload("2.1")
    life = world.start()
    await life.until(lambda: len(world.placed) == 1 and len(world.proofs.published) == 17)
    assert not world.asked
    assert {one.finding for proof in world.proofs.published for one in proof.found} == {Finding.UNAVAILABLE}
    assert world.unpublished() == [1, 2, 3], "the first wait"
    assert world.checkpoint.low_water_mark == 0
    world.gates["1.1"].set()
    await life.until(lambda: not world.unpublished() and len(world.placed) == 2)
    assert {one.finding for proof in world.proofs.published[17:] for one in proof.found} == {Finding.PROVED}
    world.fence("1.1")
    await life.until(lambda: not world.unpublished())
    assert [one.finding for one in world.proofs.published[-1].found] == [Finding.PROVED], (
        "there is room again"
    )
    await life.stop()


@pytest.mark.parametrize("limit", ["FENCES_AT_MOST", "BYTES_AT_MOST"])
@asynchronous
async def test_fences_in_memory_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Where answers find no taker, the log is not read on, and is again when some have one."""
    world = World(tmp_path)
    world.proofs = disk = FullDisk()
    world.gates["1.1"] = asyncio.Event()
    world.upload("1.1")
    for _ in range(40):
        world.fence("1.1")
    world.upload("2.1")
    held = len(decode(world.records[1]).payload)
    monkeypatch.setattr(fences_module, limit, 3 if limit == "FENCES_AT_MOST" else 3 * held)
    life = world.start()
    await life.until(lambda: life.fences.is_full)
    await life.turns()
    assert len(life.fences.of(life.progress)) <= 6 + 4  # those of one read
    assert not world.placed
    disk.is_full = False
    await life.until(lambda: len(world.unpublished()) == 3 and len(world.placed) == 1)
    world.gates["1.1"].set()
    await life.until(lambda: not world.unpublished())
    await life.stop()
    assert not life.fences.is_full


async def _simulate(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    world = World(folder)

    class Flaky(ProofList):
        async def publish(self, proof: Proof) -> None:
            await asyncio.sleep(0)
            if rng.random() < 0.2:
                raise Unavailable("not now", 0.001)
            await super().publish(proof)
            await asyncio.sleep(0)

    world.proofs = Flaky()
    sent: Counter[str] = Counter()
    life = world.start()
    for _ in range(40):
        choice = rng.random()
        uid = f"1.{rng.randint(0, 5)}"
        if choice < 0.45:
            world.upload(uid, parts=rng.choice((0, 0, 3)))
            sent[uid] += 1
        elif choice < 0.65:
            world.fence(*{f"1.{rng.randint(0, 5)}" for _ in range(rng.randint(1, 3))})
        elif choice < 0.7:
            world.upload(uid, parts=2, ends=False)
        elif choice < 0.8:
            world.held ^= {uid}
        elif choice < 0.9:
            await (life.crash if rng.random() < 0.7 else life.stop)()
            life = world.start()
        for _ in range(rng.randint(0, 4)):
            await asyncio.sleep(0 if rng.random() < 0.7 else 0.002)
    world.held.clear()
    total = sum(sent.values())
    await life.until(lambda: not world.unpublished() and world.checkpoint.settled == total)
    await life.stop()
    assert len(world.placed) == total
    assert len({one.upload_id for one in world.outcomes}) == len(world.outcomes) == total


@pytest.mark.parametrize("seed", range(60))
def test_whatever_crashes_when_each_fence_is_answered_and_nothing_counted_twice(
    seed: int, tmp_path: Path
) -> None:
    """Seeded schedules of uploads, fences, hanging uploads, silent stores, crashes and stops."""
    asyncio.run(_simulate(seed, tmp_path))
