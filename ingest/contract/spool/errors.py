"""What can stop a log; the class says what follows.

SpoolError
├── SpoolMissing    there is no log yet: its writer has never started. Try again later.
├── SpoolLocked     another process has it: two writers, or two workers of one partition.
├── SpoolMismatch   it was made with other settings or by another release: an administrator decides.
├── SpoolFull       no segment can be had now: refuse, and try again when workers have drained it.
├── WriteFailed     a group could not be written and has been taken back: its records are refused.
└── SyncFailed      the page cache can no longer be believed: the process must end and recover.
"""


class SpoolError(Exception):
    """The root of the log's errors."""


class SpoolMissing(SpoolError):  # noqa: N818 - named for the fact
    """There is no log in this folder yet."""


class SpoolLocked(SpoolError):  # noqa: N818 - named for the fact
    """Another process holds what only one may hold."""


class SpoolMismatch(SpoolError):  # noqa: N818 - named for the fact
    """The log was made with other settings than it is opened with."""


class SpoolFull(SpoolError):  # noqa: N818 - named for the fact
    """No segment is free and none may be made; the message says why."""


class WriteFailed(SpoolError):  # noqa: N818 - named for the fact
    """Nothing of the group is in the log; the cause is the file system's error."""


class SyncFailed(SpoolError):  # noqa: N818 - named for the fact
    """What was written since the durable end may or may not be on the disk; nothing more may be written."""
