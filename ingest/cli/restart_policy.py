"""When a child that ended is started again: a pure decision, so that its cases are tested without processes."""

from dataclasses import dataclass
from typing import Final

from ingest.contract.command_options import EXIT_FAILURE, EXIT_USAGE

FIRST_DELAY: Final = 0.25  # seconds
MAXIMUM_DELAY: Final = 30.0  # seconds; a disk that comes back is used again within half a minute
STEADY: Final = 60.0  # seconds of life after which earlier failures are forgotten
UNREADY_STARTS: Final = 3  # a child that was never ready is broken or locked out: say so instead of retrying
EARLY_ENDS: Final = 5  # successive exits with 0 that nobody asked for


@dataclass(frozen=True)
class Restart:
    """Start the child again after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True)
class GiveUp:
    """Stop everything and exit with ``code``."""

    code: int
    reason: str


class RestartPolicy:
    """One child's history; tell it each end."""

    def __init__(self) -> None:
        self._was_ready = False
        self._failures = 0  # ends since the last steady run
        self._successes = 0  # of these, the successive ones with exit code 0

    def ended(self, code: int, *, lived: float, ready: bool) -> Restart | GiveUp:
        """What follows from an end with ``code`` after ``lived`` seconds, in which it was ``ready`` or not."""
        self._was_ready |= ready
        # One that was ready had settings that are right: somebody is about to change the file, and the others run.
        if code == EXIT_USAGE and not self._was_ready:
            return GiveUp(EXIT_USAGE, "its settings are refused")
        if lived >= STEADY:
            self._failures = self._successes = 0
        self._failures += 1
        self._successes = self._successes + 1 if code == 0 else 0
        if not self._was_ready and self._failures >= UNREADY_STARTS:
            return GiveUp(EXIT_FAILURE, "it does not start")
        if self._successes >= EARLY_ENDS:
            return GiveUp(EXIT_FAILURE, "it ends again and again though nobody stops it")
        # The exponent is bounded: a float overflows at two to the 1024th.
        return Restart(min(MAXIMUM_DELAY, FIRST_DELAY * 2.0 ** min(self._failures - 1, 16)))
