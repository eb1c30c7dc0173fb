"""What a flood of one source costs another: `python -m benchmarks.micro.fairness [SECONDS [FLOOD ...]]`.

A CT sends an image every 20 ms and waits for each answer, first alone, then beside a facility that sends as fast as it can,
then alone again. Compared are the latencies from the C-STORE request to its response, of one receiver, durable on the spool.
Printed too is what the facility gets through, alone and beside the CT. FLOOD is a kind of `benchmarks.data` and a number of
associations, as in dx:200 or huge:2.
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
from benchmarks.load import Load, send
from benchmarks.messages import DEFAULT_PDU_LENGTH, store_message
from benchmarks.peers import OURS, running
from benchmarks.releaser import Releaser
from benchmarks.scu import Association, Proposal
from ingest.contract.spool.disk import OsDisk
from ingest.contract.spool.layout import Layout

_INTERVAL: Final = 0.02  # s between two images of the CT, about what a scanner makes at its best
_FLOODS: Final = ("dx:200", "huge:2", "ct:200")
_WARM_UP: Final = "dx:16"
_UNDER_WAY: Final = 500_000_000  # bytes that a flood has sent when it counts
_PATIENCE: Final = 60.0  # s until then
_SOURCES: Final = """
[sources.ct]
ae_titles = ["CT"]
[sources.facility]
ae_titles = ["FACILITY"]
"""


def _paced(address: tuple[str, int], seconds: float, run: int) -> list[float]:
    """The latencies of the CT."""
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
    return sorted(latencies)


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
    return latencies[min(len(latencies) - 1, int(quantile * len(latencies)))] * 1e3


def _received(folder: Path) -> int:
    """Bytes that are durable in the spool."""
    counter = OsDisk().counter(Layout(folder / "spool").durable_end)
    try:
        return counter.load()
    finally:
        counter.close()


def main(seconds: float, floods: tuple[str, ...]) -> None:
    """Run, and print a line for each arm."""
    scratch = Path(tempfile.mkdtemp(prefix="fairness-"))
    config = scratch / "settings.toml"
    config.write_text(_SOURCES)
    ours = replace(OURS, environment={**OURS.environment, "DICOM_INGEST_CONFIG": str(config)})
    try:
        with running(ours, scratch) as receiver, Releaser(receiver.folder):
            _paced(receiver.address, 1.0, 1)
            with _flood(receiver.address[1], _WARM_UP, receiver.folder):
                pass  # the spool grows to what a flood needs of it
            for number, flood in enumerate(floods, 2):
                before = _paced(receiver.address, seconds, 10 * number)
                with _flood(receiver.address[1], flood, receiver.folder):
                    start, begun = _received(receiver.folder), time.monotonic()
                    time.sleep(seconds / 2)
                    alone = (_received(receiver.folder) - start) / (time.monotonic() - begun)
                    start, begun = _received(receiver.folder), time.monotonic()
                    beside = _paced(receiver.address, seconds, 10 * number + 1)
                    both = (_received(receiver.folder) - start) / (time.monotonic() - begun)
                after = _paced(receiver.address, seconds, 10 * number + 2)
                quiet = sorted(before + after)
                for quantile in (0.5, 0.99):
                    ratio = _quantile(beside, quantile) / _quantile(quiet, quantile)
                    print(
                        f"{flood:<8} p{quantile * 100:.0f}: alone {_quantile(quiet, quantile):.2f} ms, beside "
                        f"{_quantile(beside, quantile):.2f} ms, ratio {ratio:.2f} ({len(beside)} images)"
                    )
                print(
                    f"{flood:<8} all bytes: {alone / 1e6:.0f} MB/s without the CT, {both / 1e6:.0f} MB/s beside it"
                )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--flood"]:
        _send_for_ever(int(sys.argv[2]), sys.argv[3])
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0, tuple(sys.argv[2:]) or _FLOODS)
