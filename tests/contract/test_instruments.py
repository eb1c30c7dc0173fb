"""Instruments and their text: what Prometheus reads is what was counted."""

import structlog.testing

from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.monitoring.instruments import Counter, Gauge, Histogram, Instrument
from ingest.contract.monitoring.sources import OTHER, Sources
from ingest.contract.settings import Settings
from tests.support.admin import Samples, parsed


def samples(*instruments: Instrument) -> Samples:
    """All samples of the page, by name and labels."""
    return parsed(Exposition(instruments).text("")[0].decode())


def test_counter_counts_by_labels() -> None:
    """Each combination of labels is a series of its own."""
    counter = Counter("things_total", "Things.", ("source", "result"))
    counter.add(("ct", "accepted"))
    counter.add(("ct", "accepted"), 2)
    counter.add(("mr", "refused"))
    found = samples(counter)
    assert found["dicom_ingest_things_total", (("result", "accepted"), ("source", "ct"))] == 3
    assert found["dicom_ingest_things_total", (("result", "refused"), ("source", "mr"))] == 1


def test_counter_without_labels_is_there_from_the_start() -> None:
    """A rate needs the zero that it grew from."""
    assert samples(Counter("things_total", "Things."))["dicom_ingest_things_total", ()] == 0


def test_histogram_is_cumulative() -> None:
    """A bucket counts what is at most its bound; the last one counts all."""
    histogram = Histogram("wait_seconds", "Waits.", bounds=(0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    found = samples(histogram)
    name = "dicom_ingest_wait_seconds"
    buckets = [found[f"{name}_bucket", (("le", bound),)] for bound in ("0.1", "1.0", "+Inf")]
    assert buckets == [2, 3, 4]
    assert found[f"{name}_count", ()] == 4
    assert found[f"{name}_sum", ()] == 7.65


def test_gauge_that_fails_hides_no_other() -> None:
    """One that cannot be read is left out, and said once."""

    def unreadable() -> float:
        raise OSError(5, "Input/output error")

    exposition = Exposition([Gauge("broken", "Broken.", unreadable), Gauge("whole", "Whole.", lambda: 7)])
    with structlog.testing.capture_logs() as events:
        pages = [exposition.text("")[0].decode() for _ in range(2)]
    assert all("dicom_ingest_whole 7.0" in page and "broken" not in page for page in pages)
    assert [event["metric"] for event in events] == ["broken"]


def test_openmetrics_for_who_asks_for_it() -> None:
    """Prometheus negotiates the form of the text."""
    text, content_type = Exposition([Counter("things_total", "Things.")]).text("application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_a_peer_makes_no_label() -> None:
    """Only names of the settings are sources; whatever else calls is one."""
    sources = Sources(Settings.model_validate({"sources": {"ct-1": {"ae_titles": ["CT1", "CT1B"]}}}))
    assert [sources.of(title) for title in ("CT1", " CT1B ", "ct1", "EVIL\n", "")] == [
        "ct-1", "ct-1", OTHER, OTHER, OTHER,
    ]  # fmt: skip
