"""What kafka-python says of itself, as events of ours; to be called before any of its clients is made."""

import logging
import math
import time
from collections import Counter
from typing import Final

import structlog

# Behind a proxy whose broker is away, clients try, fail and say so thousands of times a second.
_EVERY: Final = 1.0  # s

logger = structlog.get_logger(__name__)


class _Events(logging.Handler):
    """Warnings and worse as events, of one kind one a second; `telemetry` cuts the text and keeps it on one line."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], float] = {}  # by place in the client's code
        self._left_out: Counter[tuple[str, int]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        place, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._said.get(place, -math.inf) < _EVERY:
            self._left_out[place] += 1
            return
        self._said[place] = now
        logger.warning(
            "kafka client",
            severity=record.levelname.lower(),
            text=record.getMessage(),
            left_out=self._left_out.pop(place, 0),
        )


def use_our_events() -> None:
    """Let the client's warnings through, and never more: below, it formats whole records, which are patients'."""
    kafka = logging.getLogger("kafka")
    kafka.setLevel(logging.WARNING)
    kafka.propagate = False
    if not any(isinstance(handler, _Events) for handler in kafka.handlers):
        kafka.addHandler(_Events())
