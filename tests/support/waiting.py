"""Waiting for what comes by itself, however busy the machine is; `asynchronous` has the same for coroutines."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str = "what must come", timeout: float = 120) -> None:
    """Wait until something is so; ``timeout`` in seconds, which only what never comes needs."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
