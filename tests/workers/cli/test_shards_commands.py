"""`shards show|add|rebalance` over a store that grows."""

import asyncio
from pathlib import Path

import pytest

from tests.support.command import run
from tests.support.placing import CT, placing
from workers.storage.stores import open_stores


@pytest.fixture
def data(tmp_path: Path) -> Path:
    async def scenario() -> None:
        async with placing(tmp_path / "data", encode=False) as one:
            await one.file(CT)

    asyncio.run(scenario())
    return tmp_path / "data"


def test_a_store_grows(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added without moving, refused until the settings name it, then spread; the object is found all the time."""
    other = data.parent / "other"
    uid = next((data / "store").glob("???/*.dcm")).stem
    done = run(data, "shards", "add", str(other))
    assert done.code == 0
    assert "store.directories" in done.out
    refused = run(data, "verify")
    assert refused.code == 1
    assert "store-1" in refused.err
    monkeypatch.setenv("DICOM_INGEST_STORE__DIRECTORIES", f"{data / 'store'},{other}")
    shown = run(data, "shards", "show", "--json").json
    assert [store["shards"] for store in shown["stores"]] == [4096, 0]
    assert run(data, "get", "--sop", uid, str(data / "x.dcm")).code == 0
    done = run(data, "shards", "rebalance")
    assert (done.code, done.out) == (0, "2048 shards moved\n")
    shown = run(data, "shards", "show", "--json").json
    assert [store["shards"] for store in shown["stores"]] == [2048, 2048]
    assert shown["agreed"]
    assert run(data, "verify").code == 0
    assert "2048 shards" in run(data, "shards", "show").out
    assert run(data, "shards", "rebalance").out == "0 shards moved\n"


def test_not_while_workers_run(data: Path) -> None:
    """Whoever works by the map keeps it from changing; one line says what to do."""
    with open_stores([data / "store"]):
        for arguments in (("add", str(data / "other")), ("rebalance",)):
            done = run(data, "shards", *arguments)
            assert done.code == 1
            assert "stop the workers" in done.err


def test_without_stores(tmp_path: Path) -> None:
    """Nothing to show yet: said in one line."""
    for arguments in (("show",), ("rebalance",), ("add", str(tmp_path / "x"))):
        done = run(tmp_path / "none", "shards", *arguments)
        assert done.code == 1, arguments
        assert done.err.count("\n") == 1
    assert not (tmp_path / "x").exists()
