"""The README's procedure: back up in its order, lose everything, restore, verify."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.pipeline import CORPUS, Pipeline, assert_adds_up

pytestmark = pytest.mark.real

# Of every kind, and none that takes a codec long.
FILES = sorted(path for path in CORPUS.glob("*.dcm") if path.stat().st_size < 200_000)


def send(pipeline: Pipeline, *paths: Path) -> int:
    """Send; the number of instances that were acknowledged."""
    command = pipeline.command("send", *map(str, paths), "--to", f"127.0.0.1:{pipeline.port}", "--json")
    done = subprocess.run(command, check=False, capture_output=True, timeout=120)
    return int(done.stdout.split(b'"sent": ')[1].split(b",")[0])


def copy(data: Path, backup: Path, *names: str) -> None:
    """As an administrator does: `cp -a`, which takes the spool's FIFOs for what they are."""
    backup.mkdir(exist_ok=True)
    for name in names:
        subprocess.run(["cp", "-a", data / name, backup], check=True)


def test_backup_and_restore(tmp_path: Path) -> None:
    """After the restore every acknowledged instance is counted once and whole, those in the spool's copy too."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    pipeline = Pipeline(data, workers=1)
    with pipeline:
        sent = send(pipeline, *FILES[: len(FILES) // 2])
        pipeline.settle()
        copy(data, backup, "store")  # step 1, while everything runs
        sent += send(pipeline, *FILES[len(FILES) // 2 :])
    copy(data, backup, "spool", "outcomes", "checkpoints")
    copy(data, backup, "store")
    before = pipeline.status()
    assert before["received"] == sent
    shutil.rmtree(data)
    subprocess.run(["cp", "-a", backup, data], check=True)
    with pipeline:
        after = pipeline.settle()
    assert_adds_up(after)
    assert after["received"] == sent
    assert len(pipeline.objects()) == after["stored"]
    verify = subprocess.run(
        pipeline.command("verify", "--data", str(data)), check=False, capture_output=True, timeout=300
    )
    assert verify.returncode == 0, verify.stdout + verify.stderr


def test_spool_that_is_older_than_the_store(tmp_path: Path) -> None:
    """What the spool's copy holds and the store has already is its own earlier write: stored once, counted once."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    pipeline = Pipeline(data, workers=1)
    with pipeline:
        sent = send(pipeline, *FILES[:12])
        first = pipeline.settle()
    copy(data, backup, "spool", "store")
    shutil.rmtree(data)
    subprocess.run(
        ["cp", "-a", backup, data], check=True
    )  # without outcomes and checkpoints: everything in the spool is work again
    with pipeline:
        after = pipeline.settle()
    assert_adds_up(after)
    assert after["received"] == sent
    assert after["stored"] == first["stored"] == len(pipeline.objects())
    assert after["duplicates"] == first["duplicates"]
