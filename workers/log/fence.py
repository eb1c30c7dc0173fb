"""A fence: a question of storage commitment at its place in the log, about what was received before it.

It holds the low-water mark at its position until it is proved, so a crash asks it again; see
`ingest.contract.commitments`. What is held of it are the bytes of its record: a fence may wait for long.
"""

from dataclasses import dataclass

from ingest.contract.commitments import (
    CommitAsked,
    Reference,
    commitment_of,
    references_of,
)
from ingest.contract.identifiers import UploadId
from ingest.contract.records import HEADER, CorruptRecord, Kind, Record
from workers.log.entries import LogRecord


@dataclass(frozen=True, eq=False)
class Fence:
    """What was asked, where, and of which instances."""

    fence_id: UploadId  # in the place of an upload id, and as unique
    partition: int
    asked: CommitAsked
    record: Record
    end_position: int  # behind its record

    @property
    def held(self) -> int:
        """Bytes of memory that it takes."""
        return len(self.record.payload)

    def references(self) -> list[Reference]:
        """The instances it asks about, decoded anew."""
        return references_of(self.record)


def fence_of(entry: LogRecord) -> Fence:
    """The fence in a COMMIT_ASKED record.

    Raises:
        CorruptRecord: it is whole, and yet cannot be read.
    """
    record = entry.record
    asked = commitment_of(record)
    if not isinstance(asked, CommitAsked):
        raise CorruptRecord(f"{record.kind.name} asks nothing")
    references_of(record)
    return Fence(record.upload_id, entry.partition, asked, record, entry.next_position)


def was_fence(data: memoryview) -> bool:
    """Whether the bytes of a damaged record were a fence: what can still be read of it is nobody else's.

    Its kind alone does not tell, as that may be what was damaged: an instance must not be passed over.
    """
    if len(data) < HEADER.size:
        return False
    _, _, metadata_size, payload_size, _, upload_id, index = HEADER.unpack_from(data)
    for body in {HEADER.size + metadata_size, len(data) - payload_size}:  # one of the two may be damaged
        if HEADER.size <= body <= len(data):
            parts = data[HEADER.size : body], data[body:]
            if _reads_as_question(Record(Kind.COMMIT_ASKED, UploadId(upload_id), index, *parts)):
                return True
    return False


def _reads_as_question(record: Record) -> bool:
    try:
        return isinstance(commitment_of(record), CommitAsked)
    except CorruptRecord:
        pass
    try:
        return bool(references_of(record))
    except CorruptRecord:
        return False
