"""The worker's loops over a log in memory: order, holding, budgets, stopping, attempts, put-off checkpoints."""

import asyncio
from pathlib import Path

import pytest
import xxhash

from ingest.contract.checkpoint import checkpoint_path
from ingest.contract.records import Outcome, Place
from tests.support.asynchronous import until
from tests.support.small_disk import SmallDisk
from tests.support.worker_bench import Bench, ListLog, Placer, stored
from workers.errors import Spoiled, Unavailable
from workers.log.upload import Upload
from workers.pipeline import Tries
from workers.unsettled import UPLOADS_AHEAD
from workers.worker import UPLOADS_AT_ONCE


def test_each_upload_is_placed_announced_and_counted(tmp_path: Path) -> None:
    """Small and large instances, the large ones through scratch, leave nothing behind but their counts."""

    async def scenario() -> None:
        log, placer = ListLog(), Placer()
        for number in range(20):
            log.add(f"1.{number}")
            log.add(f"2.{number}", bytes([number]) * 600_000, parts=4)
        seen: list[bytes] = []
        placer.before = lambda upload, _: seen.append(
            xxhash.xxh3_128_digest(b"".join(upload.payload.blocks()))
        )
        bench = Bench(tmp_path, log, placer, memory_limit=1024 * 1024)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: len(placer.placed) == 40, run)
        log.add("3.1")  # the reader waits for more, and gets it
        await until(lambda: len(placer.placed) == 41, run)
        worker.stop()
        await run
        assert seen == [upload.instance.seal for upload in placer.placed]
        assert any(upload.file for upload in placer.placed)
        assert not list((tmp_path / "scratch" / "0").iterdir())
        assert len(bench.outcomes.announced) == 41
        assert bench.written().counters == {Place.STORED: 41}
        assert bench.written().low_water_mark == len(log.records)
        assert not bench.written().done

    asyncio.run(scenario())


def first_waits(upload: Upload, tries: Tries) -> None:
    if upload.instance.sop_instance_uid == "1.0":
        raise Unavailable("store is away", 3600)


class SlowPlacer(Placer):
    """Has one instance in work until the gate opens."""

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        if upload.instance.sop_instance_uid == "1.2":
            await self.gate.wait()
        self.before(upload, tries)
        self.placed.append(upload)
        return stored(upload)


def test_an_idle_worker_counts_before_its_interval_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while an upload is in work, for the next may share its commit; one that waits for the world is not."""
    monkeypatch.setattr("workers.commits.IDLE_AFTER", 1e-5)

    async def scenario() -> None:
        log = ListLog()

        placer = SlowPlacer(first_waits)
        placer.gate.clear()
        bench = Bench(tmp_path, log, placer, checkpoint_interval=1000)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        log.add("1.0")
        log.add("1.1")
        await until(lambda: len(bench.outcomes.announced) == 1, run)
        log.add("1.2")
        log.add("1.3")
        await until(bench.progress.settled, run)
        await asyncio.sleep(0.2)
        assert len(bench.outcomes.announced) == 1
        placer.gate.set()
        await until(lambda: len(bench.outcomes.announced) == 3, run)
        worker.stop()
        await run

    asyncio.run(scenario())


def test_a_worker_is_idle_once_the_last_in_work_is_put_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was settled beside it is counted then, though the look after that one found the other in work."""
    monkeypatch.setattr("workers.commits.IDLE_AFTER", 1e-5)

    async def scenario() -> None:
        log = ListLog()

        bench = Bench(tmp_path, log, Placer(first_waits), checkpoint_interval=1000)
        worker = bench.worker()
        put_by, slow_disk = worker._reassembler.put_by, asyncio.Event()

        async def put_by_slowly(upload: Upload) -> Upload:
            await slow_disk.wait()
            return await put_by(upload)

        monkeypatch.setattr(worker._reassembler, "put_by", put_by_slowly)
        run = asyncio.create_task(worker.run())
        log.add("1.0")
        log.add("1.1")
        await until(lambda: worker._commits._settled == 1 and not worker._commits._awaits_idleness, run)
        assert not bench.outcomes.announced
        slow_disk.set()
        await until(lambda: len(bench.outcomes.announced) == 1, run)
        worker.stop()
        await run

    asyncio.run(scenario())


def test_only_what_came_since_is_known_to_be_new(tmp_path: Path) -> None:
    """What the log held when the partition came may have its place already, and so may what was tried before."""

    async def scenario() -> None:
        log = ListLog()
        for number in range(3):
            log.add(f"1.{number}")
        away = {"2.1"}

        def before(upload: Upload, tries: Tries) -> None:
            if upload.instance.sop_instance_uid in away:
                away.clear()
                raise Unavailable("store is away", 0.01)

        placer = Placer(before)
        bench = Bench(tmp_path, log, placer)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: len(placer.placed) == 3, run)
        log.add("2.0")
        log.add("2.1")
        await until(lambda: len(placer.placed) == 5, run)
        worker.stop()
        await run
        replayed = {upload.instance.sop_instance_uid: upload.replayed for upload in placer.placed}
        assert replayed == {"1.0": True, "1.1": True, "1.2": True, "2.0": False, "2.1": True}

    asyncio.run(scenario())


def test_what_cannot_be_placed_now_waits_while_others_go_on(tmp_path: Path) -> None:
    """A store that does not answer holds its uploads and the low-water mark, not the others."""

    async def scenario() -> None:
        log = ListLog()
        down = True

        def before(upload: Upload, tries: Tries) -> None:
            if down and upload.instance.sop_instance_uid == "1.1":
                raise Unavailable("store is away", 0.01)

        placer = Placer(before)
        log.add("1.1", b"first")
        log.add("1.1", b"second")
        for number in range(30):
            log.add(f"2.{number}")
        bench = Bench(tmp_path, log, placer)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(
            lambda: len(placer.placed) == 30 and bench.progress.checkpoint().count(Place.STORED) == 30, run
        )
        assert bench.progress.low_water_mark == 0
        down = False
        await until(lambda: len(placer.placed) == 32, run)
        worker.stop()
        await run
        assert [upload.first_position for upload in placer.placed[30:]] == [0, 1], "the first stays the first"
        assert bench.written().counters == {Place.STORED: 32}
        assert not bench.written().attempts, "the world's fault is not the upload's"

    asyncio.run(scenario())


def test_on_a_full_disk_nothing_passes_the_first(tmp_path: Path) -> None:
    """What waits is not copied to the disk that it waits for, and what comes later does not take its room."""

    async def scenario(disk: SmallDisk) -> None:
        log = ListLog()
        full = True

        def before(upload: Upload, tries: Tries) -> None:
            if full and upload.instance.sop_instance_uid == "1.1":
                raise Unavailable("no space", 0.01)

        placer = Placer(before)
        log.add("1.1", bytes(100_000))
        bench = Bench(disk.path, log, placer)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: bench.progress.low_water_mark == 0 and worker.unsettled.kept > 0, run)
        for number in range(10):
            log.add(f"2.{number}")
        await asyncio.sleep(0.1)
        assert not placer.placed
        assert not list((disk.path / "scratch" / "0").iterdir())
        full = False
        await until(lambda: len(placer.placed) == 11, run)
        assert placer.placed[0].instance.sop_instance_uid == "1.1"
        worker.stop()
        await run

    with SmallDisk(tmp_path / "disk", "16m") as disk:
        disk.fill(leave=1_000_000)
        asyncio.run(scenario(disk))


def test_a_store_that_is_away_does_not_fill_the_memory_of_the_others(tmp_path: Path) -> None:
    """Far more than the budget waits for one store, and what goes to another is placed all the same."""

    async def scenario() -> None:
        log = ListLog()
        down = True

        def before(upload: Upload, tries: Tries) -> None:
            if down and upload.instance.sop_instance_uid.startswith("1."):
                raise Unavailable("store is away", 0.01)

        placer = Placer(before)
        for number in range(20):
            log.add(f"1.{number}", bytes([number]) * 500_000)
            log.add(f"1.9.{number}", bytes([number]) * 500_000, parts=3)
            log.add(f"2.{number}", bytes(500_000))
        bench = Bench(tmp_path, log, placer, memory_limit=1024 * 1024)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: len(placer.placed) == 20, run)
        assert {upload.instance.sop_instance_uid[:2] for upload in placer.placed} == {"2."}
        down = False
        await until(lambda: len(placer.placed) == 60, run)
        worker.stop()
        await run
        for upload in placer.placed[20:]:
            assert upload.file is not None
        assert not list((tmp_path / "scratch" / "0").iterdir())
        assert bench.written().counters == {Place.STORED: 60}

    asyncio.run(scenario())


def test_reading_stops_when_too_many_wait_for_a_store(tmp_path: Path) -> None:
    """Up to the limit others go on; what came behind it is placed when the store answers again."""

    async def scenario() -> None:
        log = ListLog()
        down = True

        def before(upload: Upload, tries: Tries) -> None:
            if down and upload.instance.sop_instance_uid.startswith("1."):
                raise Unavailable("store is away", 0.01)

        placer = Placer(before)
        for number in range(29):
            log.add(f"1.{number}")
        log.add("2.1")
        bench = Bench(tmp_path, log, placer, waiting_uploads=30)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: len(placer.placed) == 1 and worker.unsettled.waiting == 29, run)
        for number in range(29, 600):
            log.add(f"1.{number}")
        log.add("2.2")
        await until(lambda: worker.unsettled.waiting >= 30, run)
        await asyncio.sleep(0.1)
        assert worker.unsettled.waiting <= 30 + UPLOADS_AHEAD, (
            "those in work when the limit was reached, and no more"
        )
        assert len(placer.placed) == 1
        down = False
        await until(lambda: len(placer.placed) == 602, run)
        worker.stop()
        await run
        assert bench.written().counters == {Place.STORED: 602}

    asyncio.run(scenario())


def test_a_stop_while_scratch_is_full_passes_nothing(tmp_path: Path) -> None:
    """Parts that found no room are read again by the next start: the mark stays below them."""

    async def scenario() -> None:
        log, placer = ListLog(), Placer()
        log.add("1.1", bytes(600_000), parts=3)
        for number in range(5):
            log.add(f"2.{number}")
        bench = Bench(tmp_path, log, placer, memory_limit=1024 * 1024)
        worker = bench.worker()
        folder = tmp_path / "scratch" / "0"
        folder.rmdir()
        folder.touch()  # so that it cannot be made
        run = asyncio.create_task(worker.run())
        await until(lambda: log.at > 0, run)
        await asyncio.sleep(0.05)
        worker.stop()
        await run
        folder.unlink()
        assert bench.progress.low_water_mark == 0
        assert not placer.placed
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: len(placer.placed) == 6, run)
        worker.stop()
        await run
        assert bench.written().counters == {Place.STORED: 6}

    asyncio.run(scenario())


def test_reading_stops_at_the_budget(tmp_path: Path) -> None:
    """Nothing is read beyond what memory is allowed for, and reading goes on when it is free again."""

    async def scenario() -> None:
        log, placer = ListLog(), Placer()
        for number in range(60):
            log.add(f"1.{number}", bytes(500_000))
        placer.gate.clear()
        bench = Bench(tmp_path, log, placer, memory_limit=2 * 1024 * 1024)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: placer.working == UPLOADS_AT_ONCE, run)
        for _ in range(50):
            await asyncio.sleep(0)
        assert log.at == 8, "one read reaches the budget"
        placer.gate.set()
        await until(lambda: len(placer.placed) == 60, run)
        worker.stop()
        await run

    asyncio.run(scenario())


def test_stop_finishes_what_is_in_work_and_leaves_the_rest(tmp_path: Path) -> None:
    """At SIGTERM the uploads in work are counted; the next start places each of the others once."""

    async def scenario() -> None:
        log, placer = ListLog(), Placer()
        for number in range(20):
            log.add(f"1.{number}")
        placer.gate.clear()
        bench = Bench(tmp_path, log, placer)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: placer.working == UPLOADS_AT_ONCE, run)
        worker.stop()
        await asyncio.sleep(0)
        placer.gate.set()
        await run
        assert len(placer.placed) == UPLOADS_AT_ONCE
        assert bench.written().counters == {Place.STORED: UPLOADS_AT_ONCE}
        worker = bench.worker()
        assert not bench.in_hand.left
        run = asyncio.create_task(worker.run())
        await until(lambda: len(placer.placed) == 20, run)
        worker.stop()
        await run
        assert bench.written().counters == {Place.STORED: 20}
        assert len({upload.upload_id for upload in placer.placed}) == 20

    asyncio.run(scenario())


def test_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    """An upload that will not end is given up at the deadline, without an attempt counted against it."""

    async def scenario() -> None:
        log, placer = ListLog(), Placer()
        log.add("1.1")
        placer.gate.clear()
        bench = Bench(tmp_path, log, placer, stop_timeout=0.05)
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: placer.working == 1, run)
        worker.stop()
        await run
        assert bench.progress.low_water_mark == 0
        bench.worker()
        assert not bench.in_hand.left

    asyncio.run(scenario())


def test_an_upload_that_ends_the_process_has_its_attempts_counted(tmp_path: Path) -> None:
    """Each death is durable before the next try, and only the culprit of a defect is blamed."""

    async def scenario() -> None:
        log = ListLog()
        tries_seen: list[int] = []

        def before(upload: Upload, tries: Tries) -> None:
            if upload.instance.sop_instance_uid == "1.3":
                tries_seen.append(tries.count)
                if tries.count < 2:
                    assert bench.written().attempts.get(upload.upload_id, 0) == tries.count
                    raise ZeroDivisionError

        placer = Placer(before)
        for number in range(10):
            log.add(f"1.{number}")
        bench = Bench(tmp_path, log, placer)
        for _ in range(2):
            worker = bench.worker()
            with pytest.raises(ExceptionGroup) as caught:
                await worker.run()
            (defect,) = caught.value.exceptions
            blamed = worker.blamed(defect)
            assert blamed is not None
            assert blamed.facts == {"association": "ab-3", "sop_instance_uid": "1.3"}
        worker = bench.worker()
        run = asyncio.create_task(worker.run())
        await until(lambda: bench.progress.checkpoint().count(Place.STORED) == 10, run)
        worker.stop()
        await run
        assert tries_seen == [0, 1, 2]
        assert not bench.written().attempts

    asyncio.run(scenario())


def test_an_upload_that_is_to_be_read_again_has_one_more_try(tmp_path: Path) -> None:
    """It ends the process once, is counted once, and none of its company with it."""

    async def scenario() -> None:
        log = ListLog()
        tries_seen: list[int] = []

        def before(upload: Upload, tries: Tries) -> None:
            if upload.instance.sop_instance_uid == "1.3":
                tries_seen.append(tries.count)
                if not tries.count:
                    raise Spoiled("scratch")

        for number in range(10):
            log.add(f"1.{number}")
        bench = Bench(tmp_path, log, Placer(before))
        worker = bench.worker()
        with pytest.raises(ExceptionGroup) as caught:
            await worker.run()
        (spoiled,) = caught.value.exceptions
        blamed = worker.blamed(spoiled)
        assert blamed is not None
        assert blamed.instance.sop_instance_uid == "1.3"
        assert list(bench.written().attempts.values()) == [1]
        worker = bench.worker()
        assert not bench.in_hand.left
        run = asyncio.create_task(worker.run())
        await until(lambda: bench.progress.checkpoint().count(Place.STORED) == 10, run)
        worker.stop()
        await run
        assert tries_seen == [0, 1]

    asyncio.run(scenario())


def test_a_checkpoint_that_cannot_be_written_is_put_off(tmp_path: Path) -> None:
    """Work goes on without its folder; when it is back, everything is counted once."""

    async def scenario() -> None:
        log, placer = ListLog(), Placer()
        bench = Bench(tmp_path, log, placer)
        worker = bench.worker()
        (tmp_path / "checkpoints").rmdir()
        for number in range(10):
            log.add(f"1.{number}")
        run = asyncio.create_task(worker.run())
        await until(lambda: len(placer.placed) == 10, run)
        (tmp_path / "checkpoints").mkdir()
        await until(lambda: checkpoint_path(tmp_path / "checkpoints", 0).exists(), run)
        worker.stop()
        await run
        assert bench.written().counters == {Place.STORED: 10}
        assert len(bench.outcomes.announced) == 10

    asyncio.run(scenario())
