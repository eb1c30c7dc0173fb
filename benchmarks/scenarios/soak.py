"""Memory over time, under a hospital day's mix at less than half of the capacity, with the slope fitted.

Resident memory is looked at once a second. The first third is left out, as pools and caches fill; a line is fitted through
the floors of twelve blocks of the rest, since neighbouring looks are not independent. A floor is what nine looks of ten are
above: images in work come and go above it, and a leak lifts it. A slope is noise when it is no more than two standard errors
from 0.

Codec processes leak by what is known of their encoder, and are replaced for it: they may grow by what comes together before.
"""

import math
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

import numpy as np

from benchmarks.arms import RATE, Comparison, Ratio
from benchmarks.load import Load, send
from benchmarks.mix import label
from benchmarks.pipeline import receiver, wait_settled, workers
from benchmarks.processes import descendants, resident
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale
from ingest.contract.settings import WorkerSettings

RECEIVER: Final = "receiver"
WORKERS: Final = "workers"
CODECS: Final = "codec processes"
_MIX: Final = "day"
_RATE: Final = 4.0  # instances a second, some 3 MB/s; two cores transcode 10 MB/s
_SENDERS: Final = 8
_LOOK: Final = 1.0  # s
_QUICK_LOOK: Final = 0.1
_SHOWN: Final = 360  # looks in table and plot; an hour's would be a megabyte in the repository
_BLOCKS: Final = 12
_FLOOR: Final = 0.1  # of the looks, that are below it
_HOUR: Final = 3600.0
# Of pylibjpeg-openjpeg's encoder: five log messages, whatever the frame.
_LEAK: Final = 448 / 1024**2  # MiB a frame


class Slope(NamedTuple):
    """MiB an hour, and its standard error."""

    value: float
    error: float


def run(scale: Scale) -> list[Comparison]:
    """One run of ``scale.soak`` seconds."""
    cores = sorted(os.sched_getaffinity(0))
    data = scale.scratch / "soak"
    title = f"Memory over time, {label(_MIX)}, {len(cores)} workers"
    scale.progress(title)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        process, address = stack.enter_context(receiver(data))
        started = stack.enter_context(workers(data, len(cores), cores))
        send(address, Load("ct", 8, _SENDERS, run=next_run()))
        wait_settled(data, 8, [process, *started])
        watch = _Watch(process.pid, [worker.pid for worker in started], _QUICK_LOOK if scale.quick else _LOOK)
        load = Load(_MIX, round(_RATE * scale.soak), _SENDERS, run=next_run(), rate=_RATE)
        with watch:
            send(address, load)
        wait_settled(data, 8 + load.instances, [process, *started])
    return [_comparison(title, load, watch.curves, len(cores))]


def _comparison(
    title: str, load: Load, curves: Mapping[str, list[tuple[float, float]]], processes: int
) -> Comparison:
    shown = {name: points[:: max(1, len(points) // _SHOWN)] for name, points in curves.items()}
    comparison = Comparison(
        title, "MiB", {name: [{RATE: mib} for _, mib in points] for name, points in shown.items()}
    )
    comparison.curves = shown
    for name, points in curves.items():
        slope = fit(points)
        if name == CODECS:
            what, ratio = "growth / what worker.codec_frames lets it be", growth(points) / bound(processes)
        else:
            what, ratio = "slope / noise (2 standard errors)", over_noise(slope)
        comparison.ratios.append(Ratio(f"{name}, {what}", (ratio,), 1.0, at_most=True, guarded=False))
        comparison.notes.append(
            f"{name}: {slope.value:+.2f} ± {2 * slope.error:.2f} MiB an hour, at most {max(mib for _, mib in points):.0f} MiB."
        )
    comparison.notes.append(
        f"{load.instances / load.rate / 60:.2g} minutes, {load.instances} instances in open loop, {load.rate:g} a second, "
        f"{_SENDERS} senders."
    )
    return comparison


def over_noise(slope: Slope) -> float:
    """A slope over two standard errors; less and less memory is no leak."""
    if slope.value <= 0:
        return 0.0
    return slope.value / (2 * slope.error) if slope.error else math.inf


def growth(points: Sequence[tuple[float, float]]) -> float:
    """MiB by which the floor rises from the end of the first third on; 0 when that is noise."""
    slope = fit(points)
    hours = (points[-1][0] - points[len(points) // 3][0]) / _HOUR
    return slope.value * hours if over_noise(slope) > 1 else 0.0


def bound(processes: int) -> float:
    """MiB that so many codec processes leak before they are replaced."""
    return WorkerSettings().codec_frames * _LEAK * processes


def fit(points: Sequence[tuple[float, float]]) -> Slope:
    """The slope of the floor of ``points`` (seconds, MiB) without their first third."""
    kept = np.array(points[len(points) // 3 :])
    if len(kept) < _BLOCKS:
        return Slope(0.0, 0.0)
    blocks = np.array_split(kept, _BLOCKS)
    times = np.array([block[:, 0].mean() for block in blocks])
    mib = np.array([np.quantile(block[:, 1], _FLOOR) for block in blocks])
    spread = times - times.mean()
    slope = float((spread * mib).sum() / (spread**2).sum())
    rest = mib - mib.mean() - slope * spread
    error = float(np.sqrt((rest**2).sum() / (_BLOCKS - 2) / (spread**2).sum()))
    return Slope(slope * _HOUR, error * _HOUR)


class _Watch:
    """A thread that looks at resident memory until it is left."""

    def __init__(self, receiver_pid: int, worker_pids: Sequence[int], interval: float) -> None:
        self.curves: dict[str, list[tuple[float, float]]] = {RECEIVER: [], WORKERS: [], CODECS: []}
        self._receiver = receiver_pid
        self._workers = worker_pids
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._ended.wait(self._interval):
            now = time.monotonic() - begun
            codecs = [pid for worker in self._workers for pid in descendants(worker)]
            found = {RECEIVER: [self._receiver], WORKERS: self._workers, CODECS: codecs}
            for name, pids in found.items():
                self.curves[name].append((round(now, 2), sum(map(resident, pids))))
