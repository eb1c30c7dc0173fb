"""Durable receive: an instance is answered when the spool has it on disk. The peers answer when they have it in memory."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.data import KINDS, UidSeries, template
from benchmarks.disk import MOST_SEGMENTS, SEGMENT_SIZE, Disk
from benchmarks.mix import label
from benchmarks.peers import (
    DICOM_RS,
    ORTHANC,
    OURS,
    OURS_WITHOUT_LOG,
    PYNETDICOM,
    STORESCP,
    STORESCP_BIT_PRESERVING,
    Peer,
    Running,
)
from benchmarks.scenarios.network import ceiling_arm, peer_arm, receivers
from benchmarks.scenarios.scale import Scale

DISK: Final = "disk: overwrite + fdatasync"
SERIAL_LIMIT: Final = "serial limit 1/(1/protocol + 1/disk)"
_SERIAL_AIM: Final = 0.85  # of CT
# Of a volume; where instances are small their number counts, and this is some 50,000 of them.
_SHARES: Final = {"small": 0.4}
# Over a peer, by kind and senders; what is not here is only reported.
_AIMS: Final = {
    ("ct", 1): {"storescp": 0.95, DICOM_RS.name: 2.0, PYNETDICOM.name: 5.0},
    ("ct", 16): {"storescp": 1.2},
    ("small", 16): {DICOM_RS.name: 2.0, PYNETDICOM.name: 10.0},
    ("mr", 1): {"storescp": 0.9},
    ("mr", 16): {"storescp": 1.1},
    ("dx", 1): {"storescp": 0.9},
    ("dx", 16): {"storescp": 1.1},
}


def run(scale: Scale) -> list[Comparison]:
    """One comparison for each kind of image and number of senders."""
    cases = [("ct", 1), ("ct", 16)]
    peers: tuple[Peer, ...] = (OURS, STORESCP, STORESCP_BIT_PRESERVING, PYNETDICOM, OURS_WITHOUT_LOG)
    if not scale.quick:
        cases += [
            ("ct", 4),
            ("ct", 64),
            ("small", 1),
            ("small", 16),
            ("mr", 1),
            ("mr", 16),
            ("dx", 1),
            ("dx", 16),
        ]
        cases += [("multi-frame", 1), ("day", 16)]
        peers += (DICOM_RS, ORTHANC)
    with receivers(scale, *peers) as started, recycled_segments(scale) as disk:
        return [
            _compare(
                replace(scale, gigabytes=scale.gigabytes * _SHARES.get(kind, 1)), started, disk, kind, senders
            )
            for kind, senders in cases
        ]


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
    arms = [
        peer_arm(scale, receiver, kind, senders)
        for receiver in started
        if receiver.peer is not OURS_WITHOUT_LOG or senders == 1
    ]
    if kind in KINDS:
        arms.append(disk_arm(scale, disk, kind, senders))
    arms.append(ceiling_arm(scale, kind, senders))
    title = f"Durable receive, {senders} sender{'s' * (senders > 1)}, {label(kind)}"
    scale.progress(title)
    comparison = Comparison(title, "MB/s", alternate(arms, scale.rounds, scale.progress))
    peers = [receiver.peer for receiver in started]
    aims = _AIMS.get((kind, senders), {})
    best = comparison.best(STORESCP.name, STORESCP_BIT_PRESERVING.name)
    # How fast peers are depends on who else is at work on the machine; what a byte costs each of them hardly does.
    comparison.add_ratio(
        OURS.name, best, aims.get("storescp"), name=f"{OURS.name} / storescp at its best", guarded=False
    )
    comparison.add_cost_ratio(OURS.name, best, name="storescp at its best")
    for peer in (PYNETDICOM, DICOM_RS, ORTHANC):
        if peer in peers:
            comparison.add_ratio(OURS.name, peer.name, aims.get(peer.name), guarded=False)
    if kind in KINDS:
        comparison.add_ratio(OURS.name, DISK, guarded=False)
    if senders == 1:
        comparison.add_serial_limit(SERIAL_LIMIT, OURS_WITHOUT_LOG.name, DISK)
        comparison.add_ratio(OURS.name, SERIAL_LIMIT, _SERIAL_AIM if kind == "ct" else None)
    others = ", ".join(peer.name for peer in peers if not peer.durable and peer is not OURS_WITHOUT_LOG)
    comparison.notes.append(f"Not durable: {others}. The faster storescp here: {best}.")
    comparison.family, comparison.senders = f"Durable receive, {label(kind)}", senders
    comparison.settings = {peer.name: peer.settings for peer in peers}
    return comparison
