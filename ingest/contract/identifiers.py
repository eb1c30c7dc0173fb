"""Checked identifiers: UIDs (PS3.5 section 9.1), AE titles (PS3.5 section 6.2), upload ids, partitions.

A peer's string becomes a path, a key, a log field or a metric label only after it has passed here.
"""

import hashlib
import re
from typing import Self

import xxhash

UID_MAX_LENGTH = 64  # PS3.5 9.1

# Who we are, to peers (PS3.7 D.3.3.2) and in the files we write (PS3.10 7.1). PS3.5 B.2: derived from a UUID.
IMPLEMENTATION_CLASS_UID = "2.25.35441174143524714816653915053526014095"
IMPLEMENTATION_VERSION_NAME = "DICOM-INGEST"

# PS3.5 9.1 forbids leading zeros in a component, yet senders produce them: a finding, not a refusal.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")
_LEADING_ZERO = re.compile(r"(?:^|\.)0[0-9]")
_ASSOCIATION_ID = re.compile(r"[0-9a-f]{1,16}-[0-9]{1,20}\Z")
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}\Z")  # ISO 646 without control characters and backslash


class InvalidIdentifier(ValueError):  # noqa: N818 - named for the fact, like the standard's status 0117H
    """A string that may not be used as the identifier it claims to be."""


def check_uid(text: str) -> str:
    """Return ``text`` unchanged when it is usable as a UID: 1 to 64 digits and dots, no empty component.

    Raises:
        InvalidIdentifier: for anything else. The message never repeats the text.
    """
    if not text:
        raise InvalidIdentifier("UID is empty")
    if len(text) > UID_MAX_LENGTH:
        raise InvalidIdentifier(f"UID has {len(text)} characters, at most {UID_MAX_LENGTH} are allowed")
    if not _UID.match(text):
        raise InvalidIdentifier("UID holds other than digits and dots, or an empty component")
    return text


def has_leading_zero(uid: str) -> bool:
    """Whether a component of a checked UID starts with a superfluous zero (PS3.5 9.1)."""
    return _LEADING_ZERO.search(uid) is not None


def check_ae_title(text: str) -> str:
    """Return ``text`` unchanged when it is a usable AE title: 1 to 16 printable characters, not all spaces.

    Raises:
        InvalidIdentifier: for anything else. The message never repeats the text.
    """
    if not _AE_TITLE.match(text) or not text.strip():
        raise InvalidIdentifier("AE title must be 1 to 16 printable ASCII characters without backslash")
    return text


def association_id(started: int, number: int) -> str:
    """Names one association: when its receiver started, in milliseconds since 1970, and which of its requests it was."""
    return f"{started:x}-{number}"


def is_association_id(text: str) -> bool:
    """Whether ``text`` has the form of one, so that it may be a log field."""
    return _ASSOCIATION_ID.match(text) is not None


def partition_of(sop_instance_uid: str, partitions: int) -> int:
    """The log partition of an instance: every copy of one SOP Instance UID meets in one worker."""
    return int(xxhash.xxh3_64_intdigest(sop_instance_uid.encode("ascii")) % partitions)


class UploadId(bytes):
    """Names one attempt to send one instance: receiver (4 bytes), epoch (6), sequence (6), all big-endian.

    The epoch grows with each start of a receiver, so uploads that an earlier start left without an END
    record are known to be dead.
    """

    __slots__ = ()
    SIZE = 16

    @classmethod
    def of(cls, receiver: int, epoch: int, sequence: int) -> Self:
        """Compose an id; each part must fit its width."""
        return cls(receiver.to_bytes(4, "big") + epoch.to_bytes(6, "big") + sequence.to_bytes(6, "big"))

    @property
    def receiver(self) -> int:
        """Which receiver took the upload."""
        return int.from_bytes(self[:4], "big")

    @property
    def epoch(self) -> int:
        """Which start of that receiver."""
        return int.from_bytes(self[4:10], "big")

    @property
    def sequence(self) -> int:
        """Which upload since that start."""
        return int.from_bytes(self[10:], "big")


class TransactionId(bytes):
    """Names one storage commitment transaction: who asked for it, and its Transaction UID (PS3.4 J.3.2), hashed.

    A Transaction UID is unique for its requester only, so the requester's AE title is part of it.
    """

    __slots__ = ()
    SIZE = 16

    @classmethod
    def of(cls, calling_ae_title: str, transaction_uid: str) -> Self:
        """A cryptographic hash: a requester must not be able to make another's."""
        text = f"{calling_ae_title}\n{transaction_uid}".encode("ascii")
        return cls(hashlib.sha256(text).digest()[: cls.SIZE])

    def home(self, partitions: int) -> int:
        """Where in the commitment log all records of the transaction are."""
        return int.from_bytes(self[:8], "big") % partitions
