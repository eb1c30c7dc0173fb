"""`quarantine list|show|replay|discard` as an administrator and his scripts meet them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ingest.contract.checkpoint import Checkpoint, checkpoint_path, write_checkpoints
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Place
from ingest.contract.settings import Settings
from tests.support.command import run
from tests.support.datasets import data_set_bytes
from tests.support.placing import CT, placing
from tests.support.waiting import until
from workers.ledger.consumer import move_rows
from workers.storage.layout import Area
from workers.storage.part10 import decode_head, encode_head
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
    (entry,) = run(data, "quarantine", "list", "--json").json
    assert entry.keys() >= KEYS
    assert entry["sop_instance_uid"] == UID
    assert entry["reason"] == "truncated"
    assert entry["repeats"] == 1
    assert data_set_bytes(Path(entry["path"])) == data_set_bytes(CT)[:400]
    assert "manifest" not in entry


def test_a_manifest_that_names_no_upload_is_unreadable(data: Path) -> None:
    """Its entry is listed, shown and can be discarded, and `verify` sets it aside."""
    (entry,) = run(data, "quarantine", "list", "--json").json
    path = Path(entry["path"])
    whole = path.read_bytes()
    head = decode_head(whole)
    forged = msgspec.structs.replace(head.manifest, upload_id="not of this world")
    path.write_bytes(encode_head(forged) + whole[head.size :])
    (entry,) = run(data, "quarantine", "list", "--json").json
    assert entry["reason"] == "unreadable"
    assert run(data, "quarantine", "show", UID).code == 0
    (problem,) = run(data, "verify", "--json").json["problems"]
    assert problem["set_aside"]
    assert run(data, "quarantine", "discard", UID, "--reason", "forged").code == 0


@pytest.mark.parametrize("name", [".DS_Store", "fff/.nfs0000000000c61e6600000001", f"fff/{UID}.bak"])
def test_a_strangers_file_in_a_lane_stops_nothing(data: Path, name: str) -> None:
    """It is no entry, `verify` names it, and all others are replayed and proved."""
    stranger = data / "store" / "quarantine" / "000" / name
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"Mac OS X")
    assert len(run(data, "quarantine", "list", "--json").json) == 1
    replayed = run(data, "quarantine", "replay", "--all", "--json").json
    assert [UID in one["key"] for one in replayed] == [True, True]
    verified = run(data, "verify", "--json")
    assert verified.code == 1
    (problem,) = verified.json["problems"]
    assert (problem["path"], problem["damaged"]) == (str(stranger), False)
    assert stranger.exists()


def working(data: Path, *what: str) -> subprocess.Popen[bytes]:
    """A command on the lane; pages of a list have one row."""
    code = (
        "from workers.cli import entry_tables; entry_tables._PAGE = 1; "
        "from ingest.cli.group import main; main()"
    )
    command = [sys.executable, "-c", code, "quarantine", *what, "--data", str(data)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.real
@pytest.mark.parametrize("what", [["list", "--json"], ["list"], ["replay", "--all"]])
def test_a_lane_is_worked_through_as_it_is_read(data: Path, what: list[str]) -> None:
    """Of a million entries no more is in memory than a page of them."""
    endless = data / "store" / "quarantine" / "fff" / "1.2" / ("f" * 64)
    endless.parent.mkdir(parents=True)
    os.mkfifo(endless)  # to read it takes as long as nobody writes
    with working(data, *what) as command:
        output = command.stdout
        assert output is not None
        until(lambda: UID.encode() in output.readline())
        assert command.poll() is None
        command.kill()


@pytest.mark.real
def test_whoever_has_seen_enough_of_a_list_is_told_of_no_error(data: Path) -> None:
    """As in `quarantine list | head`."""
    with working(data, "list") as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.wait(60) == 1
        assert command.stderr.read() == b""


def test_a_list_has_the_form_of_every_answer(data: Path) -> None:
    """However it is put together."""
    for number in range(2):
        (data / "store" / "quarantine" / "fff" / f"1.{number}").mkdir(parents=True)
        (data / "store" / "quarantine" / "fff" / f"1.{number}" / ("f" * 64)).write_bytes(b"nothing")
    done = run(data, "quarantine", "list", "--json")
    assert len(done.json) == 3
    assert done.out == json.dumps(done.json, indent=2) + "\n"


def test_list_before_any_worker_has_run(tmp_path: Path) -> None:
    """An empty list, and nothing is made."""
    for lane in ("quarantine", "conflicts"):
        done = run(tmp_path / "none", lane, "list", "--json")
        assert (done.code, done.json) == (0, [])
    assert not (tmp_path / "none").exists()
    assert run(tmp_path / "none", "quarantine", "discard", "x", "--reason", "r").code == 1


def test_a_store_that_is_away_is_not_an_empty_lane(tmp_path: Path) -> None:
    """Workers have placed something, and its disk is not mounted."""
    counted = Checkpoint(partition=0, counters={Place.QUARANTINED: 1})
    folder = checkpoint_path(tmp_path / "checkpoints", 0).parent
    folder.mkdir()
    write_checkpoints(folder, [counted])
    for lane in ("quarantine", "conflicts"):
        done = run(tmp_path, lane, "list", "--json")
        assert (done.code, done.out) == (1, "")
        assert done.err == f"Error: there is no store at {tmp_path / 'store'}\n"


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
    (entry,) = run(data, "quarantine", "list", "--json").json
    name = {
        "uid": UID,
        "digest": entry["source_digest"][:8],
        "key": entry["key"],
        "path": entry["path"],
    }[by]
    shown = run(data, "quarantine", "show", name, "--json").json
    assert shown["key"] == entry["key"]
    assert shown["manifest"]["calling_ae_title"] == "MODALITY"
    assert "truncated" in run(data, "quarantine", "show", name).out


def test_naming_one_entry_looks_at_no_other(data: Path) -> None:
    """By key, path or UID an entry is found without reading the rest of a lane, which may be long or in trouble."""
    (entry,) = run(data, "quarantine", "list", "--json").json

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
        assert "no entry of quarantine is named" in run(data, "quarantine", "show", name).err


def test_what_is_not_there_is_said_so(data: Path) -> None:
    """Exit code 1 and one line."""
    done = run(data, "quarantine", "show", "1.2.3")
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_a_replay_that_is_rejected_again_exits_with_1(data: Path) -> None:
    """The entry stays, each upload is told, and the source is named as one that may have deleted its copy."""
    done = run(data, "quarantine", "replay", "--all")
    assert done.code == 1
    assert done.out.count("quarantined (truncated: a value is longer than what holds it)") == 2
    assert f"{UID} was acknowledged to MODALITY (127.0.0.1)" in done.err
    assert len(run(data, "quarantine", "list", "--json").json) == 1
    assert list(move_rows(Settings(data=data))) == []  # the ledger's reason stays, too
    assert not list(data.glob("replay-*"))


def test_discard_warns_and_counts(data: Path) -> None:
    """A reason is required; the uploads are told; the entry is gone."""
    assert run(data, "quarantine", "discard", UID).code == 2
    latin_1 = run(data, "quarantine", "discard", UID, "--reason", os.fsdecode(b"f\xfcr immer"))
    assert (latin_1.code, "not UTF-8" in latin_1.err) == (2, True)
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
    (entry,) = run(tmp_path, "quarantine", "list", "--json").json
    assert entry["reason"] == "damaged"
    assert run(tmp_path, "quarantine", "replay", entry["key"]).code == 1
    Path(entry["path"]).write_bytes(good)  # as from a backup
    done = run(tmp_path, "quarantine", "replay", entry["key"])
    assert (done.code, path.read_bytes()) == (0, good)
    assert Area.QUARANTINE in entry["key"]


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """Of two unknown sources one instance each, of one of them twice; and one that cannot be read, of a known one."""

    async def scenario() -> None:
        data = data_set_bytes(CT)
        async with placing(tmp_path, encode=False) as one:
            for title, uid in (("NEW_CT", UID), ("NEW_CT", UID), ("SCANNER", "1.2.3")):
                outcome = await one.data_set(
                    data, CT, calling_ae_title=title, sop_instance_uid=uid, unknown_source=True
                )
                assert (outcome.place, outcome.reason) == (Place.QUARANTINED, "unknown-source")
            await one.data_set(data[:400], CT, sop_instance_uid="1.2.4")

    asyncio.run(scenario())
    return tmp_path


def test_what_unknown_sources_sent_is_let_in_by_name_only(held: Path) -> None:
    """--all is for what a new release reads; strangers are let in one AE title, or one entry, at a time."""
    listed = run(held, "quarantine", "list", "--json").json
    reasons = {entry["sop_instance_uid"]: entry["reason"] for entry in listed}
    assert reasons == {UID: "unknown-source", "1.2.3": "unknown-source", "1.2.4": "truncated"}
    assert not list((held / "store").glob("???/*.dcm"))
    assert run(held, "quarantine", "replay", "--all").out.count("\n") == 1
    assert run(held, "quarantine", "replay", "--all", "--unknown", "NEW_CT").code == 2
    done = run(held, "quarantine", "replay", "--unknown", "NEW_CT")
    assert done.code == 0
    assert sorted(line.rpartition(": ")[2] for line in done.out.splitlines()) == ["duplicate", "stored"]
    (stored,) = (held / "store").glob("???/*.dcm")
    assert stored.name == f"{UID}.dcm"
    left = run(held, "quarantine", "list", "--json").json
    assert {entry["sop_instance_uid"] for entry in left} == {"1.2.3", "1.2.4"}
    # That one says it is another instance than it is, which only its replay finds out.
    assert run(held, "quarantine", "replay", "--unknown", "SCANNER").code == 1
    assert "mismatch" in run(held, "quarantine", "replay", "1.2.3").out
    assert run(held, "quarantine", "discard", "--reason", "r").code == 2
    assert (
        run(held, "quarantine", "discard", "--unknown", "SCANNER", "--reason", "a test of theirs").code == 0
    )
    left = run(held, "quarantine", "list", "--json").json
    assert [entry["sop_instance_uid"] for entry in left] == ["1.2.4"]


def test_a_replayed_stranger_counts_where_it_is_after_a_crash(held: Path) -> None:
    """The worker that had not yet written its checkpoint does not quarantine it once more."""
    assert run(held, "quarantine", "replay", "--unknown", "NEW_CT").code == 0

    async def again() -> None:
        async with placing(held, encode=False) as one:
            outcome = await one.data_set(
                data_set_bytes(CT), CT, calling_ae_title="NEW_CT", unknown_source=True
            )
            assert (outcome.place, outcome.reason) == (Place.QUARANTINED, "")

    asyncio.run(again())
    assert UID not in run(held, "quarantine", "list").out


def test_a_stranger_learns_nothing_of_what_is_stored(tmp_path: Path) -> None:
    """The bytes of a stored instance from a stranger are no duplicate, and the store's object stays as it is."""

    async def scenario() -> None:
        async with placing(tmp_path, encode=False) as one:
            await one.file(CT)
            (stored,) = (tmp_path / "store").glob("???/*.dcm")
            before = stored.read_bytes()
            assert (await one.file(CT, unknown_source=True)).place is Place.QUARANTINED
            assert (await one.file(CT)).place is Place.DUPLICATE
            assert stored.read_bytes() == before

    asyncio.run(scenario())
