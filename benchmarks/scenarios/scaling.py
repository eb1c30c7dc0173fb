"""Scaling law: what an instance costs as the store grows to a million objects, and as associations grow to 1,000.

Cost is processor time an instance of receiver and workers, which other work on the machine hardly changes.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.arms import RATE, Comparison, Ratio, Sample
from benchmarks.data import KINDS
from benchmarks.load import Load, Sent, send
from benchmarks.pipeline import receiver, settings_line, wait_settled, workers
from benchmarks.processes import ChildProcess, cpu_seconds, resident
from benchmarks.releaser import Releaser
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale

_KIND: Final = "small"
_STORED: Final = (0, 10_000, 100_000, 1_000_000)  # objects in the store before
_STORED_QUICK: Final = (0, 4_000)
_SENDERS: Final = 4
_INSTANCES: Final = 5_000  # a point
_INSTANCES_QUICK: Final = 600
_ASSOCIATIONS: Final = (1, 10, 100, 1_000)
_ASSOCIATIONS_QUICK: Final = (1, 200)
_OBJECT: Final = bytes(512)  # what fills the store; nobody reads it, and a file of 40 KiB would fill the disk
_AIM: Final = 1.25  # cost of the last point over the first: it does not grow with the store
# As received, so that the codec, which takes 100 times as long, does not hide what grows.
_ENVIRONMENT: Final = {"DICOM_INGEST_TRANSCODE__ENABLED": "false"}


def run(scale: Scale) -> list[Comparison]:
    """Both laws."""
    return [_store(scale), _associations(scale)]


def _store(scale: Scale) -> Comparison:
    steps, count = (_STORED_QUICK, _INSTANCES_QUICK) if scale.quick else (_STORED, _INSTANCES)
    count = min(count, scale.instances(_KIND, _SENDERS))
    data = scale.scratch / "scaling-store"
    title = f"Cost of storing {KINDS[_KIND].label} as received, by objects in the store"
    scale.progress(title)
    samples: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        process, address = stack.enter_context(receiver(data, _ENVIRONMENT))
        cores = sorted(os.sched_getaffinity(0))
        processes = [process, *stack.enter_context(workers(data, 1, cores, _ENVIRONMENT))]
        bench = _Bench(data, address, processes)
        bench.store(count)  # segments are written once, imports are done
        filled = 0
        for objects in steps:
            fill(data / "store", range(filled, objects))
            filled = objects
            os.sync()
            sample = bench.store(count)
            samples[f"{objects:,} objects before"] = [sample]
            scale.progress(f"{objects}: {sample[RATE]:.0f} µs")
    comparison = _law(title, samples, _AIM)
    comparison.settings = {"receiver and worker": settings_line(_ENVIRONMENT)}
    return comparison


def _law(title: str, samples: dict[str, list[Sample]], aim: float | None) -> Comparison:
    comparison = Comparison(title, "µs of CPU an instance", samples)
    first, *_, last = samples
    pair = (samples[last][0][RATE] / samples[first][0][RATE],)
    comparison.ratios.append(Ratio(f"cost at {last} / at {first}", pair, aim, at_most=True))
    return comparison


def fill(store: Path, numbers: range) -> None:
    """Put files among the objects, where objects with such UIDs would be."""
    for number in numbers:
        uid = f"2.25.9{number:038d}"
        folder = store / hashlib.sha256(uid.encode()).hexdigest()[:3]
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / f"{uid}.dcm", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(file, _OBJECT)
        os.close(file)


class _Bench:
    def __init__(self, data: Path, address: tuple[str, int], processes: Sequence[ChildProcess]) -> None:
        self._data = data
        self._address = address
        self._processes = processes
        self._settled = 0

    def store(self, count: int) -> Sample:
        """Send so many, and wait until they are stored."""
        before = self._cpu()
        sent = send(self._address, Load(_KIND, count, _SENDERS, 2, run=next_run()))
        self._settled += count
        wait_settled(self._data, self._settled, self._processes)
        return _cost(self._cpu() - before, sent)

    def _cpu(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self._processes)


def _cost(cpu: float, sent: Sent) -> dict[str, float]:
    return {RATE: cpu / sent.instances * 1e6, "instances_per_second": sent.instances / sent.seconds}


def _associations(scale: Scale) -> Comparison:
    steps, count = (_ASSOCIATIONS_QUICK, _INSTANCES_QUICK) if scale.quick else (_ASSOCIATIONS, 4 * _INSTANCES)
    count = min(count, scale.instances(_KIND, 1))
    data = scale.scratch / "scaling-associations"
    title = f"Cost of receiving {KINDS[_KIND].label}, by associations"
    scale.progress(title)
    samples: dict[str, list[Sample]] = {}
    try:
        with receiver(data) as (process, address), Releaser(data):
            send(address, Load(_KIND, count, 16, 2, run=next_run()))
            for associations in steps:
                before = cpu_seconds(process.pid)
                number = max(count, associations)
                sent = send(address, Load(_KIND, number, associations, 2, run=next_run()))
                sample = _cost(cpu_seconds(process.pid) - before, sent)
                sample |= {
                    "p50": sent.latency(0.5),
                    "p99": sent.latency(0.99),
                    "resident": resident(process.pid),
                }
                samples[f"{associations:,} association{'s' * (associations > 1)}"] = [sample]
                scale.progress(f"{associations}: {sample[RATE]:.0f} µs")
    finally:
        shutil.rmtree(data, ignore_errors=True)
    comparison = _law(title, samples, None)
    comparison.notes.append("Cost includes opening and releasing the associations.")
    return comparison
