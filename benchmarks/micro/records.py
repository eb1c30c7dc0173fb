"""The record codec, CRC-32C included, and the seal."""

from collections.abc import Callable

import xxhash

from benchmarks.data import EXPLICIT_VR_LITTLE_ENDIAN, KINDS, UidSeries
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Kind, decode, encode_header, instance_of


def operations() -> dict[str, Callable[[int], None]]:
    """Name to what does it so many times."""
    payload = memoryview(bytes(KINDS["ct"].pixel_size))
    uid = UidSeries(1, 1).next().decode("ascii")
    instance = Instance(
        KINDS["ct"].sop_class_uid, uid, EXPLICIT_VR_LITTLE_ENDIAN, len(payload), bytes(16),
        "MODALITY", "DICOM-INGEST", "127.0.0.1", 0,
    )  # fmt: skip
    upload_id = UploadId.of(1, 1, 1)
    record = encode_header(Kind.INSTANCE, upload_id, 1, instance, (payload,)) + bytes(payload)

    def encode(count: int) -> None:
        for _ in range(count):
            encode_header(Kind.INSTANCE, upload_id, 1, instance, (payload,))

    def decode_record(count: int) -> None:
        for _ in range(count):
            instance_of(decode(record))

    def seal(count: int) -> None:
        for _ in range(count):
            xxhash.xxh3_128(payload).digest()

    return {
        "records: encode an instance of 512 KiB": encode,
        "records: decode it": decode_record,
        "records: seal it": seal,
    }
