"""A worker whose partitions come and go while its loops go on."""

import asyncio
import errno
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import xxhash

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, Outcome, Place, decode, encode_header
from ingest.contract.settings import WorkerSettings
from tests.support.asynchronous import until
from tests.support.fences import any_fences
from workers.errors import Unavailable
from workers.log.checkpoint import Announced, Progress
from workers.log.entries import Entry, LogRecord
from workers.log.in_hand import InHand
from workers.log.scratch import ScratchFolder
from workers.log.upload import Upload
from workers.partition import OwnedPartition
from workers.pipeline import Tries
from workers.unsettled import UPLOADS_AHEAD
from workers.worker import Worker

PARTITIONS = 3


class Log:
    """Partitions of which any may be read; position n is record n of its partition."""

    def __init__(self) -> None:
        self.records: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self.at: dict[int, int] = {}
        self.sequence = 0
        self.more = asyncio.Event()

    def add(self, partition: int, uid: str, size: int = 4, parts: int = 0) -> None:
        self.sequence += 1
        upload_id = UploadId.of(1, 1, self.sequence)
        data = bytes(size)
        whole = data * max(parts, 1)
        instance = Instance(
            "1.2",
            uid,
            "1.2.840.10008.1.2",
            len(whole),
            xxhash.xxh3_128_digest(whole),
            "A",
            "B",
            "::1",
            1,
        )
        records = self.records[partition]
        for index in range(parts):
            records.append(encode_header(Kind.PART, upload_id, index, None, [memoryview(data)]) + data)
        if parts:
            records.append(encode_header(Kind.END, upload_id, parts, instance))
        else:
            records.append(encode_header(Kind.INSTANCE, upload_id, 1, instance, [memoryview(data)]) + data)
        self.more.set()

    def read_to(self, partition: int) -> int:
        return self.at[partition]

    async def end_of(self, partition: int) -> int:
        return len(self.records[partition])

    def read(self) -> Sequence[Entry]:
        entries = []
        for partition, start in self.at.items():
            for at in range(start, min(start + 4, len(self.records[partition]))):
                entries.append(LogRecord(at, at + 1, partition, decode(self.records[partition][at])))
                self.at[partition] = at + 1
        return entries

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - as the real one's
        self.more.clear()
        await asyncio.wait([asyncio.ensure_future(self.more.wait())], timeout=0.01)


class Outcomes:
    """An outcome log that nothing can go wrong with."""

    async def announce(self, outcomes: Sequence[Announced]) -> int:
        await asyncio.sleep(0)
        return 0

    def counted(self, position: int) -> None:
        pass


class Checkpoints:
    """Those written, and which worker of a partition wrote last."""

    full = False
    refused = 0

    def __init__(self) -> None:
        self.written: dict[int, Checkpoint] = {}

    async def write(self, checkpoints: Sequence[Checkpoint]) -> None:
        if self.full:
            self.refused += 1
            raise Unavailable("no space", 1.0)
        for checkpoint in checkpoints:
            self.written[checkpoint.partition] = checkpoint
        await asyncio.sleep(0)


class Store:
    """Takes a moment for each upload, while ``gate`` is set."""

    def __init__(self) -> None:
        self.stored: set[UploadId] = set()
        self.working: Counter[int] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.before: Callable[[Upload], None] = lambda upload: None
        self.away: set[str] = set()  # UIDs of shards whose store does not answer

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        self.working[upload.partition] += 1
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            self.before(upload)
            if upload.instance.sop_instance_uid in self.away:
                raise Unavailable("a store is away", 0.1)
        finally:
            self.working[upload.partition] -= 1
        self.stored.add(upload.upload_id)
        uid = upload.instance.sop_instance_uid
        return Outcome(uid, Place.STORED, "", "", "default", "key", 1, upload.end_position)


class Scratch(ScratchFolder):
    """Takes nothing while it is ``full``, and counts what it has refused; removes nothing while all is ``kept``."""

    full = False
    kept = False
    refused = 0

    async def write(self, name: str, offset: int, pieces: Iterable[bytes | memoryview]) -> None:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "no space")
        await super().write(name, offset, pieces)

    async def remove(self, name: str) -> None:
        if self.kept:
            raise OSError(errno.EROFS, "read-only file system")
        await super().remove(name)


class Bench:
    """A worker in a folder that is given partitions and has them taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Log()
        self.store = Store()
        self.checkpoints = Checkpoints()
        self.scratch = Scratch(folder / "scratch", range(PARTITIONS))
        self.worker = Worker(
            WorkerSettings.model_validate({"checkpoint_interval": 0.01, "memory_limit": 1024 * 1024}),
            [],
            checkpoints=self.checkpoints,
            reader=self.log,
            scratch=self.scratch,
            pipeline=self.store,
            fences=any_fences(),
        )

    def give(self, partition: int) -> Progress:
        checkpoint = self.checkpoints.written.get(partition) or Checkpoint(partition=partition)
        self.log.at[partition] = checkpoint.low_water_mark
        progress = Progress(checkpoint)
        marks = InHand(self.folder / f"marks-{partition}")
        self.worker.add(OwnedPartition(progress, marks, Outcomes()))
        self.log.more.set()
        return progress

    def take(self, partition: int) -> None:
        del self.log.at[partition]
        self.worker.drop(partition)

    def scratch_files(self, partition: int) -> list[Path]:
        return list(self.scratch.of(partition).iterdir())


def test_marks_stay_until_their_attempts_are_durable(tmp_path: Path) -> None:
    """On a full disk, too: else an upload that ends its worker at once is never known, and ends it for ever."""

    async def scenario() -> None:
        killer = UploadId.of(1, 1, 1)
        path = tmp_path / "marks-0"
        InHand(path).mark(killer)
        bench = Bench(tmp_path)
        bench.checkpoints.full = True
        bench.give(0)
        run = asyncio.create_task(bench.worker.run())
        await until(lambda: bench.checkpoints.refused > 0, run)
        await asyncio.sleep(0.05)
        assert InHand(path).left == {killer}
        bench.checkpoints.full = False
        await until(lambda: not InHand(path).left, run)
        assert bench.checkpoints.written[0].attempts == {killer: 1}
        bench.worker.stop()
        await run

    asyncio.run(scenario())


def test_scratch_that_cannot_be_removed_ends_no_worker(tmp_path: Path) -> None:
    """It goes with its folder; the upload has its place, and the others go on."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.scratch.kept = True
        bench.log.add(0, "1.1", 900_000, parts=3)  # beyond the budget
        bench.log.add(0, "1.2")
        bench.give(0)
        run = asyncio.create_task(bench.worker.run())
        await until(lambda: 0 in bench.checkpoints.written and bench.checkpoints.written[0].settled == 2, run)
        bench.worker.stop()
        await run

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_what_waits_for_a_store_keep_nobody_from_the_others(seed: int, tmp_path: Path) -> None:
    """A study sent again waits for its turn behind the first, and out of memory, as that does."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        uids = ["1.1", "1.2"] * UPLOADS_AHEAD
        random.Random(seed).shuffle(uids)
        bench.store.away = {"1.1", "1.2"}
        for uid in uids:
            bench.log.add(0, uid)
        bench.give(0)
        bench.give(1)
        run = asyncio.create_task(bench.worker.run())
        await until(lambda: bench.log.at[0] >= UPLOADS_AHEAD // 2, run)
        bench.log.add(1, "2.1")
        await until(lambda: len(bench.store.stored) == 1, run)
        bench.store.away = set()
        await until(lambda: len(bench.store.stored) == 1 + len(uids), run)
        bench.worker.stop()
        await run
        assert bench.checkpoints.written[0].settled == len(uids)
        assert not bench.scratch_files(0)

    asyncio.run(scenario())


def test_reading_goes_on_to_the_end_of_an_upload_that_holds_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are done above it meanwhile: nothing else would ever bring it to its place, nor a new start."""
    monkeypatch.setattr("workers.log.checkpoint.DONE_AT_MOST", 8)

    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.log.add(0, "1.1", parts=2)
        end = bench.log.records[0].pop()
        for number in range(8):
            bench.log.add(0, f"2.{number}")
        bench.give(0)
        run = asyncio.create_task(bench.worker.run())
        written = bench.checkpoints.written
        await until(lambda: 0 in written and len(written[0].done) == 8, run)
        bench.log.add(0, "3.1")
        bench.log.records[0].append(end)
        bench.log.more.set()
        await until(lambda: len(bench.store.stored) == 10, run)
        bench.worker.stop()
        await run
        assert written[0].low_water_mark == len(bench.log.records[0])

    asyncio.run(scenario())


def test_what_is_dropped_is_given_up_whole(tmp_path: Path) -> None:
    """Tasks end, files go, nothing of it is committed any more; the other partition goes on."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.log.add(0, "1.1", 900_000, parts=3)  # beyond the budget: in scratch, complete
        bench.log.add(0, "1.2", 900_000, parts=2)
        bench.log.records[0].pop()  # in scratch, without END
        bench.store.gate.clear()
        old = bench.give(0)
        bench.give(1)
        run = asyncio.create_task(bench.worker.run())
        await until(lambda: bench.store.working[0] == 1 and old.read_to == len(bench.log.records[0]), run)
        assert bench.scratch_files(0)
        bench.take(0)
        bench.log.add(1, "2.1")
        await until(lambda: bench.store.working[0] == 0 and not bench.scratch_files(0), run)
        bench.store.gate.set()
        await until(lambda: len(bench.store.stored) == 1, run)
        await until(lambda: 1 in bench.checkpoints.written, run)
        assert bench.worker._reassembler.held == 0
        assert 0 not in bench.checkpoints.written
        bench.worker.stop()
        await run
        assert 0 not in bench.checkpoints.written

    asyncio.run(scenario())


def test_an_outcome_in_the_making_is_not_counted_after_the_drop(tmp_path: Path) -> None:
    """A partition lost between announcement and commit is not committed; its next owner counts it once."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.log.add(0, "1.1")
        old = bench.give(0)
        run = asyncio.create_task(bench.worker.run())
        await until(lambda: bool(old.settled()) or old.checkpoint().settled > 0, run)
        bench.take(0)
        bench.give(0)
        await until(lambda: 0 in bench.checkpoints.written, run)
        bench.worker.stop()
        await run
        assert bench.checkpoints.written[0].counters == {Place.STORED: 1}

    asyncio.run(scenario())


@pytest.mark.parametrize("back", [False, True])
def test_an_entry_that_waited_for_scratch_goes_with_its_partition(tmp_path: Path, *, back: bool) -> None:
    """It is the next owner's, be that this worker: its account begins before it, and would be past all between."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.log.add(0, "1.1")
        bench.log.add(0, "1.2", 900_000, parts=3)  # beyond the budget
        bench.store.gate.clear()
        bench.scratch.full = True
        bench.give(0)
        bench.give(1)
        run = asyncio.create_task(bench.worker.run())
        await until(lambda: bench.scratch.refused > 0, run)
        bench.take(0)
        if back:
            bench.give(0)
        bench.log.add(1, "2.1")
        bench.scratch.full = False
        bench.store.gate.set()
        await until(lambda: len(bench.store.stored) == (3 if back else 1), run)
        bench.worker.stop()
        await run
        settled = {number: found.settled for number, found in bench.checkpoints.written.items()}
        assert settled == ({0: 2, 1: 1} if back else {1: 1})

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(20))
def test_partitions_that_come_and_go_are_counted_exactly(seed: int, tmp_path: Path) -> None:
    """Whatever is taken and given back when: at the end each upload is counted once, and no scratch is left."""

    async def scenario() -> None:
        rng = random.Random(seed)
        bench = Bench(tmp_path)
        sent: Counter[int] = Counter()
        run = asyncio.create_task(bench.worker.run())
        for _ in range(60):
            partition = rng.randrange(PARTITIONS)
            if partition in bench.log.at:
                if rng.random() < 0.5:
                    bench.take(partition)
            else:
                bench.give(partition)
            for _ in range(rng.randint(0, 6)):
                partition = rng.randrange(PARTITIONS)
                large = rng.random() < 0.2
                bench.log.add(partition, f"1.{rng.randint(0, 9)}", 300_000 if large else 9, 4 if large else 0)
                sent[partition] += 1
            for _ in range(rng.randint(0, 5)):
                await asyncio.sleep(0 if rng.random() < 0.8 else 0.003)
        for partition in range(PARTITIONS):
            if partition not in bench.log.at:
                bench.give(partition)

        def settled() -> bool:
            written = bench.checkpoints.written
            return all(sent[n] == (written[n].settled if n in written else 0) for n in range(PARTITIONS))

        await until(settled, run)
        bench.worker.stop()
        await run
        assert len(bench.store.stored) == sum(sent.values())
        for partition in range(PARTITIONS):
            if sent[partition]:
                checkpoint = bench.checkpoints.written[partition]
                assert checkpoint.low_water_mark == len(bench.log.records[partition])
                assert not checkpoint.done
            assert not bench.scratch_files(partition)

    asyncio.run(scenario())
