"""Commands that only look, on a disk that is mounted read-only: as of a backup, or one that is failing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.contract.records import Place
from tests.support.command import run
from tests.support.placing import CT, placing
from tests.support.small_disk import SmallDisk
from workers.storage.layout import object_key

UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """One object and one entry in quarantine, on a disk that takes nothing more."""

    async def fill(data: Path) -> None:
        async with placing(data) as one:
            assert (await one.file(CT)).place is Place.STORED
            assert (await one.file(CT, seal=bytes(16))).place is Place.QUARANTINED

    with SmallDisk(tmp_path / "disk", "8m") as disk:
        asyncio.run(fill(disk.path / "data"))
        (disk.path / "data" / "store" / "tmp").mkdir(exist_ok=True)
        (disk.path / "data" / "store" / "tmp" / "0123").write_bytes(b"what a killed writer left")
        disk.become_read_only()
        yield disk.path / "data"


def test_what_is_stored_can_be_had(data: Path, tmp_path: Path) -> None:
    """Proved, as it is and decompressed."""
    target = tmp_path / "x.dcm"
    assert run(data, "get", "--sop", UID, str(target)).code == 0
    assert target.read_bytes() == (data / "store" / str(object_key(UID))).read_bytes()
    assert run(data, "get", "--sop", UID, str(target), "--decompress").code == 0


def test_what_is_there_can_be_looked_at(data: Path) -> None:
    """The lanes, and whether all is sound."""
    (entry,) = run(data, "quarantine", "list", "--json").json
    assert entry["reason"] == "seal"
    assert run(data, "quarantine", "show", UID).code == 0
    assert run(data, "conflicts", "list", "--json").json == []
    report = run(data, "verify", "--report-only", "--json").json
    assert (report["objects"], report["entries"], report["problems"]) == (1, 1, [])
