"""What a worker counts of its uploads."""

import asyncio
from pathlib import Path

import pytest
import xxhash

from ingest.contract.admin_settings import AdminSettings
from ingest.contract.identifiers import UploadId
from ingest.contract.monitoring.admin import Admin
from ingest.contract.monitoring.exposition import Exposition
from ingest.contract.monitoring.sources import Sources
from ingest.contract.records import Instance
from ingest.contract.settings import Settings
from tests.support.admin import Samples, of, parsed
from tests.support.placing import Placing, placing
from tests.support.scu import CT, EXPLICIT, ct_data_set
from workers.dataset.payload import MemoryPayload
from workers.errors import Unavailable
from workers.log.upload import Upload
from workers.metrics import MeasuredPipeline, WorkerMetrics, measured
from workers.pipeline import Pipeline, UncountedTries, Work

UID = "1.2.826.1"


def counted(metrics: WorkerMetrics) -> Samples:
    return parsed(Exposition(metrics.instruments).text("")[0].decode())


async def place(placing: Placing, data_set: bytes, uid: str = UID) -> None:
    placing.sequence += 1
    instance = Instance(
        CT,
        uid,
        EXPLICIT,
        len(data_set),
        xxhash.xxh3_128_digest(data_set),
        "CT1",
        "DICOM-INGEST",
        "127.0.0.1",
        1,
    )
    upload = Upload(UploadId.of(1, 1, placing.sequence), 0, instance, MemoryPayload([data_set]), 0, 0)
    await placing.pipeline.place(upload, UncountedTries())


def measure(placing: Placing) -> WorkerMetrics:
    """From now on it is counted what is placed."""
    metrics = WorkerMetrics()
    settings = Settings.model_validate({"sources": {"ct-1": {"ae_titles": ["CT1"]}}})
    placing.pipeline = MeasuredPipeline(placing.pipeline, metrics, Sources(settings))  # type: ignore[assignment]
    return metrics


def test_places_reasons_and_stages_are_counted(tmp_path: Path) -> None:
    """Stored, duplicate, conflict and quarantined, by source and reason; each stage is timed as often as it ran."""

    async def scenario() -> None:
        async with placing(tmp_path, encode=False) as place_in:
            metrics = measure(place_in)
            image = ct_data_set(UID)
            await place(place_in, image)
            await place(place_in, image)
            await place(place_in, image.replace(b"Doe^Jane", b"Roe^Jack"))
            await place(place_in, image[:-40], "1.2.826.2")
        found = counted(metrics)
        placed = {
            dict(labels)["place"]: value
            for (name, labels), value in found.items()
            if name == "dicom_ingest_placed_instances_total" and dict(labels)["source"] == "ct-1"
        }
        assert placed == {"stored": 1, "duplicate": 1, "conflict": 1, "quarantined": 1}
        assert found[of("placed_bytes_total", source="ct-1", place="stored")] == len(image)
        assert found[of("placed_after_seconds_count", source="ct-1")] == 4
        assert found[of("stage_seconds_count", stage="seal")] == 4
        assert found[of("stage_seconds_count", stage="store")] == 1
        assert found[of("transcodes_total", result="disabled")] == 1
        assert found[of("placements_put_off_total")] == 0

    asyncio.run(scenario())


def test_a_try_that_is_put_off_is_counted_and_is_no_place(tmp_path: Path) -> None:
    """The store is away: the upload waits, and only the try is counted."""

    async def away(_work: Work) -> None:
        raise Unavailable("the store does not answer", 1.0)

    async def scenario() -> None:
        async with placing(tmp_path, encode=False) as place_in:
            place_in.pipeline.stages = (*place_in.pipeline.stages[:-1], away)
            metrics = measure(place_in)
            with pytest.raises(Unavailable):
                await place(place_in, ct_data_set(UID))
        found = counted(metrics)
        assert found[of("placements_put_off_total")] == 1
        assert not any(name == "dicom_ingest_placed_instances_total" for name, _ in found)

    asyncio.run(scenario())


def test_without_an_admin_port_nothing_is_wrapped(tmp_path: Path) -> None:
    """Where nobody can ask nothing is counted."""

    async def scenario() -> None:
        async with placing(tmp_path, encode=False) as place_in:
            settings = Settings(admin=AdminSettings(listen=""))
            assert type(measured(place_in.pipeline, settings, Admin(settings, 1))) is Pipeline

    asyncio.run(scenario())
