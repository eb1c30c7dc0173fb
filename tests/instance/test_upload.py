"""One instance on its way into the log: sealed when every part of it is there, and never else."""

import zlib

from ingest.contract.identifiers import UploadId
from ingest.contract.records import MAX_PAYLOAD, Instance, Kind
from ingest.contract.settings import MiB
from ingest.errors import LogUnavailable
from ingest.instance import ChunkPool, Upload
from ingest.instance.identity import DEFLATED
from tests.support.asynchronous import asynchronous
from tests.support.memory_log import MemoryLog
from tests.support.scu import CT, EXPLICIT, ct_data_set

UID = "1.2.3"


@asynchronous
async def test_nothing_is_sealed_whose_last_part_is_refused_at_once() -> None:
    """The peer hears why, and workers that the upload is over: an END behind its ABORT would tell them of a loss."""
    log = MemoryLog()
    instance = Instance(CT, UID, EXPLICIT, 0, b"", "MODALITY", "DICOM-INGEST", "127.0.0.1", 1)
    upload = Upload(log, ChunkPool(8 * MiB), UploadId.of(7, 1, 1), instance, lambda: None)
    data_set = memoryview(ct_data_set(UID, MAX_PAYLOAD + 1000))
    assert upload.write(data_set) == len(data_set)
    log.failure = LogUnavailable("the upload paused too long")
    answers: list[Exception | None] = []
    upload.finish(answers.append)
    assert answers == [log.failure]
    assert log.kinds() == [Kind.PART, Kind.PART, Kind.ABORT]


class Holder:
    """Fills a chunk and does not give it up."""

    size = 0

    def yield_chunk(self) -> bool:
        return False


@asynchronous
async def test_a_deflated_data_set_is_taken_although_no_chunk_is_free() -> None:
    """Put aside or not, its UIDs cannot be read before it is inflated: it is no reason to refuse it."""
    log, pool = MemoryLog(), ChunkPool(1)
    while pool.free:
        pool.acquire(Holder())
    instance = Instance(CT, UID, DEFLATED, 0, b"", "MODALITY", "DICOM-INGEST", "127.0.0.1", 1)
    upload = Upload(log, pool, UploadId.of(7, 1, 1), instance, lambda: None)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data_set = deflate.compress(ct_data_set(UID)) + deflate.flush()
    assert upload.write(memoryview(data_set)) == len(data_set)
    answers: list[Exception | None] = []
    upload.finish(answers.append)
    assert answers == [None]
    assert log.instances()[UID][1] == data_set
