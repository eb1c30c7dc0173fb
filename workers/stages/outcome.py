"""Outcome: what is announced of an upload that has its place, and of whom: a patient by keyed hashes only."""

import time
from collections.abc import Sequence

from ingest.contract.monitoring.sources import OTHER, Sources
from ingest.contract.pseudonyms import Pseudonyms
from ingest.contract.records import Outcome
from ingest.contract.settings import Settings
from workers.dataset.findings import Finding
from workers.dataset.subject import Subject
from workers.storage.lanes import Settled
from workers.storage.manifest import Manifest


class Outcomes:
    """Makes them, by the sources and the key of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._sources = Sources(settings)
        self._pseudonyms = Pseudonyms(settings)

    def load_key(self) -> None:
        """Read the key of the hashes, or make it, before the first upload needs it.

        Raises:
            OSError: it cannot be read or made.
        """
        self._pseudonyms.load_key()

    def of(
        self,
        manifest: Manifest,
        settled: Settled,
        subject: Subject,
        findings: Sequence[str],
    ) -> Outcome:
        """``manifest``: as far as the stages got; ``findings``: as an examination has them, with tags.

        Raises:
            OSError: the key of the hashes cannot be read or made.
        """
        source = self._sources.of(manifest.calling_ae_title)
        patient = self._pseudonyms.patient(subject.patient_id, subject.issuer, manifest.calling_ae_title)
        return Outcome(
            sop_instance_uid=manifest.sop_instance_uid,
            place=settled.place,
            reason=settled.reason,
            source_digest=manifest.source_digest,
            store=settled.store,
            key=str(settled.key),
            at=time.time_ns(),
            study_instance_uid=subject.study_instance_uid,
            series_instance_uid=subject.series_instance_uid,
            source="" if source == OTHER else source,
            calling_ae_title=manifest.calling_ae_title,
            received_at=manifest.received_at,
            size=manifest.source_size,
            findings=finding_words(findings, subject),
            patient=patient.digest,
            patient_scope=patient.scope,
            accession=self._pseudonyms.accession(subject.accession_number, manifest.calling_ae_title),
        )


def finding_words(findings: Sequence[str], subject: Subject) -> tuple[str, ...]:
    """The words of findings, each once and without its tag; of what nobody examined, what its subject tells."""
    words = {finding.partition(" ")[0] for finding in findings}
    if subject.is_unidentified:
        words.add(Finding.PATIENT_UNIDENTIFIED.value)
    return tuple(sorted(words))
