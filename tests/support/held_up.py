"""A system call that stands still in its thread, as on a disk that does not answer, until a test lets it go on."""

import os
import threading
from typing import Any

import pytest


class HeldUp:
    """The next call of ``os.<name>``, only that, waits for `let_go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._call = getattr(os, name)
        self._lock = threading.Lock()
        self._is_taken = False
        self._reached = threading.Event()
        self._go = threading.Event()
        monkeypatch.setattr(os, name, self._held)

    @property
    def is_reached(self) -> bool:
        """Whether a thread stands there."""
        return self._reached.is_set()

    def let_go(self) -> None:
        """The call is made, and returns."""
        self._go.set()

    def _held(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            first, self._is_taken = not self._is_taken, True
        if first:
            self._reached.set()
            self._go.wait(60)
        return self._call(*args, **kwargs)
