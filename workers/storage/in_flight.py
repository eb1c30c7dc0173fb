"""Requests to buckets that are on their way: a thread in one cannot be stopped, only waited for.

An interpreter that ends waits for its threads. A worker that has committed all its work must not wait for a
store that does not answer until it is killed: so it waits a moment, and leaves them behind.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_MOMENT: Final = 1.0  # seconds
_EVERY: Final = 0.02

_lock = threading.Lock()
_count = 0


@contextmanager
def in_flight() -> Iterator[None]:
    """Count a request while in the context."""
    _add(1)
    try:
        yield
    finally:
        _add(-1)


def leave_behind(code: int) -> None:
    """End the process with ``code``, without its threads, if requests are on their way for longer than a moment.

    Nothing may be left to do: what would be run at the end of an interpreter is not.
    """
    end = time.monotonic() + _MOMENT
    while _count and time.monotonic() < end:
        time.sleep(_EVERY)
    if _count:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _add(number: int) -> None:
    global _count  # noqa: PLW0603 - of the process
    with _lock:
        _count += number
