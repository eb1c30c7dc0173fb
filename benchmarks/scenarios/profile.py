"""Where the time goes: for each hop, processor time, waits, copies and system calls a megabyte and an instance.

A hop is a thread or process that the bytes pass: the receiver's event loop, its other threads (the log's writer), a
worker's event loop, its other threads, its codec processes. Processor time and waits come from an undisturbed run;
strace and perf each have a run of their own, since they slow what they look at.
"""

import os
import pstats
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import tracing
from benchmarks.arms import RATE, Comparison
from benchmarks.data import KINDS, template
from benchmarks.load import Load, send
from benchmarks.pipeline import receiver, wait_settled, workers
from benchmarks.processes import ChildProcess
from benchmarks.releaser import Releaser
from benchmarks.scenarios.network import next_run
from benchmarks.scenarios.scale import Scale
from benchmarks.tracing import Use

LOOP: Final = "receiver, event loop"
LOG: Final = "receiver, other threads (log)"
WORKER: Final = "worker, event loop"
STAGES: Final = "worker, other threads (seal, hash, store)"
CODEC: Final = "codec processes (encode and prove)"
_SENDERS: Final = 4
_PROFILED: Final = 1500.0  # MB at most, of the receiver; in the quick form a tenth
_TRACED: Final = 200  # instances under strace, which makes each system call a hundred times slower
_WORKED: Final = 64  # instances
_SHOWN: Final = 12  # symbols and functions


def run(scale: Scale) -> list[Comparison]:
    """Large and small instances, as they cost different things."""
    return [_profile(scale, kind) for kind in (("ct",) if scale.quick else ("ct", "small"))]


def _profile(scale: Scale, kind: str) -> Comparison:
    title = f"Where the processor time goes, {KINDS[kind].label}"
    scale.progress(title)
    comparison = Comparison(title, "CPU ms/MB", {})
    data = scale.scratch / "profile"
    try:
        _receive(scale, data, kind, comparison)
        shutil.rmtree(data)
        _work(scale, data, kind, comparison)
        shutil.rmtree(data)
        comparison.notes.append(_python_functions(scale, data, kind))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    comparison.notes.append(
        "A wait is a voluntary context switch: an upper bound of the hops between threads. Bytes through system calls count "
        "each copy between the kernel and the process; copying is the share of samples in functions that copy, on both sides."
    )
    return comparison


def _receive(scale: Scale, data: Path, kind: str, comparison: Comparison) -> None:
    size = template(KINDS[kind]).size
    count = max(_SENDERS, min(scale.instances(kind, _SENDERS), round(_PROFILED * 1e6 / size)))
    traced = min(count, _TRACED)
    with receiver(data) as (process, address), Releaser(data):

        def load(instances: int) -> None:
            send(address, Load(kind, instances, _SENDERS, 2, run=next_run()))

        load(count)  # segments are written once
        before = tracing.main_thread(process.pid), tracing.other_threads(process.pid)
        load(count)
        loop = tracing.main_thread(process.pid) - before[0]
        log = tracing.other_threads(process.pid) - before[1]
        seen = _trace(scale, process, (traced, count), load)
    comparison.samples[LOOP] = [_sample(loop, count, size, seen.figures)]
    comparison.samples[LOG] = [_sample(log, count, size)]
    comparison.notes += [f"Receiver, {note}" for note in seen.notes]


def _work(scale: Scale, data: Path, kind: str, comparison: Comparison) -> None:
    size = template(KINDS[kind]).size
    count = min(_WORKED, scale.instances(kind, _SENDERS))
    with ExitStack() as stack:
        process, address = stack.enter_context(receiver(data))
        (worker,) = stack.enter_context(workers(data, 1, sorted(os.sched_getaffinity(0))))
        placed = 0

        def load(instances: int) -> None:
            nonlocal placed
            send(address, Load(kind, instances, _SENDERS, run=next_run()))
            placed += instances
            wait_settled(data, placed, [process, worker])

        load(_SENDERS)  # it is up, and so are its codec processes
        ways = (tracing.main_thread, tracing.other_threads, tracing.child_processes)
        before = [way(worker.pid) for way in ways]
        load(count)
        loop, stages, codec = (way(worker.pid) - use for way, use in zip(ways, before, strict=True))
        seen = _trace(scale, worker, (count, count), load)
    comparison.samples[WORKER] = [_sample(loop, count, size, seen.figures)]
    comparison.samples[STAGES] = [_sample(stages, count, size)]
    comparison.samples[CODEC] = [_sample(codec, count, size)]
    comparison.notes += [f"Worker, {note}" for note in seen.notes]


class _Seen:
    """What strace and perf saw of a process, all its threads together."""

    def __init__(self, calls: tracing.SystemCalls, found: tracing.Samples, instances: int) -> None:
        self.figures: dict[str, float] = {}
        self.notes: list[str] = []
        if calls.counts:
            self.figures["syscalls"] = sum(calls.counts.values()) / instances
            self.figures["moved"] = calls.moved / instances
            shown = (f"{name} {number / instances:.1f}" for name, number in calls.counts.most_common(_SHOWN))
            self.notes.append(f"system calls an instance, all threads: {', '.join(shown)}.")
        if found.symbols:
            self.figures["copying"] = found.copying
            shown = (f"{share:.1%} `{symbol}`" for share, symbol in found.symbols[:_SHOWN])
            self.notes.append(f"samples of perf, all threads: {', '.join(shown)}.")


def _trace(
    scale: Scale, process: ChildProcess, counts: tuple[int, int], load: Callable[[int], None]
) -> _Seen:
    """``counts``: how many instances under strace, and under perf."""
    traced, sampled = counts
    with tracing.system_calls(process.pid, scale.scratch) as calls:
        load(traced)
    with tracing.samples(process.pid, scale.scratch) as found:
        load(sampled)
    process.check()
    return _Seen(calls, found, traced)


def _sample(
    use: Use, instances: int, size: int, figures: Mapping[str, float] | None = None
) -> dict[str, float]:
    seen = dict(figures or {})
    if "moved" in seen:
        seen["kernel_bytes"] = seen.pop("moved") / size
    return seen | {
        RATE: use.cpu * 1e9 / (instances * size),
        "volume": float(instances * size),
        "cpu_ms_per_instance": use.cpu * 1e3 / instances,
        "switches": use.waits / instances,
    }


def _python_functions(scale: Scale, data: Path, kind: str) -> str:
    """The event loop's own functions, by cProfile, which makes each call dearer: the order counts, not the figures."""
    kept = scale.scratch / "profile.pstats"
    count = min(scale.instances(kind, _SENDERS), 1000)
    with receiver(data, under=("-m", "cProfile", "-o", str(kept))) as (process, address):
        with Releaser(data):
            send(address, Load(kind, count, _SENDERS, run=next_run()))
        process.stop()
    stats = pstats.Stats(str(kept)).get_stats_profile()
    kept.unlink()
    # What is called for instances, not at the start; C functions that wait, as the loop itself, are none of it.
    called = {
        f"{name} ({Path(one.file_name).name})": one
        for name, one in stats.func_profiles.items()
        if int(one.ncalls.partition("/")[0]) >= count // 2 and "ingest" in one.file_name
    }
    total = sum(one.tottime for one in called.values())
    functions = sorted(called.items(), key=lambda item: -item[1].tottime)[:_SHOWN]
    shown = (
        f"{one.tottime / total:.0%} `{name}`, {int(one.ncalls.partition('/')[0]) / count:.1f}"
        for name, one in functions
    )
    return (
        f"Receiver, event loop by cProfile, our own functions with their share of each other and calls an instance: "
        f"{'; '.join(shown)}."
    )
