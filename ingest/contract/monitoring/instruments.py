"""Counters, histograms and gauges as plain numbers; `exposition` makes metrics of them when they are asked for.

They cost a fraction of a microsecond, which an instance can afford. One thread writes, any thread reads: a reader copies
what it reads in one step, and may see one count of an event before another.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

Labels = tuple[str, ...]

# From a sync on a fast disk to a large instance over a slow line.
SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip


class Description(NamedTuple):
    """Of a metric: its name without ``dicom_ingest_``, a sentence, and the names of its labels."""

    name: str
    sentence: str
    labels: Labels = ()


class Counter:
    """Only grows; a value for each combination of labels."""

    def __init__(self, name: str, sentence: str, labels: Labels = ()) -> None:
        self.description = Description(name, sentence, labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """Count."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def values(self) -> Sequence[tuple[Labels, float]]:
        """A copy of all."""
        return list(self._values.items())


class Spread(NamedTuple):
    """What a histogram knows of one combination of labels."""

    counts: list[int]  # of each bucket, and of what is above the last
    total: list[float]  # one number


class Histogram:
    """How long something takes, in seconds."""

    def __init__(
        self, name: str, sentence: str, labels: Labels = (), bounds: Sequence[float] = SECONDS
    ) -> None:
        self.description = Description(name, sentence, labels)
        self.bounds = tuple(bounds)
        self._spreads: dict[Labels, Spread] = {}
        if not labels:
            self._spreads[()] = self._empty()

    def observe(self, seconds: float, labels: Labels = ()) -> None:
        """Count one that took so long."""
        spread = self._spreads.get(labels)
        if spread is None:
            spread = self._spreads[labels] = self._empty()
        spread.counts[bisect_left(self.bounds, seconds)] += 1
        spread.total[0] += seconds

    def spreads(self) -> Sequence[tuple[Labels, Sequence[int], float]]:
        """A copy of all: labels, counts by bucket, sum."""
        return [
            (labels, list(spread.counts), spread.total[0]) for labels, spread in list(self._spreads.items())
        ]

    def _empty(self) -> Spread:
        return Spread([0] * (len(self.bounds) + 1), [0.0])


Reading = float | Mapping[Labels, float]


class Gauge:
    """Read only when it is asked for, in the asking thread: ``read`` must not wait, and must copy what may change."""

    def __init__(self, name: str, sentence: str, read: Callable[[], Reading], labels: Labels = ()) -> None:
        self.description = Description(name, sentence, labels)
        self._read = read

    def values(self) -> Iterable[tuple[Labels, float]]:
        """As it is now."""
        reading = self._read()
        return reading.items() if isinstance(reading, Mapping) else [((), reading)]


class KeptCounter(Gauge):
    """A number that only grows and that something else keeps; read as a gauge is."""


Instrument = Counter | Histogram | Gauge
