"""How fast a source may send: what it has sent too early is waited off before its sockets are read again."""

from typing import Final

_BURST: Final = 1.0  # seconds of silence that may be made up for at once
# Reads of one association in a second's worth. Each waits for all others of its source: where a thousand share a low rate, a
# read of all that has come would take each longer than the log bears between two records of an instance.
_BITES: Final = 64


class RateMeter:
    """A token bucket that may go below empty, since bytes are counted once they have come."""

    def __init__(self, rate: int) -> None:
        self._rate = rate  # bytes a second
        self.bite: int = rate // _BITES  # bytes to read at once
        self._level = rate * _BURST
        self._at = 0.0

    def take(self, count: int, now: float) -> float:
        """So many bytes have come; the seconds to wait before more is read, 0 if none."""
        if self._at:
            self._level = min(self._rate * _BURST, self._level + (now - self._at) * self._rate)
        self._at = now
        self._level -= count
        return max(0.0, -self._level / self._rate)
