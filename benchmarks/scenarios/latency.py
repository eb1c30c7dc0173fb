"""Latency at half of the capacity, in open loop: C-STORE-RSP of the receiver, and time until an instance is stored.

The capacity is that of our own receiver, or pipeline, found in closed loop first; every arm then has the same rate.
"""

import os
import shutil
import statistics
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.data import KINDS, UidSeries, template
from benchmarks.disk import Disk
from benchmarks.load import Load, Sent, discard_sink, quantile_of, send
from benchmarks.open_loop import Schedule
from benchmarks.peers import OURS, STORESCP, Running
from benchmarks.pipeline import receiver, settled, stored, wait_settled, workers
from benchmarks.processes import settle_disk
from benchmarks.releaser import Releaser
from benchmarks.scenarios.network import CEILING, load_of, next_run, receivers
from benchmarks.scenarios.receive import recycled_segments
from benchmarks.scenarios.scale import Scale

DISK: Final = "disk: overwrite + fdatasync"
STORED: Final = "ours, until stored"
ANSWERED: Final = "ours, until answered"
_AIM: Final = 5.0  # p99 of C-STORE-RSP over p99 of the disk alone
_KIND: Final = "ct"
_SENDERS: Final = 4
_HALF: Final = 0.5
_QUANTILES: Final = (*(number / 1000 for number in range(10, 1000, 10)), 0.995, 0.999, 1.0)
_WORKED_QUICK: Final = 24  # instances that workers transcode; some 20 a second
_WORKED: Final = 300


def run(scale: Scale) -> list[Comparison]:
    """Until answered; until stored."""
    return [_answers(scale), _until_stored(scale)]


def latency_sample(latencies: tuple[float, ...], late: tuple[float, ...] = ()) -> Sample:
    """Of sorted seconds; ``late`` is what the sender itself added at most in 99 of 100 cases."""
    sample = {
        RATE: quantile_of(latencies, 0.99) * 1e3,
        "p50": quantile_of(latencies, 0.5),
        "p99": quantile_of(latencies, 0.99),
        "p99.9": quantile_of(latencies, 0.999),
    }
    return {**sample, "late_p99": quantile_of(late, 0.99)} if late else sample


def _answers(scale: Scale) -> Comparison:
    with receivers(scale, OURS, STORESCP) as started, recycled_segments(scale) as disk:
        rate = _HALF * _capacity(scale, started[0])
        title = f"Latency at half load, {_SENDERS} senders, {KINDS[_KIND].label}"
        scale.progress(title)
        curves = _Curves()
        arms = [_receiver_arm(scale, one, rate, curves) for one in started]
        arms += [_disk_arm(scale, disk, rate, curves), _sink_arm(scale, rate, curves)]
        comparison = Comparison(title, "ms (p99)", alternate(arms, scale.rounds, scale.progress))
    comparison.curves = curves.points()
    # The quick form's p99 is that of three instances, and not guarded.
    comparison.add_ratio(
        OURS.name, DISK, _AIM, at_most=True, name="p99, ours / disk alone", guarded=not scale.quick
    )
    comparison.add_ratio(
        OURS.name, STORESCP.name, at_most=True, name=f"p99, ours / {STORESCP.name}", guarded=not scale.quick
    )
    comparison.notes.append(
        f"Open loop, {rate:.0f} instances a second, half of what our receiver takes from as many senders in closed loop; "
        f"latency counts from when an instance was due. {STORESCP.name} is not durable."
    )
    comparison.settings = {one.peer.name: one.peer.settings for one in started}
    return comparison


class _Curves:
    """All latencies of each arm, over its rounds."""

    def __init__(self) -> None:
        self._latencies: dict[str, list[float]] = {}

    def add(self, arm: str, latencies: tuple[float, ...]) -> None:
        """Another round."""
        self._latencies.setdefault(arm, []).extend(latencies)

    def points(self) -> dict[str, list[tuple[float, float]]]:
        """Quantile and milliseconds, by arm."""
        found = {arm: tuple(sorted(latencies)) for arm, latencies in self._latencies.items()}
        return {
            arm: [(quantile, quantile_of(latencies, quantile) * 1e3) for quantile in _QUANTILES]
            for arm, latencies in found.items()
        }


def _capacity(scale: Scale, ours: Running) -> float:
    """Instances a second in closed loop."""
    with Releaser(ours.folder):
        sent = send(ours.address, load_of(scale, _KIND, _SENDERS))
    settle_disk(ours.folder)
    return sent.instances / sent.seconds


def _open(scale: Scale, rate: float) -> Load:
    # One process: two would wake each other's core.
    return replace(load_of(scale, _KIND, _SENDERS), processes=1, rate=rate)


def _receiver_arm(scale: Scale, one: Running, rate: float, curves: _Curves) -> Arm:
    def run() -> Sample:
        with ExitStack() as stack:
            if one.peer.durable:
                stack.enter_context(Releaser(one.folder))
            sent = send(one.address, _open(scale, rate))
        one.process.check()
        settle_disk(one.folder)
        return _kept(one.peer.name, sent, curves)

    return Arm(one.peer.name, run)


def _kept(name: str, sent: Sent, curves: _Curves) -> Sample:
    curves.add(name, sent.latencies)
    return latency_sample(sent.latencies, sent.late)


def _sink_arm(scale: Scale, rate: float, curves: _Curves) -> Arm:
    def run() -> Sample:
        load = _open(scale, rate)
        with discard_sink(load) as address:
            return _kept(CEILING, send(address, load), curves)

    return Arm(CEILING, run)


def _disk_arm(scale: Scale, disk: Disk, rate: float, curves: _Curves) -> Arm:
    found = template(KINDS[_KIND])
    instance = found.head_with(UidSeries(1, 1).next()) + b"".join(found.frames())

    def run() -> Sample:
        schedule = Schedule(time.monotonic(), 1 / rate, scale.instances(_KIND, _SENDERS))
        latencies = []
        for number in range(schedule.instances):
            time.sleep(max(0.0, schedule.intended(number) - time.monotonic()))
            disk.overwrite(instance, 1, 1)
            latencies.append(time.monotonic() - schedule.intended(number))
        curves.add(DISK, tuple(latencies))
        return latency_sample(tuple(sorted(latencies)))

    return Arm(DISK, run)


def _until_stored(scale: Scale) -> Comparison:
    """The whole pipeline, a worker a core; objects tell by their times when they were stored."""
    cores = sorted(os.sched_getaffinity(0))
    count = _WORKED_QUICK if scale.quick else _WORKED
    data = scale.scratch / "until-stored"
    title = f"Time to stored at half load, {len(cores)} workers, {KINDS[_KIND].label}"
    scale.progress(title)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        process, address = stack.enter_context(receiver(data))
        processes = [process, *stack.enter_context(workers(data, len(cores), cores))]
        send(address, Load(_KIND, 4, run=next_run()))
        wait_settled(data, 4, processes)  # all are up
        begun = time.monotonic()
        send(address, Load(_KIND, count, _SENDERS, run=next_run()))
        wait_settled(data, 4 + count, processes)
        rate = _HALF * count / (time.monotonic() - begun)
        sent = send(address, Load(_KIND, count, _SENDERS, run=next_run(), rate=rate))
        wait_settled(data, settled_before := 4 + 2 * count, processes)
        assert settled(data) == settled_before
        times = {path.stem.encode(): path.stat().st_mtime for path in stored(data)}
    until = tuple(sorted(times[uid] - intended for uid, intended in sent.intended.items()))
    samples = {STORED: [latency_sample(until)], ANSWERED: [latency_sample(sent.latencies, sent.late)]}
    comparison = Comparison(title, "ms (p99)", samples)
    comparison.add_ratio(
        STORED, ANSWERED, at_most=True, name="p99, until stored / until answered", guarded=not scale.quick
    )
    comparison.notes.append(
        f"{count} instances, {rate:.1f} a second, half of what the pipeline stores of a burst; median until stored "
        f"{statistics.median(until) * 1e3:.0f} ms. One run: what is stored is transcoded and proved."
    )
    return comparison
