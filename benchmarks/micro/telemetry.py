"""What being seen costs the receiver: `python -m benchmarks.micro.telemetry [ROUNDS]`.

Receivers that tell nothing, metrics only, and all they can (metrics, a line of JSON for each association, the audit trail in a
file) get the same load in turns. Compared is the processor time of the process for each instance, by the kernel's own account
in nanoseconds, since the wall clock is everybody's. The ledger has no part in it: it reads what workers have published.
"""

import http.client
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.load import Load, send
from benchmarks.peers import OURS
from benchmarks.processes import ChildProcess, free_port

_INSTANCES: Final = 500  # a round and receiver
_PAGE_KEPT: Final = 1.1  # s after which a page of metrics is made anew
_PAGES: Final = 3  # of each start
# Each process is a little faster or slower for as long as it lives, by more than what is looked for.
_STARTS: Final = 6
_KIND: Final = "small"  # 40 KiB: the smaller, the more what is per instance counts
_ARMS: Final = {
    "nothing": {},
    "metrics": {"DICOM_INGEST_ADMIN__LISTEN": "127.0.0.1:{admin}"},
    "everything": {
        "DICOM_INGEST_ADMIN__LISTEN": "127.0.0.1:{admin}",
        "DICOM_INGEST_AUDIT__DESTINATION": "file",
        "DICOM_INGEST_TELEMETRY__LEVEL": "info",
        "DICOM_INGEST_TELEMETRY__FORMAT": "json",
    },
}


class _Arm(NamedTuple):
    """A receiver of the comparison."""

    process: ChildProcess
    port: int
    admin_port: int
    costs: list[float]  # µs an instance, of each round


@contextmanager
def _arm(folder: Path) -> Iterator[_Arm]:
    port, admin_port = free_port(), free_port()
    folder.mkdir()
    told = {name: value.format(admin=admin_port) for name, value in _ARMS[folder.name].items()}
    environment = {**OURS.environment, "DICOM_INGEST_ADMIN__LISTEN": "", **told}
    command = [part.format(port=port, folder=folder) for part in OURS.command]
    with ChildProcess(command, folder.with_suffix(".log"), environment) as process:
        process.wait_listening(port)
        yield _Arm(process, port, admin_port, [])


def _processor_time(pid: int) -> float:
    """Seconds of all its threads, ended ones included: Linux's clock of the process (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def _round(arm: _Arm, number: int) -> None:
    before = _processor_time(arm.process.pid)
    send(("127.0.0.1", arm.port), Load(_KIND, _INSTANCES, 4, 1, run=number))
    arm.costs.append((_processor_time(arm.process.pid) - before) / _INSTANCES * 1e6)


def _scrape(arm: _Arm) -> float:
    """Milliseconds of processor time for one page of metrics."""
    time.sleep(_PAGE_KEPT)
    before = _processor_time(arm.process.pid)
    with closing(http.client.HTTPConnection("127.0.0.1", arm.admin_port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        connection.getresponse().read()
    return (_processor_time(arm.process.pid) - before) * 1e3


def _start(folder: Path, rounds: int, costs: dict[str, list[float]], pages: list[float]) -> None:
    """Start the receivers, and add what each round costs; the first warms up."""
    with ExitStack() as stack:
        arms = {name: stack.enter_context(_arm(folder / name)) for name in _ARMS}
        _scrape(arms["everything"])  # loads what makes the pages
        for number in range(1, rounds + 2):
            for arm in list(arms.values()) if number % 2 else reversed(arms.values()):
                _round(arm, number)
        pages += [_scrape(arms["everything"]) for _ in range(_PAGES)]
    for name, arm in arms.items():
        costs[name] += arm.costs[1:]


def main(rounds: int) -> None:
    """Run, and print the medians and the median of the differences of a round."""
    costs: dict[str, list[float]] = {name: [] for name in _ARMS}
    pages: list[float] = []
    each = -(-rounds // _STARTS)
    folder = Path(tempfile.mkdtemp(prefix="telemetry-"))
    try:
        for number in range(_STARTS):
            (folder / str(number)).mkdir()
            _start(folder / str(number), each, costs, pages)
    finally:
        shutil.rmtree(folder)
    print(
        f"{_STARTS} starts, {each} rounds of {_INSTANCES} instances of {_KIND} each, load {os.getloadavg()[0]:.1f}"
    )
    base = costs["nothing"]
    for name, found in costs.items():
        differences = [a - b for a, b in zip(found, base, strict=True)]
        low, middle, high = (sorted(differences)[len(differences) * part // 4] for part in (1, 2, 3))
        starts = [statistics.median(differences[at : at + each]) for at in range(0, len(differences), each)]
        print(
            f"{name:10} {statistics.median(found):8.1f} µs an instance, {middle:+6.1f} µs "
            f"({100 * middle / statistics.median(base):+.1f} %), quartiles {low:+.1f} and {high:+.1f}; "
            f"of each start {' '.join(f'{one:+.1f}' for one in starts)}"
        )
    print(f"a page of metrics {statistics.median(pages):.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
