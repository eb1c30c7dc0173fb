"""Live and ready, each with its reasons.

Live: the event loop answers; only a restart helps where it does not. What else is away, a disk, Kafka or a bucket, is no
reason to be restarted. Ready: this process does its work now, and new work may be sent to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.contract.monitoring.heartbeat import Heartbeat


class Verdict(NamedTuple):
    """What a probe is told."""

    well: bool
    reasons: Sequence[str]  # why not
    warnings: Sequence[str] = ()  # what an administrator should know besides


@dataclass
class Health:
    """Of one process."""

    heartbeat: Heartbeat
    liveness_limit: float  # seconds
    reasons: Callable[[], Sequence[str]] | None = None  # against being ready; None: it has yet to start
    warnings: Sequence[str] = field(default_factory=tuple)

    def live(self) -> Verdict:
        """Whether the process can do anything at all."""
        silence = self.heartbeat.silence
        if silence <= self.liveness_limit:
            return Verdict(well=True, reasons=())
        return Verdict(well=False, reasons=[f"the event loop has not answered for {silence:.0f} s"])

    def ready(self) -> Verdict:
        """Whether it takes work."""
        reasons = ["not started yet"] if self.reasons is None else list(self.reasons())
        reasons += self.live().reasons
        return Verdict(not reasons, reasons, self.warnings)
