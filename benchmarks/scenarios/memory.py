"""What is resident while one huge instance passes, and while many senders send at once."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.arms import RATE, Comparison, Ratio
from benchmarks.data import KINDS
from benchmarks.load import Load, send
from benchmarks.pipeline import check_transcoded, receiver, wait_stored, workers
from benchmarks.processes import ChildProcess, descendants, peak_resident, reset_peak, resident
from benchmarks.releaser import Releaser
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale
from ingest.contract.settings import ReceiverSettings

_MiB: Final = 1024 * 1024
_RECEIVER_GROWTH: Final = 64.0  # MiB
_WORKER_LIMIT: Final = 512.0  # MiB
SENDERS: Final = 64
_FIRST: Final = 16  # small instances before the large one, so that no first association is in its figure


def run(scale: Scale) -> list[Comparison]:
    """Peaks in MiB, each over its limit."""
    kind = scale.large
    data = scale.scratch / "memory"
    label = KINDS[kind].label
    scale.progress(f"Memory, {label}")
    try:
        growth = _receive_one(data, kind)
        # The codec takes half a minute for so many frames; tests/adversity watches the worker, too.
        worker, codec = (None, None) if scale.quick else _work_one(data)
        many = _receive_many(scale, data.with_name("memory-many"))
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(data.with_name("memory-many"), ignore_errors=True)
    budget = ReceiverSettings().buffer_budget / _MiB
    rows = [
        (f"receiver, growth by one {label}", growth, _RECEIVER_GROWTH),
        (f"receiver, {SENDERS} senders", many, budget + _RECEIVER_GROWTH),
        (f"worker, one {label}", worker, _WORKER_LIMIT),
        (f"worker and codec together, one {label}", codec, None),
    ]
    measured = [(name, peak, limit) for name, peak, limit in rows if peak is not None]
    comparison = Comparison("Resident memory", "MiB", {name: [{RATE: peak}] for name, peak, _ in measured})
    # Growth is so far below its limit that a page more would be a regression.
    comparison.ratios = [
        Ratio(
            f"{name} / limit of {limit:.0f} MiB",
            (peak / limit,),
            1.0,
            at_most=True,
            guarded=limit > _RECEIVER_GROWTH,
        )
        for name, peak, limit in measured
        if limit is not None
    ]
    return [comparison]


def _receive_one(data: Path, kind: str) -> float:
    """The receiver's peak above its start while one instance comes."""
    with receiver(data) as (process, address):
        send(address, Load("small", _FIRST, run=next_run()))
        before = resident(process.pid)
        reset_peak(process.pid)
        send(address, Load(kind, 1, run=next_run()))
        return peak_resident(process.pid) - before


def _work_one(data: Path) -> tuple[float, float]:
    """The worker's peak, and the highest sum of worker and codecs, while the instances are worked off."""
    together = 0.0
    with workers(data, 1, sorted(os.sched_getaffinity(0))) as started:

        def watch() -> None:
            nonlocal together
            together = max(together, _sum(started))

        check_transcoded(wait_stored(data, _FIRST + 1, started, watch))
        return peak_resident(started[0].pid), together


def _sum(processes: Sequence[ChildProcess]) -> float:
    return sum(resident(pid) for process in processes for pid in (process.pid, *descendants(process.pid)))


def _receive_many(scale: Scale, data: Path) -> float:
    """The receiver's peak with many senders of large instances at once."""
    count = SENDERS if scale.quick else SENDERS * 4
    with receiver(data) as (process, address), Releaser(data):
        send(address, Load(scale.many, count, SENDERS, 2, run=next_run()))
        return peak_resident(process.pid)
