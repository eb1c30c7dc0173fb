"""How much of everything a site needs: formulas over what this project has measured, and nothing that is guessed in secret.

Each figure says where it comes from. Unless it says so they are of one 2-core virtual machine (AMD EPYC, one disk) that others used, too; another
machine's come from ``make bench`` there. What they cannot know is a site's network, its brokers' disks and its bucket's provider.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

MB: Final = 1e6  # bytes
GB: Final = 1e9  # bytes
_DAY: Final = 86400.0  # s
_HOUR: Final = 3600.0  # s

# Measured here. Processor time in ms.
# Into Kafka, one sender of CT of 512 KiB; 1.3 with 16 (`benchmarks --only kafka`). On Intel Xeon, where it was 3.0 when it was 4.6
# on the other machine: the rest of the difference is left to the reserve that is asked for.
RECEIVE_A_MB: Final = 1.5
CONSUME_A_MB: Final = 4.2  # out of Kafka into whole instances (`benchmarks --only kafka-consume`)
# Transcode, proof and store by a worker, codec process included: a line through 41 KB, 132 KB, 525 KB and 15.7 MB, off by 2 %.
WORK_A_MB: Final = 95.0
WORK_AN_INSTANCE: Final = 5.0
STORED_SHARE: Final = 0.32  # of native pixels as JPEG 2000 Lossless: 0.316 CT, 0.337 MR, 0.319 DX, of made images with real noise
BROKER_RATE: Final = 99.0 * MB  # bytes/s into one broker that shares two cores with receiver and 16 senders
# Bytes/s into one MinIO, objects of 512 KiB, eight conditional creates at once.
BUCKET_RATE: Final = 139.0 * MB
# Said by others.
BUCKET_REQUESTS: Final = 3500.0  # writes/s and prefix that AWS documents for S3
REQUESTS_AN_INSTANCE: Final = 2.0  # of a worker to the store, for a new instance
# Of Kafka and of the settings.
SEGMENT: Final = 1.0 * GB  # of a partition's replica, kept beyond its retention: segment.bytes
# Many divisors: shares of workers are even.
_PARTITIONS: Final = (12, 24, 36, 48, 60, 120, 180, 240, 360, 720)
_MAXIMUM_PARTITIONS: Final = 1024  # of log.partitions
_LEAST_RECEIVERS: Final = 2
_LEAST_BROKERS: Final = 3


@dataclass(frozen=True)
class Modality:
    """What the machines of one sort send on a day."""

    name: str
    machines: int
    studies: float  # a machine and day
    instances: float  # a study
    megabytes: float  # an instance

    @property
    def instances_a_day(self) -> float:
        """Of all its machines."""
        return self.machines * self.studies * self.instances

    @property
    def bytes_a_day(self) -> float:
        """Of all its machines."""
        return self.instances_a_day * self.megabytes * MB


@dataclass(frozen=True)
class Assumptions:
    """What a site decides or knows of itself."""

    busiest_hour: float = 0.15  # share of a day's volume in it
    use: float = 0.6  # of a core, broker or bucket in that hour
    replicas: int = 3
    retention: float = 7.0  # days, as kafka.retention
    retention_limit: float = 0.75  # as kafka.retention_limit
    slack: float = 0.3  # of brokers' disks
    brokers: int = 0  # 0: as many as the rate needs
    years: float = 1.0  # of store


class Line(NamedTuple):
    """One figure of a plan."""

    name: str
    value: float
    unit: str
    formula: str


class CannotPlan(ValueError):  # noqa: N818 - named for the fact
    """More than one cluster of this kind takes."""


def plan(modalities: Sequence[Modality], given: Assumptions) -> list[Line]:
    """Every figure with its formula, in the order of the data path.

    Raises:
        CannotPlan: there is nothing to plan, or it is too much for the partitions that a log may have.
    """
    day = sum(item.bytes_a_day for item in modalities)
    count = sum(item.instances_a_day for item in modalities)
    if not day:
        raise CannotPlan(
            "nothing is sent: give --modality NAME,MACHINES,STUDIES,INSTANCES,MB for each sort of machine, or a TOML file"
        )
    peak = day * given.busiest_hour / _HOUR
    instances = count * given.busiest_hour / _HOUR
    return [
        Line("volume", day / GB, "GB a day", "sum of machines x studies x instances x megabytes"),
        Line("instances", count, "a day", "sum of machines x studies x instances"),
        Line("peak", peak / MB, "MB/s", f"volume x {given.busiest_hour:g} / 3600 s"),
        Line("peak instances", instances, "a second", f"instances x {given.busiest_hour:g} / 3600 s"),
        *_processes(day, count, peak, instances, given),
        *_log(day, peak, given, _workers(peak, instances, given)),
        *_store(day, peak, instances, given),
    ]


def _workers(peak: float, instances: float, given: Assumptions) -> int:
    cores = (peak / MB * (WORK_A_MB + CONSUME_A_MB) + instances * WORK_AN_INSTANCE) / 1000
    return max(1, math.ceil(cores / given.use))


def _processes(day: float, count: float, peak: float, instances: float, given: Assumptions) -> list[Line]:
    receivers = max(_LEAST_RECEIVERS, math.ceil(peak / MB * RECEIVE_A_MB / 1000 / given.use) + 1)
    a_mb = f"({WORK_A_MB:g} + {CONSUME_A_MB:g}) ms"
    return [
        Line(
            "receivers", receivers, "of 1 core",
            f"peak x {RECEIVE_A_MB:g} ms / {given.use:g}, and one that may be lost; at least {_LEAST_RECEIVERS}",
        ),
        Line(
            "workers", _workers(peak, instances, given), "of 1 core",
            f"(peak x {a_mb} + peak instances x {WORK_AN_INSTANCE:g} ms) / {given.use:g}: no backlog in the busiest hour",
        ),
        Line(
            "workers by morning", _workers(day / _DAY, count / _DAY, given), "of 1 core",
            "the same of the day's mean: the busiest hours wait in the log and are done by night",
        ),
    ]  # fmt: skip


def _log(day: float, peak: float, given: Assumptions, workers: int) -> list[Line]:
    needed = math.ceil(peak * given.replicas / BROKER_RATE / given.use)
    brokers = given.brokers or max(_LEAST_BROKERS, given.replicas, needed)
    partitions = _partitions(workers)
    held = day * given.retention * given.replicas
    disk = (held * (1 + given.slack) + partitions * given.replicas * SEGMENT) / brokers
    return [
        Line("partitions", partitions, "", "least of the numbers with many divisors that is not below workers"),
        Line(
            "brokers", brokers, "",
            f"peak x {given.replicas} replicas / {BROKER_RATE / MB:g} MB/s / {given.use:g}; at least {_LEAST_BROKERS}",
        ),
        Line(
            "disk of a broker", disk / GB, "GB",
            f"(volume x {given.retention:g} days x {given.replicas} x {1 + given.slack:g} + partitions x {given.replicas} x 1 GB) / brokers",
        ),
        Line(
            "network of a broker", peak * (2 * given.replicas) / brokers / MB, "MB/s",
            f"peak x (in {given.replicas}, out {given.replicas - 1} to replicas and 1 to workers) / brokers",
        ),
        Line(
            "longest outage of all workers", given.retention * given.retention_limit, "days",
            f"{given.retention:g} days x {given.retention_limit:g}: then receivers take nothing new",
        ),
    ]  # fmt: skip


def _partitions(workers: int) -> int:
    found = next((number for number in (*_PARTITIONS, _MAXIMUM_PARTITIONS) if number >= workers), None)
    if found is None:
        raise CannotPlan(
            f"{workers} workers are needed, and a log has at most {_MAXIMUM_PARTITIONS} partitions; plan several pipelines"
        )
    return found


def _store(day: float, peak: float, instances: float, given: Assumptions) -> list[Line]:
    by_rate = peak * STORED_SHARE / BUCKET_RATE / given.use
    by_requests = instances * REQUESTS_AN_INSTANCE / BUCKET_REQUESTS / given.use
    return [
        Line("stored", day * STORED_SHARE / GB, "GB a day", f"volume x {STORED_SHARE:g}, where all pixels come native"),
        Line(
            "store", day * STORED_SHARE * 365 * given.years / GB / 1000, "TB",
            f"stored x 365 x {given.years:g} years, one copy",
        ),
        Line(
            "buckets", max(1, math.ceil(max(by_rate, by_requests))), "",
            f"the larger of peak x {STORED_SHARE:g} / {BUCKET_RATE / MB:g} MB/s and peak instances x {REQUESTS_AN_INSTANCE:g} / "
            f"{BUCKET_REQUESTS:g}, / {given.use:g}",
        ),
    ]  # fmt: skip
