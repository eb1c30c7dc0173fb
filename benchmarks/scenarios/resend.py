"""Resend of a stored study: from its first byte to the end of its outcomes, against its first send."""

import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.arms import RATE, Comparison, Sample
from benchmarks.data import KINDS, template
from benchmarks.load import Load, send
from benchmarks.pipeline import receiver, wait_settled, workers
from benchmarks.processes import ChildProcess
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale

FIRST: Final = "first send"
AGAIN: Final = "resend"
_AIM: Final = 20.0
_KIND: Final = "ct"
_STUDY: Final = 1000  # instances
_QUICK_STUDY: Final = 40
_SENDERS: Final = 2
_ROUNDS: Final = 3  # at most: each first send is transcoded, some 20 instances a second


def run(scale: Scale) -> list[Comparison]:
    """A study a round, sent twice."""
    study = _QUICK_STUDY if scale.quick else _STUDY
    cores = sorted(os.sched_getaffinity(0))
    data = scale.scratch / "resend"
    title = f"Resend of a stored study, {study} instances, {len(cores)} workers, {KINDS[_KIND].label}"
    scale.progress(title)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        process, address = stack.enter_context(receiver(data))
        processes = [process, *stack.enter_context(workers(data, len(cores), cores))]
        bench = _Bench(data, address, processes)
        bench.place(Load(_KIND, 4, run=next_run()))  # all are up
        rounds = 1 if scale.quick else min(scale.rounds, _ROUNDS)
        comparison = Comparison(title, "MB/s", bench.compare(study, rounds, scale))
    # Of so short a study the time is mostly what an idle worker waits before it counts.
    comparison.add_ratio(AGAIN, FIRST, None if scale.quick else _AIM, guarded=not scale.quick)
    comparison.notes.append(
        "Both times until every outcome is durable and counted; the first send is transcoded and proved, the second "
        "is found to be stored. An idle worker counts after a tenth of checkpoint_interval, 1 s, which is in both."
    )
    return [comparison]


class _Bench:
    def __init__(self, data: Path, address: tuple[str, int], processes: list[ChildProcess]) -> None:
        self._data = data
        self._address = address
        self._processes = processes
        self._placed = 0

    def compare(self, study: int, rounds: int, scale: Scale) -> dict[str, list[Sample]]:
        """A resend cannot come before its first send, so the arms do not turn round."""
        samples: dict[str, list[Sample]] = {FIRST: [], AGAIN: []}
        for _ in range(rounds):
            load = Load(_KIND, study, _SENDERS, run=next_run())
            for name, kept in samples.items():
                kept.append(sample := self.place(load))
                scale.progress(f"{name}: {sample[RATE]:.4g}")
        return samples

    def place(self, load: Load) -> Sample:
        """Send, and wait for the outcomes."""
        begun = time.monotonic()
        send(self._address, load)
        self._placed += load.instances
        wait_settled(self._data, self._placed, self._processes)
        seconds = time.monotonic() - begun
        volume = load.instances * template(KINDS[load.kind]).size
        return {
            RATE: volume / seconds,
            "volume": float(volume),
            "instances_per_second": load.instances / seconds,
        }
