"""Who claims commitment transactions where receivers share the log: one name for all starts on a data folder.

A start knows the claims of those before it as its own, which hold back nobody any more, so it goes on at once instead
of waiting until they lapse. Two receivers on one folder must not have one name: the second gets one for this start.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from ingest.contract.spool import Disk, read_slot, write_slot

logger = structlog.get_logger(__name__)

_SLOT: Final = "commitment-claimant"
_LOCK: Final = "commitment-claimant.lock"
_BITS: Final = 32


class Claimant(NamedTuple):
    """As in `CommitTaken`."""

    receiver: int
    epoch: int  # grows with each start


@contextlib.contextmanager
def claimant(disk: Disk, data: Path, now: int) -> Iterator[Claimant]:
    """Who this start is, until the end of the context; ``now`` is in milliseconds since 1970."""
    with contextlib.ExitStack() as resources:
        try:
            found = _durable(disk, data, now, resources)
        except OSError as error:
            logger.warning(
                "the name of this receiver cannot be kept for its next start", error=error.strerror
            )
            found = None
        yield found or Claimant(secrets.randbits(_BITS), now)


def _durable(disk: Disk, data: Path, now: int, resources: contextlib.ExitStack) -> Claimant | None:
    """The next start of the name that the folder has; None while another has it."""
    disk.make_folder(data)
    lock = disk.lock(data / _LOCK)
    if lock is None:
        logger.info("another receiver runs on this data folder, so this one's name is for this start alone")
        return None
    resources.callback(disk.close, lock)
    match read_slot(disk, data / _SLOT):
        case (receiver, epoch):
            found = Claimant(receiver, max(epoch + 1, now))
        case _:
            found = Claimant(secrets.randbits(_BITS), now)
    write_slot(disk, data / _SLOT, *found)
    return found
