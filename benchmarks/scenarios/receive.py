"""Durable receive: an instance is answered when the spool has it on disk. The peers answer when they have it in memory."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.data import KINDS, UidSeries, template
from benchmarks.disk import MOST_SEGMENTS, SEGMENT_SIZE, Disk
from benchmarks.peers import (
    OURS,
    OURS_WITHOUT_LOG,
    PYNETDICOM,
    STORESCP,
    STORESCP_BIT_PRESERVING,
    Running,
)
from benchmarks.scenarios.network import ceiling_arm, peer_arm, receivers
from benchmarks.scenarios.scale import Scale

DISK = "disk: overwrite + fdatasync"
SERIAL_LIMIT = "serial limit 1/(1/protocol + 1/disk)"
_AIMS = {1: 0.9, 16: 1.1}  # over storescp at its best
_SERIAL_AIM = 0.8


def run(scale: Scale) -> list[Comparison]:
    """One comparison for each kind of image and number of senders."""
    cases = [("ct", 1), ("ct", 16)]
    if not scale.quick:
        cases += [("mr", 1), ("mr", 16), ("dx", 1), ("dx", 16)]
    peers = (OURS, STORESCP, STORESCP_BIT_PRESERVING, PYNETDICOM, OURS_WITHOUT_LOG)
    with receivers(scale, *peers) as started, recycled_segments(scale) as disk:
        return [_compare(scale, started, disk, kind, senders) for kind, senders in cases]


@contextmanager
def recycled_segments(scale: Scale) -> Iterator[Disk]:
    """Segments that were written once, deleted at the end."""
    folder = scale.scratch / "segments"
    needed = int(scale.gigabytes / scale.rounds * 1e9) // SEGMENT_SIZE + 2
    disk = Disk(folder, min(needed, MOST_SEGMENTS))
    try:
        yield disk
    finally:
        disk.close()
        shutil.rmtree(folder)


def disk_arm(scale: Scale, disk: Disk, kind: str, senders: int) -> Arm:
    """The same bytes to the disk alone: as many a commit as there are senders, which is the most that can meet."""
    found = template(KINDS[kind])
    instance = found.head_with(UidSeries(1, 1).next()) + b"".join(found.frames())

    def run() -> Sample:
        count = scale.instances(kind, senders)
        return {RATE: count * len(instance) / disk.overwrite(instance, count, senders)}

    return Arm(DISK, run)


def _compare(scale: Scale, started: list[Running], disk: Disk, kind: str, senders: int) -> Comparison:
    arms = []
    for receiver in started:
        # pynetdicom is so much slower that an eighth is as long a run in the quick form.
        share = 0.125 if scale.quick and receiver.peer is PYNETDICOM else 1.0
        if receiver.peer is not OURS_WITHOUT_LOG or senders == 1:
            arms.append(peer_arm(scale, receiver, kind, senders, share))
    arms += [disk_arm(scale, disk, kind, senders), ceiling_arm(scale, kind, senders)]
    title = f"Durable receive, {senders} sender{'s' * (senders > 1)}, {KINDS[kind].label}"
    scale.progress(title)
    comparison = Comparison(title, "MB/s", alternate(arms, scale.rounds, scale.progress))
    best = comparison.best(STORESCP.name, STORESCP_BIT_PRESERVING.name)
    comparison.add_ratio(OURS.name, best, _AIMS[senders])
    comparison.add_ratio(OURS.name, PYNETDICOM.name)
    comparison.add_ratio(OURS.name, DISK)
    if senders == 1:
        comparison.add_serial_limit(SERIAL_LIMIT, OURS_WITHOUT_LOG.name, DISK)
        comparison.add_ratio(OURS.name, SERIAL_LIMIT, _SERIAL_AIM)
    comparison.notes.append(
        f"Not durable: {STORESCP.name}, {STORESCP_BIT_PRESERVING.name}, {PYNETDICOM.name}."
    )
    return comparison
