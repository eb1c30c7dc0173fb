"""How much is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.arms import Comparison
from benchmarks.mix import mean_size

_GB: Final = 1e9


@dataclass(frozen=True)
class Scale:
    """Volume, rounds, and where to write; ``quick`` leaves cases out.

    ``large`` and ``many`` name the kinds of the memory scenario: of its one instance, and of what many send.
    ``soak`` is how long memory is watched under mixed load, in seconds.
    ``gigabytes`` is what each arm of each comparison handles over all rounds (10^9 bytes of data sets).
    """

    gigabytes: float
    rounds: int
    scratch: Path
    quick: bool
    large: str = "huge"
    many: str = "dx"
    soak: float = 10.0
    progress: Callable[[str], None] = lambda _: None

    def instances(self, kind: str, associations: int, share: float = 1.0) -> int:
        """Instances of one round, at least one an association."""
        volume = self.gigabytes * share / self.rounds * _GB
        return max(associations, round(volume / mean_size(kind)))


Scenario = Callable[[Scale], list[Comparison]]
