"""`serve` with real children: ready, restarts, kills, a second instance, a clean stop."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from ingest.contract import failpoints
from ingest.contract.failpoints import Failpoint
from ingest.contract.running import Running, running_processes, start_time
from tests.support.pipeline import CORPUS, Pipeline
from tests.support.waiting import until

pytestmark = pytest.mark.real

SETTINGS = "settings.toml"


def running(data: Path) -> dict[str, Running]:
    return {found.name: found for found in running_processes(data)}


def all_running(data: Path, workers: int) -> Callable[[], bool]:
    names = {"serve", "receiver", *(f"worker-{number}" for number in range(workers))}
    return lambda: running(data).keys() == names


def answers(pipeline: Pipeline) -> bool:
    to = f"127.0.0.1:{pipeline.port}"
    return (
        subprocess.run(pipeline.command("echo", "--to", to), check=False, capture_output=True).returncode == 0
    )


def sent(pipeline: Pipeline, file: Path) -> int:
    command = ["/usr/bin/storescu", "-aec", "DICOM-INGEST", "127.0.0.1", str(pipeline.port), str(file)]
    return subprocess.run(command, check=False, capture_output=True).returncode


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / SETTINGS).touch()
    environment = {"DICOM_INGEST_CONFIG": str(folder / SETTINGS)}
    with Pipeline(folder / "data", workers=2, environment=environment) as started:
        yield started
        assert started.stop() == 0
    assert running(started.data) == {}


@pytest.fixture
def pipeline(service: Pipeline) -> Pipeline:
    """One for all: whatever a test kills, the next finds everything running again."""
    until(all_running(service.data, 2))
    return service


def test_ready_block_is_true(tmp_path: Path) -> None:
    """Once the block is printed, a peer is answered at once; it names address, AE title and store."""
    data, port = tmp_path / "data", free_port()
    command = [sys.executable, "-m", "ingest", "serve", "--data", str(data), "--workers", "1"]
    command += ["--listen", f"127.0.0.1:{port}", "--ae-title", "OTHER"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert " is ready" in process.stdout.readline()
        echo = ["/usr/bin/echoscu", "-aec", "OTHER", "127.0.0.1", str(port)]
        assert subprocess.run(echo, check=False).returncode == 0
        process.terminate()
        block = process.stdout.read()
    assert process.returncode == 0
    assert f"127.0.0.1:{port}, AE title OTHER" in block
    assert f"{data}/store/SSS/<SOP Instance UID>.dcm" in block
    assert running(data) == {}


def test_a_ready_block_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """As to a file on a full disk, or to a reader that is gone: what runs by then goes on."""
    data, log = tmp_path / "data", tmp_path / "log"
    command = [sys.executable, "-m", "ingest", "serve", "--data", str(data), "--workers", "1"]
    command += ["--listen", f"127.0.0.1:{free_port()}"]
    with (
        Path("/dev/full").open("w") as full,
        log.open("wb") as output,
        subprocess.Popen(command, stdout=full, stderr=output) as process,
    ):
        until(lambda: b"the ready block cannot be written" in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None
        assert {"serve", "receiver", "worker-0"} <= running(data).keys()
        process.terminate()
        assert process.wait(120) == 0


@pytest.mark.parametrize("name", ["receiver", "worker-0", "worker-1"])
def test_killed_child_is_replaced(pipeline: Pipeline, name: str) -> None:
    """kill -9 of any child: another one, with the same task, and only that."""
    before = running(pipeline.data)
    os.kill(before[name].pid, signal.SIGKILL)
    until(lambda: running(pipeline.data).get(name, before[name]) != before[name])
    after = running(pipeline.data)
    assert after[name].partitions == before[name].partitions
    assert {other: after[other] for other in after if other != name} == {
        other: before[other] for other in before if other != name
    }
    until(lambda: answers(pipeline))


def test_child_killed_while_its_settings_are_changed_returns(pipeline: Pipeline) -> None:
    """A worker ends while the file is half-written: the receiver goes on, and the worker is back when the file is whole."""
    before, settings = running(pipeline.data), pipeline.data.parent / SETTINGS
    settings.write_text("[receiver")
    os.kill(before["worker-0"].pid, signal.SIGKILL)
    until(lambda: re.search(r'"worker-0", "pid": \d+, "code": 2', pipeline.log.read_text()))
    assert answers(pipeline)
    settings.write_text("")
    until(all_running(pipeline.data, 2))
    assert running(pipeline.data)["receiver"] == before["receiver"]


def test_lock_that_cannot_be_had_is_reported(tmp_path: Path) -> None:
    """As on a disk that has been mounted read-only: one line, no traceback."""
    data = tmp_path / "data"
    (data / "run" / "serve.lock").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "serve", "--data", str(data)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, f"Error: data folder {data}: Is a directory\n")


def test_killed_supervisor_takes_everything_with_it(pipeline: Pipeline) -> None:
    """kill -9 of `serve`: no process stays, and the next `serve` starts on the same folder and port at once."""
    assert pipeline.process is not None
    pids = pipeline.children()
    assert len(pids) >= 3
    pipeline.process.kill()
    pipeline.process.wait()
    pipeline.start()
    until(all_running(pipeline.data, 2))
    assert not any(start_time(pid) for pid in pids)
    assert answers(pipeline)


def test_second_instance_is_refused(pipeline: Pipeline) -> None:
    """Another `serve` on the same data folder says who is there, exits with 1, and disturbs nothing."""
    before = running(pipeline.data)
    command = pipeline.command("serve", "--data", str(pipeline.data), "--listen", f"127.0.0.1:{free_port()}")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(
        rf"another `serve` \(process {before['serve'].pid}\) runs on the data folder", done.stderr
    )
    assert running(pipeline.data) == before
    assert answers(pipeline)


def test_a_worker_short_of_descriptors_says_so(tmp_path: Path) -> None:
    """It listens nowhere: an error that names no file must not be put down to the receiver's address."""
    pipeline = Pipeline(tmp_path / "data")
    with pipeline:
        pass
    command = pipeline.command("worker", "--data", str(pipeline.data))
    # An outcome log takes three descriptors, of which one is of a file that the error names.
    for limit in (60, 61, 62):
        limited = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command]
        done = subprocess.run(limited, check=False, capture_output=True, text=True)
        assert done.returncode == 1
        assert "Too many open files" in done.stderr
        assert "cannot listen" not in done.stderr


def test_port_in_use_is_reported(pipeline: Pipeline, tmp_path: Path) -> None:
    """A port that another process has: exit code 1 after a few tries, the address in a line, no traceback."""
    other = tmp_path / "other"
    command = pipeline.command("serve", "--data", str(other), "--listen", f"127.0.0.1:{pipeline.port}")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{pipeline.port}" in done.stderr.replace("[", "").replace("]", "")
    assert "Traceback" not in done.stderr
    assert running(other) == {}


def test_partitions_are_shared_out(pipeline: Pipeline) -> None:
    """Each partition has exactly one worker."""
    shares = [found.partitions for name, found in running(pipeline.data).items() if name.startswith("worker")]
    assert sorted(number for share in shares for number in share) == list(range(16))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_receiver_that_is_stopped_by_hand_returns(pipeline: Pipeline) -> None:
    """SIGTERM to a child alone is a clean end of that child, and not the end of the service."""
    before = running(pipeline.data)["receiver"]
    os.kill(before.pid, signal.SIGTERM)
    until(lambda: running(pipeline.data).get("receiver", before) != before)
    until(lambda: answers(pipeline))


def test_a_child_that_hangs_is_replaced(tmp_path: Path) -> None:
    """Its event loop stands still: it says where, ends, and another takes its place; what was not answered can be sent again."""
    environment = {
        "DICOM_INGEST_ADMIN__LIVENESS_LIMIT": "10",
        failpoints.VARIABLE: f"{Failpoint.BEFORE_RESPONSE}=sleep:600@2",
    }
    first, second = CORPUS / "LittleEndianExplicit_CT_small.dcm", CORPUS / "MR2_UNCR.dcm"
    with Pipeline(tmp_path / "data", environment=environment) as pipeline:
        until(all_running(pipeline.data, 1))
        before = running(pipeline.data)["receiver"]
        assert sent(pipeline, first) == 0
        assert sent(pipeline, second) != 0
        until(lambda: running(pipeline.data).get("receiver", before) != before)
        until(lambda: answers(pipeline))
        assert sent(pipeline, second) == 0
        assert pipeline.settle()["stored"] == 2  # the log had the second when the receiver hung
        assert pipeline.stop() == 0
    log = pipeline.log.read_text()
    assert '"child": "receiver"' in log
    assert "in _respond" in log
