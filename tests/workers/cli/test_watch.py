"""The live view: what was counted between two looks, by source, by place and by worker."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from ingest.contract.monitoring.server import PROCESS_HEADER
from ingest.contract.refusals import Refusal, RefusalOf
from ingest.contract.running import Running, announce
from ingest.contract.settings import Settings
from workers.cli.watch import Look, Samples, look, view

ZERO = dict.fromkeys(
    ("received", "stored", "duplicates", "conflicts", "quarantined", "discarded", "backlog"), 0
)
RECEIVER = """
# TYPE dicom_ingest_received_instances_total counter
dicom_ingest_received_instances_total{source="[ct]",outcome="acknowledged"} %d
dicom_ingest_received_instances_total{source="[ct]",outcome="A700"} 3
# TYPE dicom_ingest_received_bytes_total counter
dicom_ingest_received_bytes_total{source="[ct]",outcome="acknowledged"} %d
# TYPE dicom_ingest_associations_total counter
dicom_ingest_associations_total{source="[ct]",result="accepted"} 7
# TYPE dicom_ingest_cstore_seconds histogram
dicom_ingest_cstore_seconds_bucket{source="[ct]",le="+Inf"} %d
dicom_ingest_cstore_seconds_count{source="[ct]"} %d
dicom_ingest_cstore_seconds_sum{source="[ct]"} %f
# TYPE dicom_ingest_log_refusing gauge
dicom_ingest_log_refusing %d
"""
WORKER = """
# TYPE dicom_ingest_placed_instances_total counter
dicom_ingest_placed_instances_total{source="[ct]",place="stored",reason=""} %d
# TYPE dicom_ingest_uploads_waiting gauge
dicom_ingest_uploads_waiting{state="in-work"} 5
"""


def rendered(before: Look, now: Look, width: int = 160, height: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(view(before, now, height))
    return console.export_text().splitlines()


def looked(at: float, number: int, *, refusing: bool = False, refusals: tuple[Refusal, ...] = ()) -> Look:
    page = RECEIVER % (number, number * 500_000, number, number, number * 0.004, refusing)
    counts = {**ZERO, "received": number, "stored": number // 2, "backlog": number - number // 2}
    worker = Running(name="worker-0", pid=4711, started=1, partitions=(0, 1))
    pages = {"receiver": Samples(page), "worker-0": Samples(WORKER % (number // 2))}
    reasons = {"quarantined/identity": number // 10, "stored/proved": number}
    return Look(at, counts, reasons, "waits", ["single copy"], [worker], pages, refusals)


def test_rates_are_of_what_came_between_two_looks() -> None:
    """In 2 s: 100 instances of 0.5 MB in 4 ms each are 50 a second and 25 MB/s."""
    lines = rendered(looked(10.0, 20), looked(12.0, 120))
    places, counts, rates = (line.split() for line in lines[1:4])
    assert (places[0], counts[1], rates[2]) == ("received", "120", "50.0")
    assert (places[-1], counts[-1], rates[-1]) == ("backlog", "60", "+25.0")
    source = next(line for line in lines if line.startswith("[ct]")).split()
    assert source == ["[ct]", "120", "50.0", "25.0", "4.0", "3", "7"]
    worker = next(line for line in lines if line.startswith("worker-0")).split()
    assert worker[1:4] == ["4711", "2", "25.0"]
    assert "quarantined/identity: 12 (+10)" in lines
    assert "note: single copy" in lines
    assert not [line for line in lines if "refuses" in line or "stored/" in line]


def test_a_log_without_room_and_refusals_are_shown() -> None:
    """As they were written down, whatever a peer said."""
    refusal = Refusal(0, RefusalOf.ASSOCIATION, '"a\\x1b"', "X", "192.0.2.1", "called-ae-title", "", "", 3)
    lines = rendered(looked(0, 0), looked(1, 0, refusing=True, refusals=(refusal,)))
    assert any("refuses instances" in line for line in lines)
    assert any("called-ae-title" in line and "192.0.2.1" in line for line in lines)


def test_a_small_terminal_shows_what_may_need_somebody() -> None:
    """80 by 24, with more sources and workers than it has lines: these are cut, and say so; nothing else is."""

    def crowded(at: float) -> Look:
        small = looked(at, 0, refusing=True, refusals=(refusal,) * 3)
        page = "# TYPE dicom_ingest_received_instances_total counter\n" + "".join(
            f'dicom_ingest_received_instances_total{{source="ct-{number:017}",outcome="acknowledged"}} {number}\n'
            for number in range(30)
        )
        workers = [
            Running(name=f"worker-{number}", pid=99_999, started=1, partitions=(0,)) for number in range(16)
        ]
        pages = {
            "receiver": Samples(
                page + "# TYPE dicom_ingest_log_refusing gauge\ndicom_ingest_log_refusing 1\n"
            )
        }
        pages |= {worker.name: Samples(WORKER % 9) for worker in workers}
        reasons = {f"quarantined/{word}": 1 for word in ("identity", "limit", "seal")}
        return small._replace(processes=workers, pages=pages, reasons=reasons)

    refusal = Refusal(
        0,
        RefusalOf.ASSOCIATION,
        "A" * 16,
        "B" * 16,
        "2001:db8:1:2:3:4:5:6",
        "too-many-associations",
        "",
        "",
        3,
    )
    lines = rendered(crowded(0), crowded(1), 80, 24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert sum("too-many-associations" in line for line in lines) == 3
    assert all(f"quarantined/{word}: 1" in lines for word in ("identity", "limit", "seal"))
    assert any("refuses instances" in line for line in lines)
    assert lines[5].startswith("ct-00000000000000029")  # that has sent most
    assert [line.strip() for line in lines if line.startswith("and ")] == ["and 25 more", "and 14 more"]


def test_a_process_that_started_anew_gives_no_negative_rate() -> None:
    """Its counters begin at zero again."""
    lines = rendered(looked(0, 50), looked(1, 10))
    assert next(line for line in lines if line.startswith("[ct]")).split()[2:4] == ["0.0", "0.0"]


class _Page(BaseHTTPRequestHandler):
    pid = os.getpid()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header(PROCESS_HEADER, str(self.pid))
        self.end_headers()
        self.wfile.write((RECEIVER % (9, 9, 9, 9, 9.0, 0)).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def admin_port() -> Iterator[int]:
    """Of something that answers as a receiver's admin port does."""
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_the_admin_ports_of_running_processes_are_asked(tmp_path: Path, admin_port: int) -> None:
    """A receiver's; of a worker whose port answers nobody nothing is shown, and that is no failure."""
    announce(tmp_path, "receiver", host="127.0.0.1", port=11112, ae_title="X")
    announce(tmp_path, "worker-0", partitions=(0,))
    settings = Settings.model_validate({"data": tmp_path, "admin": {"listen": f"0.0.0.0:{admin_port}"}})
    found = look(settings)
    assert set(found.pages) == {"receiver"}
    assert found.pages["receiver"].sum("received_instances_total", source="[ct]") == 12
    assert found.counts == ZERO


def test_another_installations_port_is_not_asked(
    tmp_path: Path, admin_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two on one machine with the default ports: the second has none, and the first's counts are not its own."""
    announce(tmp_path, "receiver", host="127.0.0.1", port=11112, ae_title="X")
    settings = Settings.model_validate({"data": tmp_path, "admin": {"listen": f"127.0.0.1:{admin_port}"}})
    monkeypatch.setattr(_Page, "pid", os.getppid())
    assert look(settings).pages == {}


def test_the_view_ends_with_an_interrupt(tmp_path: Path) -> None:
    """Without a terminal one view stands below the other; Ctrl-C is how it ends, and no failure."""
    command = [
        sys.executable,
        "-m",
        "ingest",
        "status",
        "--watch",
        "--interval",
        "0.2",
        "--data",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "instances wait" in process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == 0
