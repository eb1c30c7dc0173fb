"""`quarantine list|show|replay|discard` as an administrator and his scripts meet them."""

import asyncio
from pathlib import Path

import pytest

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Place
from tests.support.command import run
from tests.support.datasets import data_set_bytes
from tests.support.placing import CT, placing
from workers.storage.layout import Area
from workers.storage.stores import open_stores

UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
KEYS = {"sop_instance_uid", "source_digest", "reason", "path"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One entry that was sent twice."""

    async def scenario() -> None:
        async with placing(tmp_path, encode=False) as one:
            for _ in range(2):
                outcome = await one.data_set(data_set_bytes(CT)[:400], CT)
                assert outcome.place is Place.QUARANTINED

    asyncio.run(scenario())
    return tmp_path


def test_list_for_scripts(data: Path) -> None:
    """An array with at least the promised keys; the path is the entry's file."""
    (entry,) = run(data, "quarantine", "list", "--json").json  # type: ignore[misc]
    assert entry.keys() >= KEYS
    assert entry["sop_instance_uid"] == UID
    assert entry["reason"] == "truncated"
    assert entry["repeats"] == 1
    assert data_set_bytes(Path(entry["path"])) == data_set_bytes(CT)[:400]
    assert "manifest" not in entry


def test_list_before_any_worker_has_run(tmp_path: Path) -> None:
    """An empty list, and nothing is made."""
    for lane in ("quarantine", "conflicts"):
        done = run(tmp_path / "none", lane, "list", "--json")
        assert (done.code, done.json) == (0, [])
    assert not (tmp_path / "none").exists()
    assert run(tmp_path / "none", "quarantine", "discard", "x", "--reason", "r").code == 1


def test_list_for_people_has_whole_uids(data: Path) -> None:
    """A UID must come out whole, to be copied."""
    assert UID in run(data, "quarantine", "list").out


def test_it_works_while_workers_run(data: Path) -> None:
    """Workers hold the stores open; commands work beside them."""
    with open_stores([data / "store"]):
        assert run(data, "quarantine", "list").code == 0
        assert run(data, "quarantine", "discard", UID, "--reason", "test").code == 0


@pytest.mark.parametrize("by", ["uid", "digest", "key", "path"])
def test_an_entry_is_named_by_what_one_has(data: Path, by: str) -> None:
    """By UID, the beginning of its digest, its key or its path."""
    (entry,) = run(data, "quarantine", "list", "--json").json  # type: ignore[misc]
    name = {
        "uid": UID,
        "digest": entry["source_digest"][:8],
        "key": entry["key"],
        "path": entry["path"],
    }[by]
    shown = run(data, "quarantine", "show", name, "--json").json
    assert shown["key"] == entry["key"]  # type: ignore[call-overload, index]
    assert shown["manifest"]["calling_ae_title"] == "MODALITY"  # type: ignore[call-overload, index]
    assert "truncated" in run(data, "quarantine", "show", name).out


def test_naming_one_entry_looks_at_no_other(data: Path) -> None:
    """By key, path or UID an entry is found without reading the rest of a lane, which may be long or in trouble."""
    (entry,) = run(data, "quarantine", "list", "--json").json  # type: ignore[misc]

    async def another() -> str:
        async with placing(data, encode=False) as one:
            one.sequence = 10
            return (await one.data_set(data_set_bytes(CT)[:400], CT, sop_instance_uid="1.2.3")).key

    shard = asyncio.run(another()).split("/")[1]
    trouble = data / "store" / "moves" / shard / f"{UploadId.of(1, 1, 11).hex()}.json"
    trouble.parent.mkdir(parents=True)
    trouble.write_text("no move record")
    assert run(data, "quarantine", "list").code == 1
    for name in (UID, entry["key"], entry["path"]):
        assert run(data, "quarantine", "show", name).code == 0
    for name in ("1.2.3.4", f"quarantine/{shard}/1.2.3.4/none"):
        assert "0 entries" in run(data, "quarantine", "show", name).err


def test_what_is_not_there_is_said_so(data: Path) -> None:
    """Exit code 1 and one line."""
    done = run(data, "quarantine", "show", "1.2.3")
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_a_replay_that_is_rejected_again_exits_with_1(data: Path) -> None:
    """The entry stays, each upload is told, and the source is named as one that may have deleted its copy."""
    done = run(data, "quarantine", "replay", "--all")
    assert done.code == 1
    assert done.out.count("quarantined (truncated)") == 2
    assert f"{UID} was acknowledged to MODALITY (127.0.0.1)" in done.err
    assert len(run(data, "quarantine", "list", "--json").json) == 1  # type: ignore[arg-type]
    assert not list(data.glob("replay-*"))


def test_discard_warns_and_counts(data: Path) -> None:
    """A reason is required; the uploads are told; the entry is gone."""
    assert run(data, "quarantine", "discard", UID).code == 2
    done = run(data, "quarantine", "discard", UID, "--reason", "test image")
    assert done.code == 0
    assert "2 uploads" in done.out
    assert "acknowledged" in done.err
    assert run(data, "quarantine", "list", "--json").json == []


def test_replay_needs_to_know_what(data: Path) -> None:
    """Entries or --all, not neither and not both."""
    assert run(data, "quarantine", "replay").code == 2
    assert run(data, "quarantine", "replay", UID, "--all").code == 2


def test_a_restored_object_is_replayed_by_the_command(tmp_path: Path) -> None:
    """An object that verify would have set aside wrongly goes back by `replay`."""

    async def scenario() -> None:
        async with placing(tmp_path) as one:
            await one.file(CT)

    asyncio.run(scenario())
    path = next((tmp_path / "store").glob("???/*.dcm"))
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert run(tmp_path, "verify").code == 1
    (entry,) = run(tmp_path, "quarantine", "list", "--json").json  # type: ignore[misc]
    assert entry["reason"] == "damaged"
    assert run(tmp_path, "quarantine", "replay", entry["key"]).code == 1
    Path(entry["path"]).write_bytes(good)  # as from a backup
    done = run(tmp_path, "quarantine", "replay", entry["key"])
    assert (done.code, path.read_bytes()) == (0, good)
    assert Area.QUARANTINE in entry["key"]
