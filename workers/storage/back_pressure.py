"""What keeps one store from costing the others: bytes on their way to it, and the time spent on its silence."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from workers.errors import Unavailable
from workers.storage.bucket import RETRY_AFTER, Silent

_LONGEST_REST: Final = 30.0  # seconds


class ByteBudget:
    """Bytes that may be on their way to one store. Whoever takes some has none yet, so nobody waits in a ring."""

    def __init__(self, size: int, patience: float) -> None:
        """``patience``: seconds to wait for others."""
        self._free = size
        self._patience = patience
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator["Share"]:
        """Wait for room, and hold it while in the context.

        Raises:
            Unavailable: others have held it for too long.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= size, self._patience):
                raise Unavailable("store: too many bytes are on their way to it", RETRY_AFTER)
            self._free -= size
        share = Share(self, size)
        try:
            yield share
        finally:
            share.shrink(0)

    def give_back(self, size: int) -> None:
        """Make room for others."""
        with self._changed:
            self._free += size
            self._changed.notify_all()


class Share:
    """What one has of a budget."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self._size = size

    def shrink(self, size: int) -> None:
        """Keep only so many bytes."""
        if size < self._size:
            self._budget.give_back(self._size - size)
            self._size = size


class Rest:
    """Leaves a store alone that does not answer: one request at a time finds out whether it does again.

    Without it, every upload to a dead store would wait for its deadline in a place that another could have.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._length = 0.0
        self._trying = False

    def refuse(self) -> None:
        """Nothing, where a request would be let through.

        Raises:
            Unavailable: not now.
        """
        if self._length > 0 and (self._trying or time.monotonic() < self._until):
            raise Unavailable(
                "store: it has not answered, and is left alone for a while", max(self._length, 1.0)
            )

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """Let a request through, and learn from it.

        Raises:
            Unavailable: not now, or what the request raised.
        """
        resting = self._length > 0
        self.refuse()
        self._trying = self._trying or resting
        try:
            yield
        except Unavailable as error:
            if isinstance(error, Silent):
                self._length = min(max(2 * self._length, error.retry_after), _LONGEST_REST)
                self._until = time.monotonic() + self._length
            raise
        else:
            self._length = 0.0
        finally:
            if resting:
                self._trying = False
