"""The pipeline: every stage that an upload passes, in order; the only place where the order is written."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ingest.contract.records import Outcome, Place
from ingest.contract.settings import Settings
from workers.dataset.payload import Payload
from workers.log.reassembly import Upload
from workers.pixels.codec import Codec
from workers.stages.seal import check_seal
from workers.stages.validate import Examination, validate
from workers.storage.layout import object_key
from workers.storage.manifest import Manifest, received
from workers.storage.part10 import encode_head
from workers.storage.stores import Stores


class Tries(Protocol):
    """How often an upload has taken its worker or codec with it."""

    @property
    def count(self) -> int:
        """Times so far."""
        ...

    def failed(self) -> None:
        """It did so again."""
        ...


@dataclass
class _Work:
    """An upload on its way, and what the stages have found out."""

    upload: Upload
    tries: Tries
    payload: Payload = field(init=False)
    source_digest: str = ""
    examination: Examination | None = None
    manifest: Manifest | None = None

    def __post_init__(self) -> None:
        self.payload = self.upload.payload


Stage = Callable[[_Work], Awaitable[Outcome | None]]


class Pipeline:
    """Brings uploads to their places."""

    def __init__(self, stores: Stores, codec: Codec, settings: Settings, scratch: Path) -> None:
        self._stores = stores
        self._codec = codec
        self._settings = settings
        self._scratch = scratch
        self._stages: tuple[Stage, ...] = (
            self._seal,
            self._validate,
            self._store,
        )

    async def place(self, upload: Upload, tries: Tries) -> Outcome:
        """Bring an upload to its place, durably.

        Raises:
            Unavailable: not now.
        """
        work = _Work(upload, tries)
        for stage in self._stages:
            outcome = await stage(work)
            if outcome is not None:
                return outcome
        raise AssertionError("the last stage always has an outcome")

    async def _seal(self, work: _Work) -> Outcome | None:
        work.source_digest = await asyncio.to_thread(check_seal, work.payload, work.upload.instance)
        work.manifest = received(work.upload.upload_id, work.upload.instance, work.source_digest)
        return None

    async def _validate(self, work: _Work) -> Outcome | None:
        work.examination = await asyncio.to_thread(
            validate, work.payload, work.upload.instance, None, self._scratch
        )
        return None

    async def _store(self, work: _Work) -> Outcome | None:
        key = object_key(work.upload.instance.sop_instance_uid)
        store = self._stores.of(key)
        assert work.manifest is not None
        await store.put_new(key, itertools.chain([encode_head(work.manifest)], work.payload.blocks()))
        return Outcome(
            work.upload.instance.sop_instance_uid,
            Place.STORED,
            "",
            work.source_digest,
            store.name,
            str(key),
            time.time_ns(),
            work.upload.end_position,
        )
