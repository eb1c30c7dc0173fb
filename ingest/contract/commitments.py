"""What is written of a storage commitment (PS3.4 Annex J): a fence in the instance log, all else in a log of its own.

The life of a transaction, each record durable before the next step is taken:

1. COMMIT_ASKED in every partition of the instance log that one of the instances belongs to, at most
   `MAX_REFERENCES` of them a record. The record's upload id is the asking receiver's, fresh.
2. COMMIT_REQUESTED, as many as its instances take, then COMMIT_ACCEPTED; only now N-ACTION-RSP says success.
   Whatever becomes of fences and proofs, what was asked for is known, and can be asked again.
3. COMMIT_PROVED from the worker that reaches each fence, once everything received before it is settled. It may
   come before 2, and more than once; a later round asks again about what was absent or out of reach.
4. COMMIT_DECIDED once nothing is open: from here on the report is the same each time it is sent.
5. COMMIT_TAKEN, COMMIT_ATTEMPTED, ... COMMIT_CLOSED.

Records of the commitment log have the `TransactionId` where others have the upload id, and are all in the
partition that it names. One that is about to leave the log while its transaction is open is carried forward: written
again at the end, with index 1; of two that differ, a COMMIT_PROVED or COMMIT_DECIDED so marked is the true one; what a
later round has found of an instance is left out of those before it. COMMIT_ASKED, COMMIT_REQUESTED and COMMIT_PROVED
carry their instances as payload: a MessagePack array.
"""

import enum
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ingest.contract.identifiers import InvalidIdentifier, check_uid
from ingest.contract.records import CorruptRecord, Kind, Record

# A pair of UIDs takes 135 bytes at most: with 4,000 a record has room to spare in `records.MAX_PAYLOAD`.
MAX_REFERENCES: Final = 4000


class Policy(enum.StrEnum):
    """What counts as proof."""

    READ = "read"  # the stored bytes, read back: length and SHA-256 against the manifest
    CHECKSUM = "checksum"  # the SHA-256 that the store took and checked when it was written, and returns now
    MANIFEST = "manifest"  # head and length


class Finding(enum.IntEnum):
    """What a worker found of one instance; only the first is a success."""

    PROVED = 0
    ABSENT = 1  # every store that could have it answered that it has not
    CLASS_MISMATCH = 2  # it is there under another SOP Class
    SET_APART = 3  # in quarantine or in conflict, so that what the requester sent may not be what is stored
    DAMAGED = 4  # it was there, is not what was stored, and has been set aside
    UNAVAILABLE = 5  # a store did not answer: ask again
    UNDECIDED = 6  # not found out in the source's time; also said of a fence that nobody answered


OPEN: Final = frozenset({Finding.ABSENT, Finding.UNAVAILABLE})  # may be otherwise in a later round


class Reference(msgspec.Struct, frozen=True, array_like=True, order=True):
    """An item of the Referenced SOP Sequence (0008,1199), its UIDs checked."""

    sop_class_uid: str
    sop_instance_uid: str


class Found(msgspec.Struct, frozen=True, array_like=True):
    """What became of one reference."""

    sop_class_uid: str
    sop_instance_uid: str
    finding: Finding


class CommitAsked(msgspec.Struct, frozen=True, array_like=True):
    """A fence in one partition of the instance log."""

    transaction_id: bytes
    calling_ae_title: str
    ae_titles: tuple[str, ...]  # of the source, the calling one among them: whose lane entries are its own
    policy: Policy
    round: int  # `first_round` for the N-ACTION's own; each further one asks about what was open before
    part: int  # of the round, from 0
    parts: int  # records of the round, in all partitions
    asked_at: int  # nanoseconds since 1970-01-01 UTC, receiver's clock


class CommitAccepted(msgspec.Struct, frozen=True, array_like=True):
    """An N-ACTION that was accepted."""

    transaction_uid: str
    calling_ae_title: str
    called_ae_title: str
    source: str  # name of the configured source; empty for none
    references: int
    digest: bytes  # `digest_of` its references
    parts: int  # of the first round
    receiver: int  # who took it, and may report on the same association
    epoch: int  # of that receiver
    hold: float  # seconds for which others leave the report to it; 0 for none
    accepted_at: int  # nanoseconds since 1970-01-01 UTC, receiver's clock
    salt: bytes = b""  # of its first round's number: what an earlier try had proved is no proof for this one


class CommitRequested(msgspec.Struct, frozen=True, array_like=True):
    """Some of the instances of an N-ACTION."""

    round: int  # its first: those of a try that failed are none of the next
    part: int  # from 0


class CommitProved(msgspec.Struct, frozen=True, array_like=True):
    """What one fence's worker found; or, where fences were asked often enough in vain, that nobody did."""

    round: int
    part: int
    parts: int
    partition: int  # of the instance log
    proved_at: int  # nanoseconds since 1970-01-01 UTC, worker's clock


class CommitDecided(msgspec.Struct, frozen=True, array_like=True):
    """The report is made of the rounds up to this one; what is open then has failed."""

    round: int
    decided_at: int
    digest: bytes = b""  # of what the report says: one that would say otherwise is not sent


class CommitTaken(msgspec.Struct, frozen=True, array_like=True):
    """One receiver delivers; the others keep off for as long, counted from when they read this.

    It counts from when it was written itself: however late either reads it, its time is over before theirs.
    """

    receiver: int
    epoch: int
    seconds: float
    taken_at: int = 0  # nanoseconds since 1970-01-01 UTC, receiver's clock; for itself alone


class CommitAttempted(msgspec.Struct, frozen=True, array_like=True):
    """A report was not taken."""

    attempts: int  # so far
    problem: str  # a word from a closed list
    wait: float  # seconds until the next
    attempted_at: int


class CommitClosed(msgspec.Struct, frozen=True, array_like=True):
    """The transaction is over, its UID used up (PS3.4 J.3.3)."""

    how: str  # reported or expired
    committed: int
    failed: int
    closed_at: int


Commitment = (
    CommitAsked
    | CommitRequested
    | CommitAccepted
    | CommitProved
    | CommitDecided
    | CommitTaken
    | CommitAttempted
    | CommitClosed
)

_TYPES: Final[dict[Kind, type[Commitment]]] = {
    Kind.COMMIT_ASKED: CommitAsked,
    Kind.COMMIT_REQUESTED: CommitRequested,
    Kind.COMMIT_ACCEPTED: CommitAccepted,
    Kind.COMMIT_PROVED: CommitProved,
    Kind.COMMIT_DECIDED: CommitDecided,
    Kind.COMMIT_TAKEN: CommitTaken,
    Kind.COMMIT_ATTEMPTED: CommitAttempted,
    Kind.COMMIT_CLOSED: CommitClosed,
}
_decoders = {kind: msgspec.msgpack.Decoder(of) for kind, of in _TYPES.items()}
_encoder = msgspec.msgpack.Encoder()
_references = msgspec.msgpack.Decoder(list[Reference])
_found = msgspec.msgpack.Decoder(list[Found])


# Rounds of one transaction: the time between two doubles from seconds on, so that no wait limit reaches this many.
MAX_ROUNDS: Final = 256
# Records of one round: 4096 of `MAX_REFERENCES` each are 16 million instances, and fit in 12 bits of a proof's key.
MAX_PARTS: Final = 4096


def first_round(digest: bytes, salt: bytes = b"") -> int:
    """The number of a transaction's first round; the others count on from it, fewer than `MAX_ROUNDS`.

    It is made of what was asked and of the acceptance's salt: an N-ACTION that failed half-way, and came again, has
    left fences behind, and what was proved of them then must not pass for proof of now.
    """
    return int.from_bytes(hashlib.sha256(digest + salt).digest()[:4], "big") * MAX_ROUNDS


def digest_of(references: Iterable[Reference]) -> bytes:
    """SHA-256 of the set of references: a repeated N-ACTION asks for the same set or is another."""
    return hashlib.sha256(_encoder.encode(sorted(set(references)))).digest()


def kind_of(commitment: Commitment) -> Kind:
    """The record kind that carries it."""
    return next(kind for kind, of in _TYPES.items() if type(commitment) is of)


def commitment_of(record: Record) -> Commitment:
    """What a COMMIT record says, but for its references.

    Raises:
        CorruptRecord: it is of another kind, or its metadata is not what the kind has.
    """
    decoder = _decoders.get(record.kind)
    if decoder is None:
        raise CorruptRecord(f"{record.kind.name} is no record of a commitment")
    try:
        return decoder.decode(record.metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"commitment metadata: {error}") from None


def encode_references(references: Sequence[Reference] | Sequence[Found]) -> memoryview:
    """The payload of COMMIT_ASKED, COMMIT_REQUESTED and COMMIT_PROVED; at most `MAX_REFERENCES`."""
    assert len(references) <= MAX_REFERENCES
    return memoryview(_encoder.encode(references))


def references_of(record: Record) -> list[Reference]:
    """The instances of a COMMIT_ASKED or COMMIT_REQUESTED record.

    Raises:
        CorruptRecord: the payload is not a list of them.
    """
    try:
        references = _references.decode(record.payload)
        for reference in references:
            check_uid(reference.sop_class_uid)
            check_uid(reference.sop_instance_uid)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidIdentifier) as error:
        raise CorruptRecord(f"references: {error}") from None
    return references


def found_of(record: Record) -> list[Found]:
    """The instances of a COMMIT_PROVED record, with what was found of each.

    Raises:
        CorruptRecord: the payload is not a list of them.
    """
    try:
        return _found.decode(record.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"findings: {error}") from None
