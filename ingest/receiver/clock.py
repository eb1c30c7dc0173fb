"""How long a peer has been silent or slow: what PS3.8 leaves to the implementation beyond ARTIM."""

import time
from typing import Final

from ingest.contract.settings import ReceiverSettings

# An event loop that comes so much too late to its timer was held up: what came meanwhile may not have been read yet.
LATE: Final = 0.5  # s


class PeerClock:
    """Judges one peer by the time in which something was due from it, and by no other.

    All times are seconds of ``time.monotonic``. Time in which we owed the answer, did not read, or were too busy to
    look is the peer's excuse.
    """

    __slots__ = (
        "_bytes", "_due", "_limits", "_unread", "_waited", "_waits_since", "_window", "begun", "last_byte",
    )  # fmt: skip

    def __init__(self, limits: ReceiverSettings) -> None:
        self._limits = limits
        self.last_byte = self._due = self._window = time.monotonic()
        self.begun = self._due  # of the message in progress
        self._bytes = 0  # since the window began
        self._unread = 0.0  # since when the peer leaves its answers unread; 0 while it does not
        self._waits_since = 0.0  # for room for more of a data set; 0 while it does not
        self._waited = 0.0  # so long, within the message in progress

    def heard(self, count: int) -> None:
        """So many bytes have come."""
        self.last_byte = time.monotonic()
        self._bytes += count

    def begin(self) -> None:
        """With the last bytes a message has begun."""
        self.begun = self._window = self.last_byte
        self._bytes = 0
        self._waited = 0.0

    def waits(self) -> None:
        """There is no room for more of a data set, or still not."""
        self._waits_since = self._waits_since or time.monotonic()

    def goes_on(self) -> None:
        """There is again."""
        self._waited += time.monotonic() - self._waits_since
        self._waits_since = 0.0

    def excuse(self, now: float) -> None:
        """Nothing was due from the peer until now."""
        self._due = self._window = now
        self._bytes = 0

    def excuse_reading(self, now: float) -> None:
        """Until now we could not see whether it reads its answers."""
        if self._unread:
            self._unread = now

    def leaves_unread(self) -> None:
        """The peer does not read its answers, from now on."""
        self._unread = time.monotonic()

    def reads(self) -> None:
        """The peer reads again."""
        self._unread = 0.0

    @property
    def unread(self) -> bool:
        """Whether answers lie unread."""
        return self._unread > 0

    def reads_too_late(self, now: float) -> bool:
        """Whether answers have been lying unread for longer than may be."""
        return self.unread and now - self._unread > self._limits.stall_timeout

    def overdue(self, now: float, *, in_message: bool, idle: float) -> str:
        """What the peer is to be aborted for, or nothing; ``idle``: s that it may be silent between two messages."""
        limits = self._limits
        silence = now - max(self.last_byte, self._due)
        if not in_message:
            self._window, self._bytes = now, 0  # what begins before the next look is measured from here
            self.begun, self._waited = now, 0.0
            return "idle" if silence > idle else ""
        if silence > limits.stall_timeout:
            return "stalled"
        if now - self.begun - self._waited > limits.maximum_upload_duration:
            return "message takes too long"
        if now - self._window <= limits.stall_timeout:
            return ""
        slow = self._bytes < limits.minimum_rate * limits.stall_timeout
        self._window, self._bytes = now, 0
        return "too slow" if slow else ""
