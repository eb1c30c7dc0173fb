"""Who is running: a file is believed only while the process that wrote it lives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.contract.running import announce, run_folder, running_processes, start_time, withdraw
from tests.support.small_disk import SmallDisk

ANNOUNCE = "import sys, pathlib; from ingest.contract.running import announce; announce(pathlib.Path(sys.argv[1]), 'receiver', port=104); print(flush=True); sys.stdin.read()"


def test_announced_process_is_found(tmp_path: Path) -> None:
    """What a process says of itself is read back while it runs, and gone when it withdraws."""
    path = announce(tmp_path, "receiver", host="::1", port=104, ae_title="A")
    (running,) = running_processes(tmp_path)
    assert (running.name, running.pid, running.host, running.port) == ("receiver", os.getpid(), "::1", 104)
    withdraw(path)
    assert running_processes(tmp_path) == []


def test_data_folder_is_not_for_everyone(tmp_path: Path) -> None:
    """The first process makes a data folder that other users of the machine cannot read."""
    announce(tmp_path / "data", "receiver")
    assert (tmp_path / "data").stat().st_mode & 0o007 == 0


def test_killed_process_is_not_listed(tmp_path: Path) -> None:
    """After kill -9 the file stays, yet nobody is said to run; not even while the process awaits its parent."""
    with subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert [found.pid for found in running_processes(tmp_path)] == [child.pid]
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert running_processes(tmp_path) == []
    assert list(run_folder(tmp_path).glob("*.json"))


def test_reused_process_id_is_not_believed(tmp_path: Path) -> None:
    """A file of a process whose id now belongs to another one is stale."""
    path = announce(tmp_path, "receiver")
    path.write_text(path.read_text().replace(str(start_time(os.getpid())), "1"))
    assert running_processes(tmp_path) == []


def test_withdraw_leaves_a_successor_alone(tmp_path: Path) -> None:
    """A slow stop does not remove the file of the process that took its place."""
    path = announce(tmp_path, "receiver")
    path.write_text(path.read_text().replace(f'"pid":{os.getpid()}', '"pid":1'))
    withdraw(path)
    assert path.exists()


def test_foreign_file_is_ignored(tmp_path: Path) -> None:
    """What is no announcement does no harm."""
    announce(tmp_path, "receiver")
    (run_folder(tmp_path) / "other.json").write_text("[]")
    assert [found.name for found in running_processes(tmp_path)] == ["receiver"]


def test_a_full_disk_keeps_nobody_from_a_restart(tmp_path: Path) -> None:
    """What an earlier process left is written over where not one more byte can be had; half of it is nobody."""
    with SmallDisk(tmp_path / "disk", "1m") as disk:
        path = announce(disk.path, "receiver", host="127.0.0.1", port=11112, ae_title="DICOM-INGEST")
        disk.fill()
        assert announce(disk.path, "receiver", port=104) == path
        (running,) = running_processes(disk.path)
        assert (running.pid, running.host, running.port) == (os.getpid(), "", 104)
        assert list(run_folder(disk.path).iterdir()) == [path]
        withdraw(path)
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            announce(disk.path, "receiver", port=104)
        assert list(run_folder(disk.path).iterdir()) == []


def test_a_folder_that_cannot_be_read_is_not_one_without_processes(tmp_path: Path) -> None:
    """Else `status` would say that nobody runs; a link to itself stands for what root may read always."""
    run_folder(tmp_path).symlink_to(run_folder(tmp_path))
    with pytest.raises(OSError, match="symbolic links"):
        running_processes(tmp_path)
