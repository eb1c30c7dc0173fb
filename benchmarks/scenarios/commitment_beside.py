"""Receive with and without commitment requests beside it, the whole pipeline at work: what they cost those who send.

One modality asks for 100 stored instances, again as soon as it has its report, which is more than any does: the worker
then reads as fast as it can. It stores as received, so that neither arm measures the codec.
"""

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.arms import Arm, Comparison, Sample, alternate
from benchmarks.data import KINDS
from benchmarks.load import Load, send
from benchmarks.pipeline import receiver, settings_line, wait_stored, workers
from benchmarks.processes import ChildProcess, python
from benchmarks.scenarios.network import load_of, next_run, sample_of
from benchmarks.scenarios.scale import Scale

ALONE: Final = "receive"
BESIDE: Final = "receive, commitment requests beside it"
_KIND: Final = "ct"
_SENDERS: Final = 16
# Rounds for one of other scenarios: sender, receiver, worker and modality share the cores as the kernel pleases, so that
# single rounds lie far apart whatever is asked for.
_MORE: Final = 3
_ASKED: Final = 100  # instances of one request
ENVIRONMENT: Final = {
    "DICOM_INGEST_COMMITMENT__ENABLED": "true",
    "DICOM_INGEST_COMMITMENT__WITHOUT_ADDRESS": "same-association",
    "DICOM_INGEST_TRANSCODE__ENABLED": "false",
}


def receive_beside(scale: Scale) -> Comparison:
    """Both in turn."""
    title = f"Receive beside commitment requests, {_SENDERS} senders, {KINDS[_KIND].label}, one worker"
    scale.progress(title)
    data = scale.scratch / "beside"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data)
        _, address = stack.enter_context(receiver(data, ENVIRONMENT))
        cores = sorted(os.sched_getaffinity(0))
        started = stack.enter_context(workers(data, 1, cores, ENVIRONMENT))
        bench = _Bench(scale, data, address, started)
        arms = [Arm(ALONE, bench.alone), Arm(BESIDE, bench.beside)]
        for arm in arms:
            arm.run()  # so that segments have been written once
        comparison = Comparison(
            title,
            "MB/s",
            alternate(arms, scale.rounds if scale.quick else _MORE * scale.rounds, scale.progress),
        )
    comparison.add_ratio(BESIDE, ALONE)
    alone, beside = (comparison.samples[arm] for arm in (ALONE, BESIDE))
    committed = statistics.median(sample["committed_per_second"] for sample in beside)
    slower = statistics.median(
        above["until_stored"] / below["until_stored"] for above, below in zip(beside, alone, strict=True)
    )
    comparison.notes.append(
        f"Beside it {committed:.0f} instances a second are proved by reading and reported; the last of what was sent is "
        f"in the store after {slower:.2f} times as long (median)."
    )
    comparison.settings = {"receiver and worker": settings_line(ENVIRONMENT)}
    return comparison


class _Bench:
    """A running pipeline, with the instances that are asked for in its store."""

    def __init__(
        self, scale: Scale, data: Path, address: tuple[str, int], started: list[ChildProcess]
    ) -> None:
        self._scale = scale
        self._data = data
        self._address = address
        self._workers = started
        send(address, Load(_KIND, _ASKED, _SENDERS, run=next_run()))
        self._asked = wait_stored(data, _ASKED, started)

    def alone(self) -> Sample:
        """Senders only."""
        begun = time.perf_counter()
        sent = send(self._address, load := load_of(self._scale, _KIND, _SENDERS))
        return {**sample_of(sent), "until_stored": self._stored(load, begun)}

    def beside(self) -> Sample:
        """And the modality."""
        with self._modality() as log:
            reports, begun = _reports(log), time.perf_counter()
            sent = send(self._address, load := load_of(self._scale, _KIND, _SENDERS))
            until_stored = self._stored(load, begun)
            rate = (_reports(log) - reports) * _ASKED / until_stored
        return {**sample_of(sent), "until_stored": until_stored, "committed_per_second": rate}

    @contextmanager
    def _modality(self) -> Iterator[Path]:
        """At work once it has its first report."""
        log = self._data.with_name(f"modality-{next_run()}.log")
        uids = [path.stem for path in self._asked]
        host, port = self._address
        command = python(
            "-m", "benchmarks.commitment_requests", host, str(port), KINDS[_KIND].sop_class_uid, *uids
        )
        with ChildProcess(command, log) as process:
            while not _reports(log):
                process.check()
                time.sleep(0.01)
            yield log
            process.check()

    def _stored(self, load: Load, begun: float) -> float:
        """Seconds until the worker had caught up; what it stored is deleted."""
        found = wait_stored(self._data, _ASKED + load.instances, self._workers)
        seconds = time.perf_counter() - begun
        for path in set(found) - set(self._asked):
            path.unlink()
        os.sync()
        return seconds


def _reports(log: Path) -> int:
    """How many the modality has had."""
    return sum(line.isdecimal() for line in log.read_text().splitlines())
