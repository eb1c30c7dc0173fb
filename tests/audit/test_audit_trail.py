"""The trail of a process: nothing waits for it, nothing of it is lost unsaid."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import structlog.testing

from ingest.contract.audit import Trail, record
from ingest.contract.audit.events import Transfer, application, refused
from ingest.contract.audit.files import Mark, TrailFiles
from ingest.contract.audit.trail import record_now
from ingest.contract.monitoring.instruments import KeptCounter
from ingest.contract.records import Place
from ingest.contract.settings import MiB, Settings
from ingest.contract.settings_sources import WrongSettings, load_settings
from tests.support.audit_trail import kinds, lines_of, trail_of
from tests.support.waiting import until

CT = "1.2.840.10008.5.1.4.1.1.2"
START, STOP = ("110100", "110120"), ("110100", "110121")
ALERT, TRANSFERRED = ("110113", "110126"), ("110104",)


def settings_of(data: Path, **audit: object) -> Settings:
    return Settings.model_validate({"data": data, "audit": {"destination": "file", **audit}})


def transfer(number: int = 0) -> Transfer:
    return Transfer("MODALITY", "US", "10.0.0.1", f"1.2.{number}", "", Place.STORED, "")


def value_of(trail: Trail, name: str) -> dict[tuple[str, ...], float]:
    (found,) = [one for one in trail.instruments if one.description.name == name]
    assert isinstance(found, KeptCounter)
    return dict(found.values())


def test_off_by_default(tmp_path: Path) -> None:
    """No thread, no folder, no metrics."""
    with Trail(Settings(data=tmp_path), "receiver") as trail:
        record(refused("A", "B", "10.0.0.1", "why"))
        assert not trail.instruments
        assert not any(thread.name.startswith("audit") for thread in threading.enumerate())
    assert list(tmp_path.iterdir()) == []


def test_from_start_to_stop(tmp_path: Path) -> None:
    """What is recorded between, and one message for the instances of a study."""
    with Trail(settings_of(tmp_path), "worker-0") as trail:
        for _ in range(1000):
            trail.transferred(transfer(), CT)
        record(refused("A", "B", "10.0.0.1", "why"))
    record(refused("A", "B", "10.0.0.1", "nobody hears of it any more"))
    messages = trail_of(tmp_path)
    assert sorted(kinds(messages)) == sorted([START, ALERT, TRANSFERRED, STOP])
    assert [one.attrib["NumberOfInstances"] for message in messages for one in message.iter("SOPClass")] == [
        "1000"
    ]
    assert value_of(trail, "audit_messages_total") == {(): 4.0}


def test_a_study_is_told_when_it_is_quiet(tmp_path: Path) -> None:
    """Without an end of the process; and one that never is quiet is told all the same."""
    with Trail(settings_of(tmp_path, quiet_time=0.1), "worker-0") as trail:
        trail.transferred(transfer(), CT)
        until(lambda: TRANSFERRED in kinds(trail_of(tmp_path)))
    with Trail(settings_of(tmp_path, quiet_time=3600, longest_time=0.5), "worker-0") as trail:

        def goes_on() -> bool:
            trail.transferred(transfer(7), CT)
            return kinds(trail_of(tmp_path)).count(TRANSFERRED) >= 2

        until(goes_on)


def test_a_killed_process_is_told_by_the_next(tmp_path: Path) -> None:
    """What it had gathered is on disk after a second."""
    code = f"""
import os, time
from pathlib import Path
from ingest.contract.audit import Trail
from tests.audit.test_audit_trail import settings_of, transfer, CT
trail = Trail(settings_of(Path({str(tmp_path)!r})), "worker-0")
for number in range(500):
    trail.transferred(transfer(number % 5), CT)
trail.__enter__()
while not (Path({str(tmp_path)!r}) / "audit" / "gathered-worker-0.msgpack").exists():
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).resolve().parents[2]
    died = subprocess.run([sys.executable, "-c", code], check=False, cwd=root, timeout=120)
    assert died.returncode == -9
    assert kinds(trail_of(tmp_path)) == [START]
    with Trail(settings_of(tmp_path), "worker-0"):
        pass
    messages = trail_of(tmp_path)
    assert sorted(kinds(messages)) == sorted([START, START, *[TRANSFERRED] * 5, STOP])
    numbers = [
        int(one.attrib["NumberOfInstances"]) for message in messages for one in message.iter("SOPClass")
    ]
    assert numbers == [100] * 5
    with Trail(settings_of(tmp_path), "worker-0"):  # and not once more
        pass
    assert kinds(trail_of(tmp_path)).count(TRANSFERRED) == 5


def test_all_that_a_killed_process_had_gathered_is_told(tmp_path: Path) -> None:
    """However many studies, as after hours of a full disk: the next one takes them as they are kept, past its queue."""
    studies = 5000
    killed = Trail(settings_of(tmp_path), "worker-0")
    for number in range(studies):
        killed.transferred(transfer(number), CT)
    (tmp_path / "audit").mkdir()
    killed._gathered.keep()
    with Trail(settings_of(tmp_path), "worker-0") as trail:
        pass
    assert value_of(trail, "audit_dropped_total") == {("queue",): 0.0, ("size",): 0.0}
    assert len(lines_of(tmp_path)) == studies + 2


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    """Messages wait in memory and are written once there is room; one line in the log says so."""
    (tmp_path / "audit").write_bytes(b"in the way")
    with structlog.testing.capture_logs() as events, Trail(settings_of(tmp_path), "receiver") as trail:
        until(lambda: any("cannot be written" in event["event"] for event in events))
        begun = time.monotonic()
        for _ in range(5000):
            record(refused("A", "B", "10.0.0.1", "why"))
        assert time.monotonic() - begun < 60  # it never waits
        until(lambda: any("are lost" in event["event"] for event in events))
        lost = int(value_of(trail, "audit_dropped_total")["queue",])
        assert lost > 0
        (tmp_path / "audit").unlink()
        until(lambda: bool(lines_of(tmp_path)))
    assert kinds(trail_of(tmp_path)).count(ALERT) == 5000 - lost
    assert sum("cannot be written" in event["event"] for event in events) == 1


def test_old_messages_go_at_the_limit_and_are_counted(tmp_path: Path) -> None:
    """The disk is the images' first."""
    files = TrailFiles(tmp_path, 1 * MiB)
    lost = sum(files.append([b"x" * 1023] * 16) for _ in range(200))  # 3.2 MB
    kept = lines_of(tmp_path)
    assert len(kept) + lost == 3200
    assert sum(map(len, kept)) <= 1.1 * MiB
    assert lost > 2000


def test_what_comes_after_the_trail_was_removed_is_delivered(tmp_path: Path) -> None:
    """As by an administrator who needs the room: the next message is not behind the place that was delivered up to."""
    files = TrailFiles(tmp_path, 16 * MiB)
    files.append([b"delivered"] * 3)
    files.set_delivered(files.read(files.delivered(), MiB).end)
    for path in files.folder.glob("trail-*.log"):
        path.unlink()
    files.append([b"new"])
    assert files.read(files.delivered(), MiB).lines == [b"new"]


def test_many_processes_append_whole_lines(tmp_path: Path) -> None:
    """Receiver, workers and commands share the files."""
    code = f"""
import sys
from pathlib import Path
from ingest.contract.audit.files import TrailFiles
files = TrailFiles(Path({str(tmp_path)!r}), 1 << 20)
for number in range(100):
    files.append([f"{{sys.argv[1]}} {{number}} ".encode() * 100])
"""
    root = Path(__file__).resolve().parents[2]
    processes = [subprocess.Popen([sys.executable, "-c", code, name], cwd=root) for name in "abc"]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    lines = lines_of(tmp_path)
    assert len(lines) == 300
    assert all(len(set(zip(*[iter(line.split())] * 2, strict=True))) == 1 for line in lines)
    assert len(list((tmp_path / "audit").glob("trail-*.log"))) > 1


def test_a_line_cut_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    """The next one begins on a line of its own, and a reader takes whole lines only."""
    files = TrailFiles(tmp_path, 1 * MiB)
    files.append([b"one"])
    (path,) = (tmp_path / "audit").glob("trail-*.log")
    with path.open("ab") as file:
        file.write(b"cu")
    assert files.read(Mark(), 100).lines == [b"one"]
    files.append([b"two"])
    assert files.read(Mark(), 100).lines == [b"one", b"cu", b"two"]


def test_a_command_writes_at_once(tmp_path: Path) -> None:
    """It has no trail of its own; with the trail off nothing is made."""
    record_now(Settings(data=tmp_path), [application("command", started=True)])
    assert not (tmp_path / "audit").exists()
    record_now(settings_of(tmp_path), [application("command", started=True)])
    assert kinds(trail_of(tmp_path)) == [START]


def test_folder_is_not_for_everyone(tmp_path: Path) -> None:
    """As the data folder."""
    before = os.umask(0)
    try:
        record_now(settings_of(tmp_path), [application("command", started=True)])
    finally:
        os.umask(before)
    assert (tmp_path / "audit").stat().st_mode & 0o027 == 0
    assert all(path.stat().st_mode & 0o027 == 0 for path in (tmp_path / "audit").iterdir())


@pytest.mark.parametrize(
    ("audit", "key"),
    [
        ({"destination": "syslog"}, "audit.repository"),
        ({"repository": "nowhere"}, "audit.repository"),
        ({"certificate_file": "a.pem"}, "audit.key_file"),
    ],
)
def test_settings_that_do_not_fit(audit: dict[str, str], key: str) -> None:
    """The error names the key."""
    with pytest.raises(WrongSettings, match=key):
        load_settings(None, {f"audit.{name}": value for name, value in audit.items()})
