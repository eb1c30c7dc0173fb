"""Instruments as text for Prometheus: by prometheus_client, loaded with the first question for it."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import structlog

from ingest.contract.monitoring.instruments import Counter, Gauge, Histogram, Instrument, KeptCounter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

PREFIX: Final = "dicom_ingest_"

logger = structlog.get_logger(__name__)


class Exposition:
    """All of a process's instruments, and what the system knows of the process itself (``process_…``)."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._instruments = instruments
        self._registry: CollectorRegistry | None = None
        self._unreadable: set[str] = set()

    def text(self, accept: str) -> tuple[bytes, str]:
        """The page, and its content type, in the form that the HTTP header Accept wants."""
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - 1.7 MiB that may not be needed

        if self._registry is None:
            self._registry = self._registered()
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> "Iterator[Metric]":
        """What prometheus_client asks for."""
        for instrument in self._instruments:
            try:
                yield _metric(instrument)
            except Exception:
                # One that cannot be read must not hide the others.
                if (name := instrument.description.name) not in self._unreadable:
                    self._unreadable.add(name)
                    logger.exception("a metric cannot be read", metric=name)

    def _registered(self) -> "CollectorRegistry":
        from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415 - likewise

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        return registry


def _metric(instrument: Instrument) -> "Metric":
    from prometheus_client.core import (  # noqa: PLC0415 - likewise
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    name, sentence, labels = instrument.description
    if isinstance(instrument, Histogram):
        histogram = HistogramMetricFamily(PREFIX + name, sentence, labels=labels)
        for values, counts, total in instrument.spreads():
            histogram.add_metric(values, buckets=_cumulative(instrument.bounds, counts), sum_value=total)
        return histogram
    kind: Callable[..., CounterMetricFamily | GaugeMetricFamily]
    kind = CounterMetricFamily if isinstance(instrument, Counter | KeptCounter) else GaugeMetricFamily
    family = kind(PREFIX + name, sentence, labels=labels)
    assert isinstance(instrument, Counter | Gauge)
    for values, value in instrument.values():
        family.add_metric(values, value)
    return family


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    found, total = [], 0
    for bound, count in zip(_texts(tuple(bounds)), counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


@lru_cache
def _texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(str, bounds), "+Inf")
