"""The pipeline: every stage that an upload passes, in order; the only place where the order is written.

A stage settles the upload, or leaves what it found out for the next one, or rejects it, and then quarantine
is its place. When all have passed and nothing is settled, something else took the key between two stages;
the round begins again, and what was found out already is not done again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from ingest.contract.records import Outcome
from ingest.contract.settings import Settings
from workers.dataset.payload import Payload, sha256
from workers.dataset.subject import Subject, read_subject
from workers.dataset.transfer_syntax import DEFLATED
from workers.errors import BAD_PLACE, Reason, Rejected, Spoiled, Unavailable
from workers.log.upload import Upload
from workers.pixels.codec import Codec
from workers.pixels.digest import pixel_digest
from workers.pixels.form import CodecFailed
from workers.stages.deduplicate import Difference, Fresh, Other, compare, known
from workers.stages.outcome import Outcomes
from workers.stages.passage import Passage, passage
from workers.stages.seal import Resealed, check_seal
from workers.stages.store import (
    conflict_manifest,
    examined_manifest,
    received_manifest,
    rejected_manifest,
    store,
)
from workers.stages.transcode import PassedThrough, Transcoded, pixel_data_of, transcode
from workers.stages.validate import Examination, validate
from workers.storage.lanes import Settled, conflict, quarantine
from workers.storage.layout import shard_of
from workers.storage.manifest import Manifest
from workers.storage.stores import Stores
from workers.threads import for_payload

_RETRY_AFTER: Final = 2.0  # seconds, where the system only says that it cannot now
_ROUNDS: Final = 3  # only an administrator's commands move objects beside us
# Tries after which an upload is not even read any more, as a multiple of those that it has with the codec: a
# defect of ours in reading ends the process each time, and the others must go on.
_HOPELESS: Final = 2

T = TypeVar("T")


class Tries(Protocol):
    """How often an upload has taken its worker or codec with it."""

    @property
    def count(self) -> int:
        """Times so far."""
        ...

    def failed(self) -> None:
        """It did so again."""
        ...


class UncountedTries:
    """Tries of an upload that no checkpoint knows, as in a replay by an administrator."""

    count = 0

    def failed(self) -> None:
        """Count one."""
        self.count += 1


@dataclass
class Work:
    """An upload on its way, and what the stages have found out so far."""

    upload: Upload
    tries: Tries
    payload: Payload = field(init=False)  # the data set as received
    source_digest: str = ""
    manifest: Manifest = field(init=False)  # with the source digest
    found: Fresh | Other | None = None  # under the key
    examined: Examination | None = None
    read: Subject | None = None  # where nothing was examined
    result: Transcoded | PassedThrough | None = None

    def __post_init__(self) -> None:
        """Begin with what the log has."""
        self.payload = self.upload.payload

    async def subject(self) -> Subject:
        """Whose it is; of what no stage has examined, read from its first elements."""
        if self.examined is not None:
            return self.examined.subject
        if self.read is None:
            syntax = self.upload.instance.transfer_syntax_uid
            self.read = await for_payload(self.payload, read_subject, self.payload, syntax)
        return self.read

    @property
    def examination(self) -> Examination:
        """What `validate` found."""
        assert self.examined is not None
        return self.examined


Stage = Callable[[Work], Awaitable[Settled | None]]


class Pipeline:
    """Brings uploads to their places, any number at once but one of each SOP Instance UID."""

    def __init__(self, stores: Stores, codec: Codec, settings: Settings, scratch: Path) -> None:
        """``scratch``: an existing folder for what is large and passing."""
        self._stores = stores
        self._codec = codec
        self._settings = settings
        self._scratch = scratch
        self.outcomes = Outcomes(settings)
        self.stages: tuple[Stage, ...] = (
            self._wait_for_the_store,
            self._give_up,
            self._seal,
            self._know_the_source,
            self._know,
            self._validate,
            self._compare,
            self._transcode,
            self._store,
        )

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        """Bring an upload to its place, durably, and say where that is.

        Raises:
            Unavailable: not now; nothing is wrong with the upload.
            Spoiled: it must be read from the log again, in another try.
        """
        work = Work(upload, tries)
        settled = await self.settle(work)
        findings = work.examined.findings if work.examined is not None else ()
        outcome = self.outcomes.of(work.manifest, settled, await work.subject(), findings)
        return msgspec.structs.replace(outcome, end_position=upload.end_position)

    async def settle(self, work: Work) -> Settled:
        """Bring an upload to its place, durably; whoever tells of places does so around this.

        Raises:
            Unavailable, Spoiled: see `place`.
        """
        try:
            return await self._pass_through(work)
        except OSError as error:  # of the scratch folder; stores translate their own
            # Once, as for what has another seal: if it is the whole disk, no process is better off than this one.
            if error.errno in BAD_PLACE and work.upload.file is not None and not work.tries.count:
                raise Spoiled(f"scratch: {error.strerror}") from error
            raise Unavailable(f"scratch: {error.strerror}", _RETRY_AFTER) from error

    async def _pass_through(self, work: Work) -> Settled:
        try:
            for _ in range(_ROUNDS):
                for stage in self.stages:
                    settled = await stage(work)
                    if settled is not None:
                        return settled
        except Rejected as rejected:
            return await self._quarantine(work, rejected)
        raise Unavailable("the object comes and goes", _RETRY_AFTER)

    async def _wait_for_the_store(self, work: Work) -> None:
        """Thousands may wait for one that does not answer: none is read and hashed for nothing."""
        uid = work.upload.instance.sop_instance_uid
        if uid:
            self._stores.of(shard_of(uid)).refuse_at_rest()

    async def _give_up(self, work: Work) -> None:
        if work.upload.damage:
            raise Rejected(Reason.DAMAGED_IN_LOG, 0, work.upload.damage)
        if work.tries.count >= _HOPELESS * self._settings.worker.attempts:
            raise Rejected(Reason.ATTEMPTS, 0, f"{work.tries.count} tries ended a process")

    async def _seal(self, work: Work) -> None:
        if not work.source_digest:
            try:
                work.source_digest = await for_payload(
                    work.payload, check_seal, work.payload, work.upload.instance
                )
            except Rejected as rejected:
                # Only the log can tell whether it was this disk; who has read it again already takes it as a fact.
                if work.upload.file is None or work.tries.count:
                    raise
                raise Spoiled(f"scratch: {rejected.detail}") from None
            if work.upload.file is not None:
                work.payload = Resealed(work.payload, work.upload.instance.seal)
            work.manifest = received_manifest(work.upload.upload_id, work.upload.instance, work.source_digest)

    async def _know_the_source(self, work: Work) -> None:
        """What a stranger sent is not compared, so that he learns nothing of what is stored, nor decoded."""
        if work.upload.instance.unknown_source:
            raise Rejected(Reason.UNKNOWN_SOURCE, 0, "its AE title is of no source in the settings")

    async def _know(self, work: Work) -> Settled | None:
        found = await known(self._stores, work.manifest, replayed=work.upload.replayed)
        if isinstance(found, Settled):
            return found
        work.found = found
        return None

    async def _validate(self, work: Work) -> None:
        if work.examined is None:
            instance = work.upload.instance
            examine = partial(validate, work.payload, instance, self._scratch)
            # How long a deflated one is, its own size does not tell.
            inflates = instance.transfer_syntax_uid in DEFLATED
            work.examined = await (
                asyncio.to_thread(examine) if inflates else for_payload(work.payload, examine)
            )
            work.manifest = examined_manifest(work.manifest, work.examined)

    async def _compare(self, work: Work) -> Settled | None:
        other = work.found
        if not isinstance(other, Other):
            return None
        outcome = await self._with_codec(
            work.tries,
            lambda settle: compare(
                self._stores, other, work.examination, self._codec, self._scratch, settle=settle
            ),
        )
        if isinstance(outcome, Settled):
            return outcome
        if isinstance(outcome, Difference):
            manifest = conflict_manifest(work.manifest, outcome)
            return await conflict(self._stores, manifest, work.payload, outcome.first)
        work.found = outcome
        return None

    async def _transcode(self, work: Work) -> None:
        if work.result is None and isinstance(work.found, Fresh):
            work.result = await self._transcoded(work)

    async def _store(self, work: Work) -> Settled | None:
        if work.result is None or not isinstance(work.found, Fresh):
            return None
        return await store(self._stores, work.manifest, work.payload, work.result, work.found)

    async def _transcoded(self, work: Work) -> Transcoded | PassedThrough:
        """Transcode; an upload that has had its tries keeps the bytes it came in."""
        while not self._has_had_its_tries(work.tries):
            result = await transcode(work.examination, self._codec, self._settings, self._scratch)
            if isinstance(result, Transcoded) or not result.again:
                return result
            work.tries.failed()
            if self._has_had_its_tries(work.tries):
                return result
        pixels = pixel_data_of(work.examination)
        digest = None if pixels is None else await pixel_digest(pixels, self._codec)
        return PassedThrough(passage(work.examination, self._settings) or Passage.CRASHED, digest)

    async def _with_codec(self, tries: Tries, step: Callable[[bool], Awaitable[T]]) -> T:
        """A step that is told whether to take a codec that keeps failing as a fact."""
        while True:
            try:
                return await step(self._has_had_its_tries(tries))
            except CodecFailed:
                tries.failed()

    def _has_had_its_tries(self, tries: Tries) -> bool:
        return tries.count >= self._settings.worker.attempts

    async def _quarantine(self, work: Work, rejected: Rejected) -> Settled:
        if not work.source_digest:
            work.source_digest = await for_payload(work.payload, sha256, work.payload)
            # Of a damaged one there may be fewer bytes than were received.
            instance = msgspec.structs.replace(work.upload.instance, size=work.payload.size)
            work.manifest = received_manifest(work.upload.upload_id, instance, work.source_digest)
        return await quarantine(self._stores, rejected_manifest(work.manifest, rejected), work.payload)
