"""What a worker counts, and what can be read off it: all around the pipeline, nothing within it."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Final

from ingest.contract.monitoring.admin import Admin
from ingest.contract.monitoring.instruments import Counter, Gauge, Histogram, Instrument, KeptCounter, Labels
from ingest.contract.monitoring.sources import Sources
from ingest.contract.records import Outcome
from ingest.contract.settings import Settings
from workers.errors import Unavailable
from workers.log.upload import Upload
from workers.pipeline import Pipeline, Stage, Tries, Work
from workers.pixels.codec import Codec
from workers.stages.transcode import Transcoded
from workers.storage.lanes import Settled
from workers.worker import Worker

_WORD: Final = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")


class WorkerMetrics:
    """Counters and histograms of one worker; a source is one of the settings, or ``(other)``."""

    def __init__(self) -> None:
        self.instances = Counter(
            "placed_instances_total",
            "Instances at their place, and why there.",
            ("source", "place", "reason"),
        )
        self.bytes = Counter("placed_bytes_total", "Of their data sets as received.", ("source", "place"))
        self.after = Histogram(
            "placed_after_seconds",
            "From an instance's reception to its place, by the clocks of receiver and worker.",
            ("source",),
        )
        self.stages = Histogram("stage_seconds", "Of one stage for one upload, waiting included.", ("stage",))
        self.transcodes = Counter(
            "transcodes_total", "Instances transcoded, or why they keep the bytes they came in.", ("result",)
        )
        self.put_off = Counter(
            "placements_put_off_total",
            "Tries that ended because a store, the scratch folder or the codec was away.",
        )

    @property
    def instruments(self) -> list[Instrument]:
        """All of them."""
        return [self.instances, self.bytes, self.after, self.stages, self.transcodes, self.put_off]

    def timed(self, stage: Stage) -> Stage:
        """The stage, its time taken; of the one that transcodes also the result."""
        labels = (stage.__name__.lstrip("_").replace("_", "-"),)

        async def run(work: Work) -> Settled | None:
            before, begun = work.result, time.monotonic()
            try:
                return await stage(work)
            finally:
                self.stages.observe(time.monotonic() - begun, labels)
                if before is None and (result := work.result) is not None:
                    self.transcodes.add(
                        ("transcoded" if isinstance(result, Transcoded) else str(result.reason),)
                    )

        return run


@dataclass(frozen=True)
class MeasuredPipeline:
    """A `Placer` that counts what another one does."""

    pipeline: Pipeline
    metrics: WorkerMetrics
    sources: Sources

    def __post_init__(self) -> None:
        """Each stage is timed."""
        self.pipeline.stages = tuple(map(self.metrics.timed, self.pipeline.stages))

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        """See `Placer`."""
        try:
            outcome = await self.pipeline.place(upload, tries)
        except Unavailable:
            self.metrics.put_off.add()
            raise
        instance = upload.instance
        source = self.sources.of(instance.calling_ae_title)
        # A manifest of another release may have another reason; one of another hand must not be a label.
        reason = outcome.reason if not outcome.reason or _WORD.match(outcome.reason) else "unknown"
        self.metrics.instances.add((source, outcome.place.value, reason))
        self.metrics.bytes.add((source, outcome.place.value), instance.size)
        if instance.received_at:
            self.metrics.after.observe(max(0.0, time.time() - instance.received_at / 1e9), (source,))
        return outcome


def measured(pipeline: Pipeline, settings: Settings, admin: Admin) -> Pipeline | MeasuredPipeline:
    """The pipeline with its metrics on the admin port; as it is where there is none."""
    if not admin.is_on:
        return pipeline
    metrics = WorkerMetrics()
    admin.show(metrics.instruments)
    return MeasuredPipeline(pipeline, metrics, Sources(settings))


def worker_gauges(worker: Worker, codec: Codec) -> list[Instrument]:
    """What can be read off a running worker."""

    def uploads() -> dict[Labels, float]:
        unsettled = worker.unsettled
        put_by = unsettled.waiting
        return {("in-work",): max(0, len(unsettled.facts()) - put_by), ("put-by",): put_by}

    def oldest() -> float:
        facts = worker.unsettled.facts()
        first = min((upload.received_at for upload in facts if upload.received_at), default=None)
        return 0.0 if first is None else max(0.0, time.time() - first / 1e9)

    return [
        Gauge(
            "uploads_waiting", "Uploads read and not yet placed; put-by: for a store.", uploads, ("state",)
        ),
        Gauge(
            "uploads_waiting_bytes",
            "Of their data sets.",
            lambda: float(sum(upload.size for upload in worker.unsettled.facts())),
        ),
        Gauge("oldest_upload_seconds", "Age of the one that was received first; 0 without any.", oldest),
        KeptCounter(
            "codec_restarts_total",
            "Starts of codec processes beyond each one's first, and beyond those that worker.codec_frames asks for.",
            lambda: float(codec.restarts),
        ),
    ]


def show_worker(admin: Admin, worker: Worker, codec: Codec, stop: asyncio.Event) -> None:
    """The worker has started: show it, and that it is ready until it is told to stop."""
    admin.show(worker_gauges(worker, codec))
    admin.ready_unless(lambda: ["stopping"] if stop.is_set() else [])
