"""Proofs as files between worker and receiver: whole, durable, once, and held back on a full disk."""

import os
from pathlib import Path

import pytest

from ingest.contract.commitments import CommitProved, Finding, Found, commitment_of, found_of
from ingest.contract.records import Kind, decode
from tests.support.asynchronous import asynchronous
from tests.support.fences import CLASS, TRANSACTION
from tests.support.small_disk import SmallDisk
from workers.errors import Unavailable
from workers.log.proof import Proof
from workers.log.proof_files import ProofFiles, file_name


def proof(finding: Finding = Finding.PROVED, part: int = 3, count: int = 2) -> Proof:
    """Of one fence."""
    found = [Found(CLASS, f"1.2.{number}", finding) for number in range(count)]
    return Proof(TRANSACTION, CommitProved(1, part, 8, 5, 123), found)


@asynchronous
async def test_a_proof_is_one_record_under_its_name(tmp_path: Path) -> None:
    """The folder is made when it is missing; the file holds exactly the record."""
    await ProofFiles(tmp_path).publish(proof())
    (path,) = (tmp_path / "proofs").iterdir()
    assert path.name == f"{TRANSACTION.hex()}-1-3"
    record = decode(path.read_bytes())
    assert (record.kind, record.upload_id) == (Kind.COMMIT_PROVED, bytes(TRANSACTION))
    assert commitment_of(record) == proof().proved
    assert found_of(record) == list(proof().found)


@asynchronous
async def test_one_that_is_there_is_left(tmp_path: Path) -> None:
    """A replay brings the same proof, perhaps with other findings: the first that could be read stands."""
    files = ProofFiles(tmp_path)
    await files.publish(proof(Finding.DAMAGED))
    await files.publish(proof(Finding.ABSENT))
    (path,) = (tmp_path / "proofs").iterdir()
    assert found_of(decode(path.read_bytes())) == list(proof(Finding.DAMAGED).found)


@asynchronous
async def test_what_a_killed_worker_left_is_written_over(tmp_path: Path) -> None:
    """It has a name that no reader takes for a proof, and is gone with the next try."""
    folder = tmp_path / "proofs"
    folder.mkdir()
    (folder / f".{file_name(proof())}").write_bytes(b"x" * 10_000)
    await ProofFiles(tmp_path).publish(proof())
    (path,) = folder.iterdir()
    assert path.read_bytes() == proof().encoded()


@asynchronous
async def test_it_is_synced_before_it_has_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave an empty file that looks like a proof, or take a proof that was counted."""
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("folder" if target.is_dir() else "file")
        fsync(descriptor)

    def linked(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        steps.append("link")
        link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    files = ProofFiles(tmp_path)
    await files.publish(proof())
    assert steps == ["folder", "file", "link", "folder"]
    steps.clear()
    await files.publish(proof())
    assert steps[-1] == "folder", "one that is found may not be durable yet"


@asynchronous
async def test_a_full_disk_is_for_now(tmp_path: Path) -> None:
    """Nothing is left of the try, and the next one succeeds when there is room."""
    with SmallDisk(tmp_path / "disk", "1m") as disk:
        files = ProofFiles(disk.path)
        await files.publish(proof(part=1))
        disk.fill(leave=8192)
        large = proof(part=2, count=2000)
        with pytest.raises(Unavailable, match="No space left"):
            await files.publish(large)
        assert [path.name for path in (disk.path / "proofs").iterdir()] == [file_name(proof(part=1))]
        disk.relieve()
        await files.publish(large)
        assert (disk.path / "proofs" / file_name(large)).read_bytes() == large.encoded()
