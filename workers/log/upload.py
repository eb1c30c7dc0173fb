"""One completely received instance, or what is left of one: made of records, sound or damaged."""

from dataclasses import dataclass

import msgspec

from ingest.contract.identifiers import InvalidIdentifier, UploadId, check_uid, is_association_id
from ingest.contract.records import HEADER, VERSION, CorruptRecord, Instance, Kind, Record, instance_of
from workers.dataset.payload import MemoryPayload, Payload
from workers.log.entries import DamagedRecord, LogRecord
from workers.log.scratch import ScratchPayload

# Upload ids of what damage has cut off from its own; no receiver has these numbers.
_DAMAGE = b"\xff\xff\xff\xff"  # then the position of a record that names no upload


@dataclass(frozen=True)
class Upload:
    """One completely received instance, or what is left of one."""

    upload_id: UploadId
    partition: int
    instance: Instance
    payload: Payload
    first_position: int
    end_position: int  # behind its last record
    damage: str = ""  # what the log lost of it; empty when nothing
    file: ScratchPayload | None = None  # where the payload is, when it is not in memory
    sealed_at: int | None = None  # position of the record that is its end and no other's; None with damage
    replayed: bool = True  # another process, or an earlier try of this one, may have given it its place

    @property
    def facts(self) -> dict[str, str]:
        """What each log line about it has: never more than checked identifiers."""
        return {
            "association": self.instance.association_id,
            "sop_instance_uid": self.instance.sop_instance_uid,
        }

    @property
    def held(self) -> int:
        """Bytes of memory that its payload takes."""
        return 0 if self.file else self.payload.size


def whole(entry: LogRecord, record: Record) -> Upload:
    """The upload in an INSTANCE record."""
    instance = instance_in(record)
    size = len(record.payload)
    return Upload(
        upload_id=record.upload_id,
        partition=entry.partition,
        instance=instance or unknown(size),
        payload=MemoryPayload([record.payload]),
        first_position=entry.position,
        end_position=entry.next_position,
        sealed_at=entry.position,
        damage="" if instance and instance.size == size else "its record contradicts itself",
    )


def remains(entry: DamagedRecord, upload_id: UploadId, record: Record | None) -> Upload:
    """A damaged record as an upload of its own, with as much of an instance as can be made out."""
    instance = instance_in(record) if record is not None and record.kind is Kind.INSTANCE else None
    data = record.payload if record is not None and instance is not None else entry.data
    return Upload(
        upload_id=upload_id,
        partition=entry.partition,
        instance=instance or unknown(len(data)),
        payload=MemoryPayload([data]),
        first_position=entry.position,
        end_position=entry.next_position,
        sealed_at=entry.position,
        damage="its record fails its check sum",
    )


def unnamed(position: int) -> UploadId:
    """The upload id of damage at ``position`` that names no upload, the same at every replay."""
    return UploadId(_DAMAGE + position.to_bytes(UploadId.SIZE - len(_DAMAGE), "big"))


def is_unnamed(upload_id: bytes) -> bool:
    """Whether this is such an upload id."""
    return upload_id.startswith(_DAMAGE)


def unknown(size: int) -> Instance:
    """Stands for the metadata of an instance that lost it."""
    return Instance("", "", "", size, b"", "", "", "", 0)


def instance_in(record: Record) -> Instance | None:
    """The metadata, None when it is damaged or, being from a damaged record, holds an unusable UID.

    What is no id of an association is left out: it is for log lines.
    """
    try:
        instance = instance_of(record)
        check_uid(instance.sop_instance_uid)
    except (CorruptRecord, InvalidIdentifier):
        return None
    if is_association_id(instance.association_id):
        return instance
    return msgspec.structs.replace(instance, association_id="")


def legible(data: memoryview) -> Record | None:
    """A record that fails its check, read by its header, if that fits the bytes and the kind."""
    if len(data) < HEADER.size:
        return None
    version, kind, metadata_size, payload_size, _, upload_id, index = HEADER.unpack_from(data)
    body = HEADER.size + metadata_size
    if version != VERSION or body + payload_size != len(data):
        return None
    fits = {
        Kind.INSTANCE: metadata_size and index == 1,
        Kind.PART: payload_size and not metadata_size,
        Kind.END: metadata_size and not payload_size,
    }
    if not fits.get(kind, False):
        return None
    return Record(Kind(kind), UploadId(upload_id), index, data[HEADER.size : body], data[body:])
