"""The workers' pipeline without log and receiver: corpus files into stores, one upload at a time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import xxhash
from pydicom.filereader import read_file_meta_info

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Outcome
from ingest.contract.settings import Settings
from tests.support.datasets import data_set_bytes
from workers.dataset.payload import MemoryPayload
from workers.log.upload import Upload
from workers.pipeline import Pipeline, UncountedTries
from workers.pixels.codec import Codec
from workers.storage.stores import Stores, open_stores

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
CT = CORPUS / "LittleEndianExplicit_CT_small.dcm"


def instance_of(data_set: bytes, path: Path, **changes: object) -> Instance:
    """What a receiver would say of the data set of a file."""
    meta = read_file_meta_info(path)
    facts: dict[str, object] = {
        "sop_class_uid": str(meta.MediaStorageSOPClassUID),
        "sop_instance_uid": str(meta.MediaStorageSOPInstanceUID),
        "transfer_syntax_uid": str(meta.TransferSyntaxUID),
        "size": len(data_set),
        "seal": xxhash.xxh3_128_digest(data_set),
        "calling_ae_title": "MODALITY",
        "called_ae_title": "DICOM-INGEST",
        "peer_address": "127.0.0.1",
        "received_at": 1_700_000_000_000_000_000,
    }
    return Instance(**(facts | changes))  # type: ignore[arg-type]


class Placing:
    """Places data sets, each as an upload of its own."""

    def __init__(self, stores: Stores, codec: Codec, settings: Settings) -> None:
        self.stores = stores
        self.codec = codec
        self.settings = settings
        scratch = settings.data / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        self.pipeline = Pipeline(stores, codec, settings, scratch)
        self.sequence = 0

    async def file(self, path: Path, **changes: object) -> Outcome:
        """Place the data set of a file."""
        return await self.data_set(data_set_bytes(path), path, **changes)

    async def data_set(self, data_set: bytes, path: Path, **changes: object) -> Outcome:
        """Place a data set, described by the meta of a file."""
        self.sequence += 1
        upload_id = UploadId.of(1, 1, self.sequence)
        return await self.upload(upload_id, instance_of(data_set, path, **changes), data_set)

    async def upload(self, upload_id: UploadId, instance: Instance, data_set: bytes) -> Outcome:
        """Place an upload."""
        upload = Upload(upload_id, 0, instance, MemoryPayload([data_set]), 0, 0)
        return await self.pipeline.place(upload, UncountedTries())


@asynccontextmanager
async def placing(
    data: Path,
    *,
    replaying: bool = False,
    encode: bool = True,
    urls: Sequence[str] = (),
    checksums: bool = False,
) -> AsyncIterator[Placing]:
    """Open stores and codec in a data folder; without ``encode`` no codec process is ever started."""
    settings = Settings.model_validate(
        {"data": data, "transcode": {"enabled": encode}, "store": {"urls": tuple(urls)}}
    )
    async with Codec(memory=settings.worker.codec_memory, timeout=60) as codec:
        with open_stores(
            settings.store_locations, settings.store, replaying=replaying, checksums=checksums
        ) as stores:
            yield Placing(stores, codec, settings)
