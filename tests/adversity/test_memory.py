"""Memory does not grow with an instance's size or the number of senders: peaks of the real processes."""

import os
from pathlib import Path

import pytest

from benchmarks.data import KINDS
from benchmarks.load import Load, send
from benchmarks.pipeline import check_transcoded, receiver, wait_stored, workers
from benchmarks.processes import descendants, peak_resident, reset_peak, resident
from benchmarks.releaser import Releaser
from ingest.contract.settings import MiB, ReceiverSettings

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("memory")]

# 256 MiB, four times what a worker keeps in memory; LARGE_INSTANCE=huge repeats it with 2 GiB, in a few minutes.
LARGE = os.environ.get("LARGE_INSTANCE", "multi-frame")
GROWTH = 64.0  # MiB
WORKER = 512.0  # MiB
SENDERS = 64


@pytest.mark.timeout(1200)
def test_one_large_instance(tmp_path: Path) -> None:
    """The receiver grows by at most 64 MiB while it comes; the worker stays below 512 MiB, its codecs apart."""
    data = tmp_path / "data"
    with receiver(data) as (process, address):
        send(address, Load("small", 16, run=1))
        before = resident(process.pid)
        reset_peak(process.pid)
        send(address, Load(LARGE, 1, run=2))
        grown = peak_resident(process.pid) - before
    codecs: dict[int, float] = {}
    with workers(data, 1, sorted(os.sched_getaffinity(0))) as (worker,):

        def watch() -> None:
            codecs.update((pid, peak_resident(pid)) for pid in descendants(worker.pid))

        check_transcoded(wait_stored(data, 17, [worker], watch))
        peak = peak_resident(worker.pid)
    print(f"{KINDS[LARGE].label}: receiver {grown:+.0f}, worker {peak:.0f}, codecs {codecs.values()} MiB")  # noqa: T201 - for whoever runs with -s
    assert grown <= GROWTH
    assert peak <= WORKER
    assert max(codecs.values()) <= WORKER


def test_many_senders(tmp_path: Path) -> None:
    """With 64 senders of 15 MB the receiver stays within its byte budget and 64 MiB."""
    data = tmp_path / "data"
    with receiver(data) as (process, address), Releaser(data):
        send(address, Load("dx", 2 * SENDERS, SENDERS, 2, run=1))
        peak = peak_resident(process.pid)
    print(f"{SENDERS} senders: receiver {peak:.0f} MiB")  # noqa: T201 - for whoever runs with -s
    assert peak <= ReceiverSettings().buffer_budget / MiB + GROWTH
