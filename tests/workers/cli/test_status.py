"""`status`: one true report, also over damage."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.contract.checkpoint import Checkpoint, checkpoint_path, write_checkpoints
from ingest.contract.records import Place
from ingest.contract.settings import Settings
from ingest.contract.spool import Layout, OsDisk
from ingest.contract.spool.making import make_log
from ingest.contract.spool.pool import PoolLimits
from tests.support.pipeline import assert_adds_up
from workers.cli.status_report import read_report
from workers.storage.shard_map import MAP_FILE

UPLOAD = "0" * 31 + "1"


def status(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingest", "status", "--data", str(data), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def checkpoint(data: Path, **counters: int) -> Path:
    path = checkpoint_path(data / "checkpoints", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    places = {Place(name): number for name, number in counters.items()}
    reasons = {f"{name}/why": number for name, number in counters.items()}
    write_checkpoints(path.parent, [Checkpoint(partition=0, counters=places, reasons=reasons)])
    return path


def move(data: Path, source: str, target: str) -> Path:
    path = data / "store" / "moves" / "abc" / f"{UPLOAD}.json"
    path.parent.mkdir(parents=True)
    record = {"upload_id": UPLOAD, "from": source, "to": target, "key": "k", "reason": "r", "at": 1}
    path.write_text(json.dumps(record))
    return path


def test_report_of_a_folder_with_everything_down(tmp_path: Path) -> None:
    """Counters, moves and the store's sizes, without any process; the sum is exact."""
    checkpoint(tmp_path, stored=5, quarantined=2, duplicate=3, conflict=1)
    move(tmp_path, "quarantined", "discarded")
    for shard, size in (("abc", 10), ("a00", 20), ("0ff", 5)):
        folder = tmp_path / "store" / shard
        folder.mkdir(parents=True)
        (folder / "1.2.dcm").write_bytes(bytes(size))
    done = status(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert_adds_up(report)
    counts = {name: report[name] for name in ("received", "stored", "duplicates", "conflicts", "quarantined")}
    assert counts == {"received": 11, "stored": 5, "duplicates": 3, "conflicts": 1, "quarantined": 1}
    assert report["discarded"] == 1
    assert report["reasons"] == {"conflict/why": 1, "duplicate/why": 3, "quarantined/why": 2, "stored/why": 5}
    assert report["listening"] is None
    store = str(tmp_path / "store")
    assert report["store"] == [
        {"store": store, "shards": "0xx", "objects": 1, "bytes": 5},
        {"store": store, "shards": "axx", "objects": 2, "bytes": 30},
    ]
    assert read_report(Settings(data=tmp_path), quick=True).store == []


def test_report_for_people_has_the_same_numbers(tmp_path: Path) -> None:
    """The text form says what the JSON form says."""
    checkpoint(tmp_path, stored=5, duplicate=3)
    lines = status(tmp_path).stdout.split()
    assert lines[lines.index("received") + 1] == "8"
    assert lines[lines.index("stored") + 1] == "5"


@pytest.mark.parametrize("damaged", ["checkpoint", "move"])
def test_damage_is_named_and_never_counted_around(tmp_path: Path, damaged: str) -> None:
    """A checkpoint or move that cannot be read is one line with its path and exit code 1, not a wrong number."""
    path = checkpoint(tmp_path, quarantined=1)
    if damaged == "move":
        path = move(tmp_path, "quarantined", "discarded")
    path.write_bytes(b"rot")
    done = status(tmp_path, "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {path}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("left", [None, b""], ids=["gone", "empty"])
def test_a_spool_without_its_end_is_not_an_empty_one(tmp_path: Path, left: bytes | None) -> None:
    """As after a restore that was cut: what waits in it cannot be counted before a receiver has recovered it."""
    layout = Layout(tmp_path / "spool")
    make_log(OsDisk(), layout, 1, PoolLimits(segment_size=1 << 20, maximum_size=1 << 22, reserve=0))
    assert status(tmp_path, "--json").returncode == 0
    layout.durable_end.unlink()
    if left is not None:
        layout.durable_end.write_bytes(left)
    done = status(tmp_path, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {layout.durable_end}: ")
    assert done.stderr.count("\n") == 1


def test_moves_that_cannot_be_read_are_not_no_moves(tmp_path: Path) -> None:
    """The places would be wrong, and nothing would say so."""
    checkpoint(tmp_path, quarantined=2)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "moves").symlink_to(tmp_path / "store" / "moves")  # for what root may read always
    done = status(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {tmp_path}/store/moves: ")


def test_a_store_that_is_not_mounted_is_told(tmp_path: Path) -> None:
    """What was moved in it is not counted; before anything was placed there need be none."""
    store = tmp_path / "store"
    store.mkdir()
    assert read_report(Settings(data=tmp_path)).notes == []
    checkpoint(tmp_path, quarantined=2)
    (note,) = read_report(Settings(data=tmp_path)).notes
    assert note.startswith(f"{store} has no shard map: is it mounted?")
    (store / MAP_FILE).write_bytes(b"{}")
    assert read_report(Settings(data=tmp_path)).notes == []


def test_unused_folder(tmp_path: Path) -> None:
    """Nothing was received; asking leaves no trace."""
    done = status(tmp_path / "none", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["received"] == 0
    assert not (tmp_path / "none").exists()
