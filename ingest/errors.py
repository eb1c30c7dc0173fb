"""Errors of the ingest side: the class says whose fault it is, and with that what follows.

    IngestError
    ├── LocalProtocolError     ours: a call the state does not allow. Abort the association; it is a defect.
    ├── RemoteProtocolError    the peer's: abort with the source and reason that the error carries.
    ├── Refused                policy: answer with the status that the error carries; the association goes on.
    │   ├── InstanceTooLong
    │   └── QuotaUsedUp
    ├── OutOfResources         the world, for now: disk, queue or memory is full. The peer may send again.
    └── LogUnavailable         the world, for now: the log cannot acknowledge. The peer may send again.

No message repeats what a peer sent: messages end in logs and in Error Comments.
"""

from enum import IntEnum


class AbortSource(IntEnum):
    """PS3.8 9.3.8, Table 9-26, Source; 1 is reserved."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """PS3.8 9.3.8, Table 9-26, Reason/Diag. of a service provider; 3 is reserved."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class IngestError(Exception):
    """The root of this side's errors."""


class LocalProtocolError(IngestError):
    """We asked for something that the state of the association does not allow."""


class RemoteProtocolError(IngestError):
    """The peer broke PS3.8 or PS3.7; ``source`` and ``reason`` are those of the A-ABORT to send."""

    def __init__(
        self, message: str, reason: AbortReason, source: AbortSource = AbortSource.SERVICE_PROVIDER
    ) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason


class Refused(IngestError):  # noqa: N818 - the status says that it failed
    """A message that gets another status than success; ``comment`` is sent as Error Comment (0000,0902)."""

    def __init__(self, status: int, comment: str, offending_element: int | None = None) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment
        self.offending_element = offending_element


class InstanceTooLong(Refused):
    """It is longer than the settings allow its sender."""


class QuotaUsedUp(Refused):
    """Unknown sources have put into quarantine what the settings let them."""


class OutOfResources(IngestError):  # noqa: N818 - named like the status A700H
    """Disk, queue or memory is used up."""


class LogUnavailable(IngestError):  # noqa: N818 - named for the fact
    """The log cannot make anything durable now."""
