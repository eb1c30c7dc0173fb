"""Fences into the instance log: what a round of a transaction asks the workers to prove."""

import asyncio
import itertools
import time
from collections.abc import Container, Sequence
from typing import Final

from ingest.commitment.reading import aside
from ingest.commitment.rounds import Fence
from ingest.contract.commitments import CommitAsked, Policy, encode_references
from ingest.contract.identifiers import TransactionId, UploadId
from ingest.contract.records import Kind, encode_header
from ingest.contract.settings import Settings, SourceSettings
from ingest.log import InstanceLog

# The upper half of a start's sequence is for fences, the lower for uploads: no two records name the same.
_FIRST_SEQUENCE: Final = 1 << 47


class Asking:
    """Writes rounds of fences."""

    def __init__(self, settings: Settings, log: InstanceLog) -> None:
        self._settings = settings
        self._log = log
        self._sequence = itertools.count(_FIRST_SEQUENCE)

    def take_settings(self, settings: Settings) -> None:
        """Use these from now on."""
        self._settings = settings

    def source_of(self, calling_ae_title: str) -> tuple[str, SourceSettings | None]:
        """The configured source of an AE title; no name and nothing for one that is a source alone."""
        return self._settings.source_of_ae_title(calling_ae_title) or ("", None)

    async def ask(
        self,
        transaction_id: TransactionId,
        calling_ae_title: str,
        number: int,
        fences: Sequence[Fence],
        done: Container[int] = (),
    ) -> None:
        """Make a round durable, but for the parts that are ``done``.

        Raises:
            OutOfResources, LogUnavailable: it is not, or not all of it.
        """
        _, source = self.source_of(calling_ae_title)
        policy = Policy((source.proof if source else "") or self._settings.commitment.proof)
        ae_titles = source.ae_titles if source else (calling_ae_title,)
        asked_at = time.time_ns()
        count = sum(len(fence.references) for fence in fences)
        payloads = await aside(count, _payloads, fences)
        published = []
        for part, fence in enumerate(fences):
            if part in done:
                continue
            asked = CommitAsked(
                bytes(transaction_id),
                calling_ae_title,
                ae_titles,
                policy,
                number,
                part,
                len(fences),
                asked_at,
            )
            payload = payloads[part]
            upload_id = UploadId.of(self._log.receiver_id, self._log.epoch, next(self._sequence))
            header = encode_header(Kind.COMMIT_ASKED, upload_id, 0, asked, [payload])
            published.append(self._log.publish(fence.partition, header, [payload]))
        results = await asyncio.gather(*published, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result


def _payloads(fences: Sequence[Fence]) -> list[memoryview]:
    return [encode_references(fence.references) for fence in fences]
