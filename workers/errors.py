"""Errors of the workers: the class says whose fault it is and what follows.

    WorkerError
     +-- Rejected       the instance: quarantine it with the reason, announce, go on
     +-- Unavailable    the world, for now: pause, try the same instance again after `retry_after`
     |    +-- BadPlace  a store's disk does not give back what it keeps, of one object
     +-- Spoiled        our scratch disk: the process ends, and the next reads the instance from the log again

Beside the tree are facts that one caller asks about and settles, each defined where it is met:

    dataset    EndOfPayload, CannotReencode
    pixels     CodecFailed, FramesUnknown
    stages     CannotDecompress
    storage    Damaged and its Unreadable, UnreadableManifest, CannotReplay, CannotResolve, NoSuchEntry
    ledger     LedgerUnavailable

`WrongStores`, `ForeignCommit` and the contract's own end a process with what an administrator is to do. Any other
exception is a defect of ours: the process ends without a checkpoint, and the supervisor starts another. Messages
never hold values of the data set: they reach logs and the quarantine's manifest.
"""

import enum
import errno
from typing import Final

# read(2), and what file systems with checksums answer of bytes that have another one: asked again, they answer the same.
BAD_PLACE: Final = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})


class Reason(enum.StrEnum):
    """Why an instance was rejected: the closed list that quarantine, outcomes and metrics use."""

    SEAL = "seal"  # the bytes are not those that were received
    TRANSFER_SYNTAX = "transfer-syntax"  # not one whose encoding is known
    INFLATE = "inflate"  # the deflated stream is damaged
    STRUCTURE = "structure"  # PS3.5 section 7 is broken where no reader can go on
    TRUNCATED = "truncated"  # a length or a missing delimiter points behind the last byte
    LIMIT = "limit"  # deeper, longer or more numerous than we are ready to read
    GROUP_0000 = "group-0000"  # command elements in the data set
    GROUP_0002 = "group-0002"  # file meta elements in the data set
    IDENTITY = "identity"  # SOP Class, SOP Instance, Study or Series UID missing, invalid or ambiguous
    DAMAGED_IN_LOG = "damaged-in-log"  # the log does not have all that was received
    ATTEMPTS = "attempts"  # every process that worked on it died
    UNKNOWN_SOURCE = "unknown-source"  # of no source in the settings: receiver.unknown_sources
    MISMATCH = "mismatch"  # the command and the data set speak of different instances


class WorkerError(Exception):
    """Root of what workers raise on purpose."""


class Rejected(WorkerError):  # noqa: N818 - named like the outcome it leads to
    """An instance that cannot be read or identified (or is not the one received)."""

    def __init__(self, reason: Reason, position: int, detail: str) -> None:
        """``position``: byte of the data set where the parser stood; ``detail``: a sentence without values."""
        super().__init__(f"{reason} at byte {position}: {detail}")
        self.reason = reason
        self.position = position
        self.detail = detail


class Unavailable(WorkerError):  # noqa: N818 - a state of the world
    """Something outside does not answer or has no room; nothing is wrong with the instance."""

    def __init__(self, detail: str, retry_after: float) -> None:
        """``retry_after``: seconds to wait before the next try."""
        super().__init__(detail)
        self.retry_after = retry_after


class BadPlace(Unavailable):
    """A disk that answers, and does not give back bytes that it keeps; of an object that is damage."""


class Spoiled(WorkerError):  # noqa: N818 - a state of the world
    """A scratch file has not kept the bytes of an instance, which the log still has."""
