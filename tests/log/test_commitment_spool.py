"""The commitment log of one machine: durable, in order, and whatever was handed over comes in exactly when it is whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.contract.commitments import (
    CommitAccepted,
    CommitAttempted,
    CommitClosed,
    CommitDecided,
    CommitProved,
    Finding,
    Found,
    found_of,
)
from ingest.contract.identifiers import TransactionId
from ingest.contract.records import CorruptRecord
from ingest.contract.settings import Settings
from ingest.contract.spool import OsDisk, SpoolLocked
from ingest.contract.spool.disk import replace_file
from ingest.log.commitment_handover import leave_request, proof_folder, request_folder
from ingest.log.commitment_log import Entry, Location, Request, Written
from ingest.log.commitment_spool import SpoolCommitmentLog
from tests.support.asynchronous import asynchronous
from tests.support.commitment import until

ONE = TransactionId.of("CT", "1.2.3")
ACCEPTED = CommitAccepted("1.2.3", "CT", "US", "", 2, b"d" * 32, 2, 7, 9, 0.0, 5)
FOUND = [Found("1.2", "1.2.3", Finding.PROVED), Found("1.2", "1.2.4", Finding.ABSENT)]


@asynccontextmanager
async def opened(data: Path) -> AsyncIterator[SpoolCommitmentLog]:
    log = SpoolCommitmentLog(Settings(data=data))
    log.expecting = True
    await log.start()
    try:
        yield log
    finally:
        await log.close()


async def all_of(log: SpoolCommitmentLog, count: int = 0) -> list[Entry]:
    entries: list[Entry] = []
    while len(entries) < count or not log.caught_up:
        entries += await log.read(1.0)
    return entries


def proof(number: int = 0) -> bytes:
    header, payload = Written(ONE, CommitProved(number, 0, 1, 3, 5), FOUND).encode()
    return header + payload


def leave(path: Path, data: bytes) -> None:
    """As a worker does: whole under its name at once, since an open log looks at any moment."""
    replace_file(OsDisk(), path, data)


@asynchronous
async def test_what_is_published_is_read_now_and_after_a_restart(tmp_path: Path) -> None:
    """In order, own records included, with places by which a record is found again."""
    async with opened(tmp_path) as log:
        assert await all_of(log) == []
        places = await asyncio.gather(
            log.publish([Written(ONE, ACCEPTED)]),
            log.publish(
                [Written(ONE, CommitProved(0, 0, 1, 3, 5), FOUND), Written(ONE, CommitDecided(0, 6))]
            ),
        )
        entries = await all_of(log, 3)
        assert [entry.commitment for entry in entries] == [
            ACCEPTED,
            CommitProved(0, 0, 1, 3, 5),
            CommitDecided(0, 6),
        ]
        assert (entries[1].absent, entries[1].unavailable) == (1, 0)
        assert all(log.passed(place) for place in places)
        assert found_of(await log.fetch(entries[1].location)) == FOUND
        with pytest.raises(CorruptRecord):
            await log.fetch(Location(0, entries[1].location.position + 8))
    async with opened(tmp_path) as log:
        assert await all_of(log) == entries


@asynchronous
async def test_proofs_are_taken_over_whole_and_only_whole(tmp_path: Path) -> None:
    """A proof's file becomes a record and goes; what is none is put aside; unfinished ones are left alone."""
    folder = proof_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / f"{ONE.hex()}-0-0").write_bytes(proof())
    (folder / f"{ONE.hex()}-1-0").write_bytes(proof(1)[:-1])
    header, _ = Written(ONE, CommitClosed("reported", 1, 1, 5)).encode()
    (folder / f"{ONE.hex()}-2-0").write_bytes(header)
    (folder / ".tmp-1234").write_bytes(proof(3)[:10])
    async with opened(tmp_path) as log:
        (entry,) = await all_of(log, 1)
        assert entry.commitment == CommitProved(0, 0, 1, 3, 5)
        assert entry.transaction_id == ONE
        leave(folder / f"{ONE.hex()}-1-1", proof(1))
        assert [one.commitment for one in await all_of(log, 1)] == [CommitProved(1, 0, 1, 3, 5)]
        await until(lambda: not (folder / f"{ONE.hex()}-1-1").exists())
    assert sorted(path.name for path in folder.iterdir()) == [".tmp-1234", "bad"]
    assert sorted(path.name for path in (folder / "bad").iterdir()) == [
        f"{ONE.hex()}-1-0",
        f"{ONE.hex()}-2-0",
    ]


@asynchronous
async def test_a_proof_that_cannot_be_read_does_not_keep_the_others(tmp_path: Path) -> None:
    """It is told of once, stays where it is, and is taken when it can be read."""
    folder = proof_folder(tmp_path)
    folder.mkdir(parents=True)
    unreadable = folder / f"{ONE.hex()}-0-0"
    unreadable.mkdir()  # EISDIR, also for root
    (folder / f"{ONE.hex()}-1-0").write_bytes(proof(1))
    with capture_logs() as lines:
        async with opened(tmp_path) as log:
            (entry,) = await all_of(log, 1)
            assert entry.commitment == CommitProved(1, 0, 1, 3, 5)
            leave(folder / f"{ONE.hex()}-2-0", proof(2))
            assert len(await all_of(log, 1)) == 1
            unreadable.rmdir()
            leave(unreadable, proof())
            assert len(await all_of(log, 1)) == 1
    assert sum(line["log_level"] == "error" for line in lines) == 1


@asynchronous
async def test_a_defect_does_not_end_the_taking_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of, and proofs come in once it has passed: without them no report would ever be decided."""
    async with opened(tmp_path) as log:
        with capture_logs() as lines, monkeypatch.context() as defect:
            defect.setattr(log._handover, "look", lambda _: 1 / 0)
            await until(lambda: bool(lines))
        leave(proof_folder(tmp_path) / f"{ONE.hex()}-0-0", proof())
        assert len(await all_of(log, 1)) == 1
    assert [line["log_level"] for line in lines] == ["error"]


@asynchronous
async def test_requests_reach_the_log_whether_it_is_open_or_not(tmp_path: Path) -> None:
    """An administrator's request waits in its folder, and becomes the record that grants it."""
    leave_request(OsDisk(), tmp_path, ONE, Request.RETRY)
    async with opened(tmp_path) as log:
        (entry,) = await all_of(log, 1)
        assert isinstance(entry.commitment, CommitAttempted)
        assert (entry.commitment.attempts, entry.commitment.wait) == (0, 0.0)
        leave_request(OsDisk(), tmp_path, ONE, Request.EXPIRE)
        (entry,) = await all_of(log, 1)
        assert isinstance(entry.commitment, CommitClosed)
        assert entry.commitment.how == "expired"
        await until(lambda: not list(request_folder(tmp_path).iterdir()))


@asynchronous
async def test_one_writer_only(tmp_path: Path) -> None:
    """A second receiver on the same folder does not start."""
    async with opened(tmp_path):
        with pytest.raises(SpoolLocked):
            await SpoolCommitmentLog(Settings(data=tmp_path)).start()


@asynchronous
async def test_segments_below_the_mark_are_used_again(tmp_path: Path) -> None:
    """The log stays small while its mark follows, and a start reads on from the mark, not from what is gone."""
    many = [Found("1.2.840.10008.5.1.4.1.1.2", f"1.2.{number}", Finding.PROVED) for number in range(4000)]
    async with opened(tmp_path) as log:
        await all_of(log)
        for number in range(120):
            await log.publish([Written(ONE, CommitProved(number, 0, 1, 3, 5), many)])
            (entry,) = await all_of(log, 1)
            log.release(entry.location.position)
        segments = len(list((tmp_path / "commitments" / "segments").iterdir()))
        assert segments <= 4
    async with opened(tmp_path) as log:
        rest = await all_of(log)
        assert rest[-1] == entry
        assert len(rest) < 120
