"""Time per operation of what every PDU, message and record passes: the pure parts, without socket or disk.

Each operation is timed against a bare copy of the bytes that it handles, the least that anyone pays. `spool`, `telemetry` and
`fairness` are run by hand: the log against its disk, what being seen costs, and what one source's flood costs another.
"""

import time
from collections.abc import Callable
from typing import Final

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.micro import association, dimse, instance, records
from benchmarks.scenarios.scale import Scale

_BUDGET: Final = 0.2  # s a sample
_QUICK_BUDGET: Final = 0.05

Operation = Callable[[int], None]  # does it so many times


def run(scale: Scale) -> Comparison:
    """Microseconds an operation."""
    budget = _QUICK_BUDGET if scale.quick else _BUDGET
    scale.progress("Micro")
    arms = [
        _arm(name, operation, budget)
        for module in (association, dimse, instance, records)
        for name, operation in module.operations().items()
    ]
    return Comparison("Micro", "µs", alternate(arms, scale.rounds))


def _arm(name: str, operation: Operation, budget: float) -> Arm:
    def run() -> Sample:
        count = 1
        while (seconds := _time(operation, count)) < budget / 4:
            count *= 4
        return {RATE: seconds / count * 1e6}

    return Arm(name, run)


def _time(operation: Operation, count: int) -> float:
    begun = time.perf_counter()
    operation(count)
    return time.perf_counter() - begun
