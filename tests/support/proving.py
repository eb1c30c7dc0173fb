"""Stores with instances in every state that a question of storage commitment can find them in."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import obstore
from obstore.store import ObjectStore

from ingest.contract.commitments import Finding, Policy, Reference
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Outcome, Place
from tests.support.buckets import store_settings, url_of
from tests.support.element_trees import El
from tests.support.fences import asked
from tests.support.instances import SECONDARY_CAPTURE, encoded, ui
from tests.support.placing import Placing, placing
from workers.dataset.payload import MemoryPayload, Payload
from workers.log.upload import Upload
from workers.pipeline import Pipeline, UncountedTries
from workers.stages.prove import Prover
from workers.storage.bucket import Bucket
from workers.storage.lanes import quarantine
from workers.storage.layout import Area, Key, object_key, quarantine_key
from workers.storage.manifest import received
from workers.storage.quarantine import discard, replay
from workers.storage.resolution import resolve

UID = "1.2.3.4.5"
KEY = object_key(UID)
A, B, C = "SOURCE-A", "SOURCE-B", "SOURCE-C"
A2 = "SOURCE-A-TOO"  # of the same console as A


def data_set(text: bytes = b"ID 1", pixels: int = 48, uid: str = UID) -> tuple[bytes, Instance]:
    """An instance; another ``text`` is other content under the same UID."""
    changes = {
        "x00080018": El(0x0008_0018, "UI", ui(uid)),
        "x00100020": El(0x0010_0020, "LO", text),
    }
    if pixels != 48:
        changes["x00091001"] = El(0x0009_1001, "OB", bytes(range(256)) * (pixels // 256))
    found, instance = encoded("explicit", **changes)
    return found, msgspec.structs.replace(instance, sop_instance_uid=uid)


class Archive:
    """Stores of one place, and what is done to them, openly and behind their back."""

    def __init__(self, placing: Placing, where: Path | str) -> None:
        self.stores = placing.stores
        self._placing = placing
        self._where = where
        self._sequence = 0

    async def receive(
        self, ae_title: str, text: bytes = b"ID 1", pixels: int = 48, uid: str = UID
    ) -> Outcome:
        """An upload from a source."""
        bytes_of, instance = data_set(text, pixels, uid)
        instance = msgspec.structs.replace(instance, calling_ae_title=ae_title)
        return await self._placing.upload(self._next(), instance, bytes_of)

    async def quarantined(self, ae_title: str, text: bytes = b"ID 1") -> None:
        """An upload that an older release could not read."""
        bytes_of, instance = data_set(text)
        instance = msgspec.structs.replace(instance, calling_ae_title=ae_title)
        manifest = received(self._next(), instance, hashlib.sha256(bytes_of).hexdigest())
        manifest = msgspec.structs.replace(manifest, reason="structure")
        settled = await quarantine(self.stores, manifest, MemoryPayload([bytes_of]))
        assert settled.place is Place.QUARANTINED

    async def replayed(self, text: bytes = b"ID 1") -> Place:
        """That entry, by this release."""
        self.stores.replaying = True

        async def place(upload_id: UploadId, instance: Instance, payload: Payload) -> Outcome:
            again = Upload(upload_id, 0, instance, payload, 0, 0)
            pipeline: Pipeline = self._placing.pipeline
            return await pipeline.place(again, UncountedTries())

        results = await replay(self.stores, quarantine_key(UID, self.digest(text)), place)
        self.stores.replaying = False
        return results[0].place

    async def discarded(self, text: bytes = b"ID 1") -> None:
        """That entry, given up."""
        assert await discard(self.stores, quarantine_key(UID, self.digest(text)), "useless")

    async def resolved(self, text: bytes) -> None:
        """A conflict, to the content that has ``text``."""
        await resolve(self.stores, UID, self.digest(text), "the right patient")

    def digest(self, text: bytes = b"ID 1") -> str:
        """Source digest of the content."""
        return hashlib.sha256(data_set(text)[0]).hexdigest()

    async def find(
        self,
        ae_title: str,
        policy: Policy = Policy.READ,
        *,
        ae_titles: Sequence[str] = (),
        uid: str = UID,
        sop_class: str = SECONDARY_CAPTURE,
    ) -> Finding:
        """What is found for a source."""
        question = asked(calling_ae_title=ae_title, ae_titles=(ae_title, *ae_titles), policy=policy)
        (found,) = await Prover(self.stores, 4).prove(question, [Reference(sop_class, uid)])
        assert (found.sop_class_uid, found.sop_instance_uid) == (sop_class, uid)
        return Finding(found.finding)

    async def keys(self, area: Area) -> list[Key]:
        """All that is in an area."""
        return [listed.key async for listed in self.stores.find(area)]

    # behind the store's back

    def content(self, key: Key = KEY) -> bytes:
        """The bytes under a key."""
        if isinstance(self._where, Path):
            return (self._where / str(key)).read_bytes()
        return bytes(obstore.get(self._client(), str(key)).bytes())

    def write(self, data: bytes, key: Key = KEY) -> None:
        """Put other bytes under a key."""
        if isinstance(self._where, Path):
            (self._where / str(key)).write_bytes(data)
        else:
            obstore.put(self._client(), str(key), data)

    def flip(self, at: int = -10, key: Key = KEY) -> None:
        """Flip a byte."""
        data = bytearray(self.content(key))
        data[at] ^= 1
        self.write(bytes(data), key)

    def delete(self, key: Key = KEY) -> None:
        """Remove an object."""
        if isinstance(self._where, Path):
            (self._where / str(key)).unlink()
        else:
            obstore.delete(self._client(), str(key))

    def _client(self) -> ObjectStore:
        assert isinstance(self._where, str)
        return Bucket(url_of(self._where), store_settings())._client

    def _next(self) -> UploadId:
        self._sequence += 1
        return UploadId.of(1, 1, self._sequence)


@asynccontextmanager
async def archive(data: Path, url: str = "") -> AsyncIterator[Archive]:
    """An empty one: a folder's, or the bucket's at ``url``, which returns the checksums that it checked."""
    async with placing(data, encode=False, urls=(url,) if url else (), checksums=bool(url)) as placed:
        yield Archive(placed, url or data / "store")
