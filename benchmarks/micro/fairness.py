"""What a flood of one source costs another: `python -m benchmarks.micro.fairness [SECONDS [FLOOD ...]]`.

A CT sends an image every 20 ms and waits for each answer, by turns alone and beside a facility that sends as fast as it can,
SECONDS each in all: of fewer than 1,000 images a 99th percentile says little. Compared are the latencies from the C-STORE
request to its response, of one receiver, durable on the spool. Printed too is what the facility gets through, alone and beside
the CT. FLOOD is a kind of `benchmarks.data` and a number of associations, as in dx:200 or huge:2.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.data import KINDS, UidSeries, template
from benchmarks.load import Load, quantile_of, send
from benchmarks.messages import DEFAULT_PDU_LENGTH, store_message
from benchmarks.peers import OURS, Running, running
from benchmarks.releaser import Releaser
from benchmarks.scu import Association, Proposal
from ingest.contract.spool.disk import OsDisk
from ingest.contract.spool.layout import Layout

_INTERVAL: Final = 0.02  # s between two images of the CT, about what a scanner makes at its best
_FLOODS: Final = ("dx:200", "huge:2", "ct:200")
_WARM_UP: Final = "dx:16"
_UNDER_WAY: Final = 300_000_000  # bytes that a flood has sent when it counts
_ROUNDS: Final = 5
_PATIENCE: Final = 60.0  # s until then
_SOURCES: Final = """
[sources.ct]
ae_titles = ["CT"]
[sources.facility]
ae_titles = ["FACILITY"]
"""


def _paced(address: tuple[str, int], seconds: float, run: int) -> list[float]:
    """The latencies of the CT, in seconds."""
    kind = KINDS["ct"]
    message = store_message(template(kind), DEFAULT_PDU_LENGTH)
    proposal = Proposal("DICOM-INGEST", "CT", [kind.sop_class_uid], [message], DEFAULT_PDU_LENGTH)
    association = Association(address, proposal, UidSeries(run, 0))
    association.block()
    latencies = []
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        association.begin()
        while (latency := association.answered()) is None:
            pass
        latencies.append(latency)
        time.sleep(max(0.0, _INTERVAL - latency))
    association.release()
    return latencies


@contextmanager
def _flood(port: int, flood: str, folder: Path) -> Iterator[None]:
    start = _received(folder)
    command = [sys.executable, "-m", "benchmarks.micro.fairness", "--flood", str(port), flood]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + _PATIENCE
            while _received(folder) - start < _UNDER_WAY:
                assert time.monotonic() < deadline, "the flood does not come"
                time.sleep(0.1)
            yield
            assert process.poll() is None, "the flood has ended"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _send_for_ever(port: int, flood: str) -> None:
    kind, _, associations = flood.partition(":")
    send(
        ("127.0.0.1", port),
        Load(kind, 10**9, int(associations), 2, calling_ae_title="FACILITY", run=os.getpid()),
    )


def _quantile(latencies: list[float], quantile: float) -> float:
    return quantile_of(tuple(sorted(latencies)), quantile) * 1e3  # ms


def _received(folder: Path) -> int:
    """Bytes that are durable in the spool."""
    counter = OsDisk().counter(Layout(folder / "spool").durable_end)
    try:
        return counter.load()
    finally:
        counter.close()


def _compared(receiver: Running, flood: str, seconds: float, run: int) -> None:
    """Alone and beside the flood by turns, so that whatever else the machine does meets both; a line for each quantile."""
    alone: list[float] = []
    beside: list[float] = []
    sole, both = _Rate(receiver.folder), _Rate(receiver.folder)
    for turn in range(_ROUNDS):
        alone += _paced(receiver.address, seconds / _ROUNDS, run + 2 * turn)
        with _flood(receiver.address[1], flood, receiver.folder):
            with sole:
                time.sleep(seconds / _ROUNDS / 2)
            with both:
                beside += _paced(receiver.address, seconds / _ROUNDS, run + 2 * turn + 1)
    for quantile in (0.5, 0.99):
        quiet, pressed = _quantile(alone, quantile), _quantile(beside, quantile)
        print(
            f"{flood:<8} p{quantile * 100:.0f}: alone {quiet:.2f} ms, beside {pressed:.2f} ms, ratio {pressed / quiet:.2f} "
            f"({len(alone)} and {len(beside)} images)"
        )
    print(f"{flood:<8} all bytes: {sole} without the CT, {both} beside it", flush=True)


class _Rate:
    """What becomes durable while it is entered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytes = 0
        self._seconds = 0.0

    def __enter__(self) -> None:
        self._start, self._begun = _received(self._folder), time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._bytes += _received(self._folder) - self._start
        self._seconds += time.monotonic() - self._begun

    def __str__(self) -> str:
        return f"{self._bytes / self._seconds / 1e6:.0f} MB/s"


def main(seconds: float, floods: tuple[str, ...]) -> None:
    """Run, and print what came of each flood."""
    scratch = Path(tempfile.mkdtemp(prefix="fairness-"))
    config = scratch / "settings.toml"
    config.write_text(_SOURCES)
    ours = replace(OURS, environment={**OURS.environment, "DICOM_INGEST_CONFIG": str(config)})
    try:
        with running(ours, scratch) as receiver, Releaser(receiver.folder):
            _paced(receiver.address, 1.0, 1)
            with _flood(receiver.address[1], _WARM_UP, receiver.folder):
                pass  # the spool grows to what a flood needs of it
            for number, flood in enumerate(floods, 1):
                _compared(receiver, flood, seconds, 100 * number)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--flood"]:
        _send_for_ever(int(sys.argv[2]), sys.argv[3])
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 25.0, tuple(sys.argv[2:]) or _FLOODS)
