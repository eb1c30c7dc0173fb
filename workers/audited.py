"""The pipeline with an audit trail: where each instance has its place, told by study (PS3.15 A.5.3.7)."""

from pathlib import Path

import structlog

from ingest.contract.audit import Trail
from ingest.contract.audit.events import Transfer
from ingest.contract.settings import Settings
from workers.pipeline import Pipeline, Work
from workers.pixels.codec import Codec
from workers.storage.lanes import Settled
from workers.storage.stores import Stores

logger = structlog.get_logger(__name__)


class AuditedPipeline(Pipeline):
    """A `Pipeline` that tells the audit trail of each upload that is settled."""

    def __init__(self, stores: Stores, codec: Codec, settings: Settings, scratch: Path, trail: Trail) -> None:
        super().__init__(stores, codec, settings, scratch)
        self._trail = trail
        self._with_patient = settings.audit.patient_id

    async def settle(self, work: Work) -> Settled:
        """See `Pipeline.settle`."""
        settled = await super().settle(work)
        try:
            await self._tell(work, settled)
        except Exception:
            # The upload has its place all the same.
            logger.exception("a defect in the audit trail", **work.upload.facts)
        return settled

    async def _tell(self, work: Work, settled: Settled) -> None:
        instance = work.upload.instance
        study, patient_id = work.manifest.study_instance_uid, ""
        if not study or self._with_patient:
            subject = await work.subject()
            study, patient_id = subject.study_instance_uid, subject.patient_id
        self._trail.transferred(
            Transfer(
                instance.calling_ae_title,
                instance.called_ae_title,
                instance.peer_address,
                study,
                patient_id if self._with_patient else "",
                settled.place,
                settled.reason,
            ),
            instance.sop_class_uid,
        )


def pipeline_of(stores: Stores, codec: Codec, settings: Settings, scratch: Path, trail: Trail) -> Pipeline:
    """As the settings want it, ready to announce.

    Raises:
        OSError: the key of the ledger's hashes cannot be read or made: told at the start, not at an upload.
    """
    if trail.is_on:
        pipeline: Pipeline = AuditedPipeline(stores, codec, settings, scratch, trail)
    else:
        pipeline = Pipeline(stores, codec, settings, scratch)
    pipeline.outcomes.load_key()
    return pipeline
