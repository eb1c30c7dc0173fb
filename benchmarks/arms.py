"""Arms that alternate, so that what the machine does meanwhile hits all of them; medians, spread, ratios.

A figure alone says little on a shared machine. So ratios are taken round by round between neighbours in time, and
a ratio's median and range are reported beside those of its parts.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Sample = Mapping[str, float]  # "rate" in bytes/s, or another figure, and what else was seen
RATE: Final = "rate"
COST: Final = "receiver_cpu_per_byte"  # seconds of processor time, of the receiver and what it forked


@dataclass(frozen=True)
class Arm:
    """One side of a comparison; ``run`` measures once and leaves nothing behind that the next arm would pay for."""

    name: str
    run: Callable[[], Sample]


@dataclass(frozen=True)
class Ratio:
    """One arm's figure over another's, round by round; ``aim`` is what is asked of its median."""

    name: str
    values: tuple[float, ...]
    aim: float | None = None
    at_most: bool = False  # less is better, and the aim is an upper bound
    guarded: bool = (
        True  # against regressions; not what compares others, or has too little of a run behind it
    )

    @property
    def median(self) -> float:
        """The figure that is judged."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; ``None`` without one."""
        if self.aim is None:
            return None
        return self.median <= self.aim if self.at_most else self.median >= self.aim


@dataclass
class Comparison:
    """What a scenario found: samples by arm in the order of rounds, and the ratios that matter.

    ``unit`` belongs to the key ``rate`` of every sample: MB/s (10^6 bytes of data sets) or MiB of memory.
    """

    title: str
    unit: str
    samples: dict[str, list[Sample]]
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)  # how each side was started
    family: str = ""  # for plots: comparisons that differ by their senders only
    senders: int = 0
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # for plots: points by arm

    def values(self, arm: str) -> tuple[float, ...]:
        """The figure of ``arm`` in each round."""
        return tuple(sample[RATE] for sample in self.samples[arm])

    def best(self, *arms: str) -> str:
        """Which of ``arms`` has the highest median: a peer is compared at its best."""
        return max(arms, key=lambda arm: statistics.median(self.values(arm)))

    def add_ratio(
        self,
        arm: str,
        over: str,
        aim: float | None = None,
        *,
        at_most: bool = False,
        name: str = "",
        key: str = RATE,
        guarded: bool = True,
    ) -> None:
        """Compare ``arm`` with ``over``, by the figure ``key`` of their samples."""
        pairs = zip(self.samples[arm], self.samples[over], strict=True)
        values = tuple(above[key] / below[key] for above, below in pairs)
        self.ratios.append(Ratio(name or f"{arm} / {over}", values, aim, at_most, guarded))

    def add_cost_ratio(self, arm: str, over: str, name: str = "") -> None:
        """Compare what a byte costs in processor time, which other work on the machine hardly changes."""
        name = f"processor time a byte, {arm} / {name or over}"
        self.add_ratio(arm, over, at_most=True, name=name, key=COST)

    def add_serial_limit(self, name: str, protocol: str, log: str) -> None:
        """The rate of one sender who waits for each answer: protocol and log take turns, 1/(1/p + 1/l)."""
        pairs = zip(self.values(protocol), self.values(log), strict=True)
        self.samples[name] = [{RATE: 1 / (1 / first + 1 / second)} for first, second in pairs]


def alternate(
    arms: Sequence[Arm], rounds: int, progress: Callable[[str], None] = lambda _: None
) -> dict[str, list[Sample]]:
    """Run every arm once a round; each second round backwards, so that none always follows the same one."""
    samples: dict[str, list[Sample]] = {arm.name: [] for arm in arms}
    for number in range(rounds):
        for arm in arms if number % 2 == 0 else reversed(arms):
            sample = arm.run()
            samples[arm.name].append(sample)
            progress(f"round {number + 1}/{rounds}, {arm.name}: {sample[RATE]:.4g}")
    return samples
