"""The records of the instance log and of the outcome log: one encoding for the spool and for Kafka.

An instance of up to `MAX_PAYLOAD` bytes is one INSTANCE record; a larger one is PART records 0 to n-1 and
an END record that seals them. The payload is the data set exactly as received, without file meta.

Layout (integers little-endian; the CRC covers all other bytes of the record):

    offset  size  field
    0       1     format version, 1
    1       1     kind
    2       2     metadata length m
    4       4     payload length p
    8       4     CRC-32C of bytes 0-7, 12 to the end
    12      16    upload id
    28      4     PART: its index from 0. END: the number of parts. INSTANCE: 1. Of the commitment log: 1 where the
                  record was carried forward. Else 0
    32      m     metadata: MessagePack array of `Instance` (INSTANCE, END), `Outcome` (OUTCOME) or the struct of
                  the COMMIT kind, else empty
    32+m    p     payload (INSTANCE, PART; references of COMMIT_ASKED, _REQUESTED, _PROVED), else empty

Evolution: new metadata fields go last and have defaults; types and meanings never change; a new layout
takes a new version byte, and keeps the place and the meaning of the CRC, by which a release that is older
tells what it cannot read from what is damaged. So far `Instance` gained ``unknown_source`` and then
``association_id``. Golden vectors in ``tests/contract/`` hold yesterday's bytes to this.
"""

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from crc32c import crc32c

from ingest.contract.identifiers import UploadId

VERSION = 1
HEADER = struct.Struct("<BBHII16sI")
# Where an encoded header says what it is of.
KIND_AT = 1
UPLOAD_ID_AT = slice(12, 28)
_CRC_OFFSET = 8
_AFTER_CRC = 12

# 960 KiB + header + metadata fits Kafka's default record limit of 1 MiB on both sides; a 1 MiB part does not.
MAX_PAYLOAD = 960 * 1024
# UIDs of 64, AE titles of 16 and an address of 45 characters need under 400 bytes; outcomes under 1 KiB.
MAX_METADATA = 4096
MAX_RECORD = HEADER.size + MAX_METADATA + MAX_PAYLOAD

# Bytes of a payload that is hashed without letting go of the interpreter's lock: by the time it is had again from the event loop,
# which is never idle under load, the hash would have been made several times. A part of a large instance is longer: its hash
# runs beside the copying of the next.
HASHED_LOCKED = 640 * 1024


class Kind(enum.IntEnum):
    """What a record is."""

    INSTANCE = 1  # a whole instance
    PART = 2  # a piece of a larger one
    END = 3  # seals the parts: only now is the instance received
    ABORT = 4  # the upload will never end
    EPOCH = 5  # a receiver has started: its uploads of older epochs without END are dead
    COMMIT_ASKED = 6  # a fence: prove these instances, of all that was received before this record
    OUTCOME = 16  # where a worker put an instance
    # of the commitment log, see `ingest.contract.commitments`
    COMMIT_ACCEPTED = 17  # an N-ACTION is to be answered with success
    COMMIT_PROVED = 18  # what a worker found of a fence's instances
    COMMIT_DECIDED = 19  # what the report says is settled
    COMMIT_TAKEN = 20  # one receiver reports it, the others keep off for a while
    COMMIT_ATTEMPTED = 21  # a report was not taken
    COMMIT_CLOSED = 22  # it was, or an administrator gave it up
    COMMIT_REQUESTED = 23  # the instances of an N-ACTION that is to be accepted


class CorruptRecord(ValueError):  # noqa: N818 - states what was found
    """Bytes that are not a record this version can read."""


class NewerRecord(CorruptRecord):
    """A whole record, of a release that has other versions or kinds.

    Workers and the ledger must not pass over it, and stop there. Who only reports what others have done, as the
    commitment log's readers do, may: to them it is a record that says nothing.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is whole and of another release: upgrade what reads the log before what writes it"
        )


class Instance(msgspec.Struct, frozen=True, array_like=True):
    """What the receiver knows of an instance: identity, encoding, seal and source."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int  # bytes of the data set
    seal: bytes  # XXH3-128 of the data set, 16 bytes, big-endian (canonical) form
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    received_at: int  # nanoseconds since 1970-01-01 UTC, receiver's clock
    # It goes to quarantine, whatever it holds, until an administrator has decided.
    unknown_source: bool = False
    # of the association that brought it, as in the receiver's log lines; an instance of an earlier release has none
    association_id: str = ""


class Place(enum.StrEnum):
    """Where a received instance ended: exactly one of these."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"
    DISCARDED = "discarded"


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """A worker's announcement of one upload's place; its upload id is the record's."""

    sop_instance_uid: str
    place: Place
    reason: str  # a word from a closed list, empty for a plain success
    source_digest: str  # SHA-256 of the data set as received, hex
    store: str  # name of the store
    key: str  # the object's key in it
    at: int  # nanoseconds since 1970-01-01 UTC, worker's clock
    end_position: int = 0  # in the instance log, behind the upload's last record
    # for the ledger; an outcome of an earlier release has none of these
    study_instance_uid: str = ""  # checked; empty where the data set names none that is usable
    series_instance_uid: str = ""
    source: str = ""  # name of the configured source; empty where no table sources.NAME has the AE title
    calling_ae_title: str = ""
    received_at: int = 0  # nanoseconds since 1970-01-01 UTC, receiver's clock
    size: int = 0  # bytes of the data set as received
    findings: tuple[str, ...] = ()  # words, each once
    patient: str = ""  # keyed hash of Patient ID, never the value; empty where there is none, or no key
    patient_scope: str = ""  # within which it tells patients apart: an issuer, or only a source
    accession: str = ""  # keyed hash of Accession Number


class Record(NamedTuple):
    """A decoded record; ``payload`` is a view into the buffer that was decoded."""

    kind: Kind
    upload_id: UploadId
    index: int  # type: ignore[assignment]  # hides tuple.index, which a record has no use for
    metadata: memoryview
    payload: memoryview


_encoder = msgspec.msgpack.Encoder()
_instance_decoder = msgspec.msgpack.Decoder(Instance)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)


def encode_header(
    kind: Kind,
    upload_id: bytes,
    index: int = 0,
    metadata: msgspec.Struct | None = None,
    payload: Sequence[memoryview] = (),
) -> bytes:
    """All of a record but its payload, which the log appends without joining (one copy saved).

    ``payload`` may come in pieces; at most `MAX_PAYLOAD` bytes together.
    """
    encoded = b"" if metadata is None else _encoder.encode(metadata)
    size = sum(len(piece) for piece in payload)
    assert len(encoded) <= MAX_METADATA
    assert size <= MAX_PAYLOAD
    header = bytearray(HEADER.pack(VERSION, kind, len(encoded), size, 0, upload_id, index))
    header += encoded
    crc = crc32c(memoryview(header)[_AFTER_CRC:], crc32c(header[:_CRC_OFFSET]))
    release_lock = -1 if size > HASHED_LOCKED else 0  # crc32c's words for "when long" and "never"
    for piece in payload:
        crc = crc32c(piece, crc, release_lock)
    header[_CRC_OFFSET:_AFTER_CRC] = crc.to_bytes(4, "little")
    return bytes(header)


def decode(buffer: bytes | bytearray | memoryview) -> Record:
    """Decode exactly one record that fills ``buffer``.

    Raises:
        NewerRecord: its version or kind is not known here, and its CRC is right.
        CorruptRecord: wrong length, version or CRC.
    """
    view = memoryview(buffer)
    if len(view) < HEADER.size:
        raise CorruptRecord(f"{len(view)} bytes are shorter than a record header")
    version, kind, metadata_size, payload_size, crc, upload_id, index = HEADER.unpack_from(view)
    if version != VERSION and _fits(view, crc):
        raise NewerRecord(f"a record of version {version}")
    if version != VERSION:
        raise CorruptRecord(f"record version {version}, this release reads {VERSION}")
    body = HEADER.size + metadata_size
    if metadata_size > MAX_METADATA or payload_size > MAX_PAYLOAD or len(view) != body + payload_size:
        raise CorruptRecord(f"record of {len(view)} bytes claims {body + payload_size}")
    if not _fits(view, crc):
        raise CorruptRecord("record fails its CRC-32C")
    try:
        known = Kind(kind)
    except ValueError:
        raise NewerRecord(f"a record of kind {kind}") from None
    return Record(known, UploadId(upload_id), index, view[HEADER.size : body], view[body:])


def is_whole(record: bytes | memoryview) -> bool:
    """Whether a record's bytes agree with their CRC-32C, of whatever version and kind it is."""
    view = memoryview(record)
    crc = int.from_bytes(view[_CRC_OFFSET:_AFTER_CRC], "little")
    return len(view) >= HEADER.size and _fits(view, crc)


def _fits(view: memoryview, crc: int) -> bool:
    return crc32c(view[_AFTER_CRC:], crc32c(view[:_CRC_OFFSET])) == crc


def instance_of(record: Record) -> Instance:
    """The `Instance` in an INSTANCE or END record.

    Raises:
        CorruptRecord: the metadata is not one.
    """
    try:
        return _instance_decoder.decode(record.metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"instance metadata: {error}") from None


def outcome_of(record: Record) -> Outcome:
    """The `Outcome` in an OUTCOME record.

    Raises:
        CorruptRecord: the metadata is not one.
    """
    try:
        return _outcome_decoder.decode(record.metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"outcome metadata: {error}") from None
