"""Transcode and proof by our workers from spool to store, against the bare codec calls on the same cores.

CT on all cores is in `end_to_end`. The codec does some ten CT a second and core, so that volumes are a tenth of others'.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.codec_calls import bare_seconds, pool_seconds
from benchmarks.data import KINDS, template
from benchmarks.load import Load
from benchmarks.pipeline import check_transcoded, spool, steady_rate, wait_stored, workers
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale

OURS = "ours, spool to store"
POOL = "our codec processes alone"
BARE = "bare codec calls"
AIM = 0.97


def run(scale: Scale) -> list[Comparison]:
    """CT by one worker on one core; in the full form DX by a worker a core, too."""
    cores = sorted(os.sched_getaffinity(0))
    if scale.quick:
        return [_compare(scale, "ct", cores[:1], 0.1)]
    return [_compare(scale, "ct", cores[:1], 0.1), _compare(scale, "dx", cores, 0.2)]


def _compare(scale: Scale, kind: str, cores: Sequence[int], share: float) -> Comparison:
    count = max(8, scale.instances(kind, 2, share))
    size = template(KINDS[kind]).size

    def ours() -> Sample:
        data = scale.scratch / "worker"
        try:
            return {RATE: _drain(data, kind, count, cores)}
        finally:
            shutil.rmtree(data, ignore_errors=True)

    def pool() -> Sample:
        return {RATE: count * size / pool_seconds(kind, count * KINDS[kind].frames, cores)}

    def bare() -> Sample:
        return {RATE: count * size / bare_seconds(kind, count * KINDS[kind].frames, cores)}

    title = f"Transcode and proof, {len(cores)} core{'s' * (len(cores) > 1)}, {KINDS[kind].label}"
    scale.progress(title)
    arms = [Arm(OURS, ours), Arm(BARE, bare)] + ([] if scale.quick else [Arm(POOL, pool)])
    comparison = Comparison(title, "MB/s", alternate(arms, scale.rounds, scale.progress))
    comparison.add_ratio(OURS, BARE, AIM)
    if not scale.quick:
        comparison.add_ratio(POOL, BARE)
    return comparison


def _drain(data: Path, kind: str, count: int, cores: Sequence[int]) -> float:
    """Fill a fresh spool, then let workers alone empty it."""
    spool(data, Load(kind, count, associations=2, run=next_run()))
    with workers(data, len(cores), cores) as started:
        objects = wait_stored(data, count, started)
    check_transcoded(objects)
    return steady_rate(objects, template(KINDS[kind]).size)
