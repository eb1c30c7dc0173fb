"""End to end: a spool worked off by one and two workers, into a folder and into MinIO, and with reception going on.

The limit is the bare codec calls on the same cores. The codec does some ten CT a second and core, so an arm's volume is a
tenth of the other scenarios'.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.codec_calls import bare_seconds
from benchmarks.data import KINDS, template
from benchmarks.load import Load, send
from benchmarks.minio import Minio, minio
from benchmarks.pipeline import (
    check_transcoded,
    receiver,
    spool,
    steady_rate,
    stored,
    wait_settled,
    wait_stored,
    workers,
)
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale

ONE: Final = "1 worker on 1 core, folder"
TWO: Final = "2 workers on 2 cores, folder"
ONE_MINIO: Final = "1 worker on 1 core, MinIO"
TWO_MINIO: Final = "2 workers on 2 cores, MinIO"
RECEIVING: Final = "2 workers on 2 cores, folder, receiving at the same rate"
BARE: Final = "bare codec calls on 2 cores"
_AIMS: Final = {TWO: 0.92, RECEIVING: 0.85}  # of the bare codec calls
_TWICE: Final = 1.9
_KIND: Final = "ct"
_SHARE: Final = 0.1
_QUICK: Final = 24  # instances


def run(scale: Scale) -> list[Comparison]:
    """One comparison of all; the quick form has two workers and the folder only."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    count = min(_QUICK, scale.instances(_KIND, 8)) if scale.quick else scale.instances(_KIND, 8, _SHARE)
    title = f"End to end, backlog of {count} instances, {KINDS[_KIND].label}"
    scale.progress(title)
    with minio() as server:  # up in a second
        bench = _Bench(scale, count, cores, server)
        arms = [
            Arm(ONE, lambda: bench.drain(1)),
            Arm(TWO, lambda: bench.drain(2)),
            Arm(ONE_MINIO, lambda: bench.drain(1, in_minio=True)),
            Arm(TWO_MINIO, lambda: bench.drain(2, in_minio=True)),
            Arm(RECEIVING, bench.drain_receiving),
            Arm(BARE, bench.bare),
        ]
        if scale.quick:
            arms = [arm for arm in arms if arm.name in {TWO, RECEIVING, BARE}]
        comparison = Comparison(
            title, "MB/s", alternate(arms, 1 if scale.quick else scale.rounds, scale.progress)
        )
    for arm in (TWO, RECEIVING):
        comparison.add_ratio(arm, BARE, _AIMS[arm])
    if not scale.quick:
        comparison.add_ratio(TWO_MINIO, BARE)
        comparison.add_ratio(TWO, ONE, _TWICE)
        comparison.add_ratio(TWO_MINIO, ONE_MINIO)
    comparison.notes.append(
        "Rates are those in the middle of a run, by the objects' times. Receiver and senders of the last pipeline arm share "
        f"the cores with the workers, {len(cores)} here."
    )
    return [comparison]


@dataclass
class _Bench:
    scale: Scale
    count: int
    cores: Sequence[int]
    server: Minio
    rate: float = 0.0  # bytes a second that the workers reached last

    @property
    def _size(self) -> int:
        return template(KINDS[_KIND]).size

    @contextmanager
    def _spooled(self) -> Iterator[Path]:
        data = self.scale.scratch / "end-to-end"
        try:
            spool(data, Load(_KIND, self.count, 2, run=next_run()))
            yield data
        finally:
            shutil.rmtree(data, ignore_errors=True)

    def drain(self, number: int, *, in_minio: bool = False) -> Sample:
        """Workers alone, a core each."""
        cores = self.cores[:number]
        with self._spooled() as data:
            if in_minio:
                with self.server.prefix() as (environment, folder):
                    self._work(data, number, cores, environment)
                    return self._sample(sorted(folder.glob("*/*.dcm/xl.meta")))
            self._work(data, number, cores, {})
            check_transcoded(objects := stored(data))
            return self._sample(objects)

    def _work(self, data: Path, number: int, cores: Sequence[int], environment: Mapping[str, str]) -> None:
        with workers(data, number, cores, environment) as started:
            wait_settled(data, self.count, started)

    def drain_receiving(self) -> Sample:
        """Twice as many come, as fast as the workers are, while they work the backlog off.

        Counted are as many as the backlog has, from when the first is sent: receiver and senders have started by then,
        which takes more of the cores than all that they do later, and the workers have not caught up with them.
        """
        rate = (self.rate or self._size) / self._size
        with self._spooled() as data, ExitStack() as stack:
            _, address = stack.enter_context(receiver(data))
            started = stack.enter_context(workers(data, len(self.cores), self.cores))
            wait_stored(data, 1, started)
            sent = send(address, Load(_KIND, 2 * self.count, 2, run=next_run(), rate=rate))
            begun = min(sent.intended.values())
            early = sum(path.stat().st_mtime < begun for path in stored(data))
            found = wait_stored(data, early + self.count, started)
            objects = sorted(found, key=lambda path: path.stat().st_mtime_ns)[early : early + self.count]
            check_transcoded(objects)
            return self._sample(objects)

    def bare(self) -> Sample:
        """No pipeline."""
        return {RATE: self.count * self._size / bare_seconds(_KIND, self.count, self.cores)}

    def _sample(self, objects: Sequence[Path]) -> Sample:
        assert len(objects) == self.count
        self.rate = steady_rate(objects, self._size)
        return {RATE: self.rate, "volume": float(self.count * self._size)}
