"""The regression guard: ratios of a quick run against those that are kept in the repository, never absolute times.

``baseline.json`` keeps for each guarded ratio the median of several quick runs and a band: the part of it by which a run
may be worse. The band is twice what the worst of those runs lay off the median, and half of it at least, that is twice
the cost or half the rate: one that fails without a fault is soon ignored, and quick runs beside other work lie that far apart.
A scenario with a ratio beyond its band is measured once more, and fails if it is beyond it again. So what is guarded against
is a large loss, such as a sync or a copy more for each PDU; small ones are found by the full form, on a quiet machine.
What a byte costs beside ``storescp`` depends on the processor (0.32 of it on AMD EPYC, 0.79 on Intel Xeon, by the same code):
the dearer one is kept.

    python -m benchmarks.guard keep RUN.json...      # anew, from the JSON of at least three quick runs
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.arms import Comparison, Ratio

BASELINE: Final = Path(__file__).with_name("baseline.json")
_LEAST_BAND: Final = 0.5  # of the median
_MOST_BAND: Final = 0.75  # what needs more says nothing, and is not guarded
_BAND_OVER_SPREAD: Final = 2.0
_LEAST_RUNS: Final = 3


@dataclass(frozen=True)
class Kept:
    """A ratio as it is kept."""

    median: float
    band: float  # part of the median
    at_most: bool  # less is better

    @property
    def limit(self) -> float:
        """The worst that passes."""
        return self.median / (1 - self.band) if self.at_most else self.median * (1 - self.band)

    def allows(self, value: float) -> bool:
        """Whether ``value`` is within the band, or better."""
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Judged:
    """A ratio of this run beside the kept one."""

    key: str
    value: float
    kept: Kept

    @property
    def passed(self) -> bool:
        """Whether it is no regression."""
        return self.kept.allows(self.value)

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "REGRESSION"
        sign = "≤" if self.kept.at_most else "≥"
        return f"{verdict}: {self.key}: {self.value:.2f} (kept {self.kept.median:.2f}, must be {sign} {self.kept.limit:.2f})"


def key_of(title: str, ratio: str) -> str:
    """The name of a ratio in the baseline."""
    return f"{title}: {ratio}"


def read_baseline() -> dict[str, Kept]:
    """What is kept; nothing where there is no file."""
    if not BASELINE.exists():
        return {}
    return {key: Kept(**kept) for key, kept in json.loads(BASELINE.read_text())["ratios"].items()}


def judge(comparisons: Iterable[Comparison], baseline: Mapping[str, Kept]) -> list[Judged]:
    """Every ratio that the baseline has."""
    return [
        Judged(key, ratio.median, baseline[key])
        for comparison in comparisons
        for ratio in comparison.ratios
        if (key := key_of(comparison.title, ratio.name)) in baseline
    ]


def better(first: Iterable[Judged], second: Iterable[Judged]) -> list[Judged]:
    """Of two measurements of the same ratios, for each the one that passed, else the first."""
    again = {one.key: one for one in second}
    return [again[one.key] if not one.passed and again[one.key].passed else one for one in first]


def missing(comparisons: Iterable[Comparison], baseline: Mapping[str, Kept]) -> list[str]:
    """What the baseline has and a whole run has not: a guarded ratio must not vanish by a change of its name."""
    found = {
        key_of(comparison.title, ratio.name) for comparison in comparisons for ratio in comparison.ratios
    }
    return sorted(baseline.keys() - found)


def keep(runs: Sequence[Mapping[str, Any]]) -> dict[str, Kept]:
    """The baseline of these runs: median of their medians, and the band that their spread asks for."""
    kept = {}
    for key, ratios in _by_key(runs):
        medians = [ratio.median for ratio in ratios]
        middle, at_most = statistics.median(medians), ratios[0].at_most
        worst = max(medians) - middle if at_most else middle - min(medians)
        band = max(_LEAST_BAND, _BAND_OVER_SPREAD * worst / middle)
        if len(medians) == len(runs) and band <= _MOST_BAND:
            kept[key] = Kept(round(middle, 3), round(band, 2), at_most)
    return kept


def _by_key(runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Ratio]]]:
    found: dict[str, list[Ratio]] = {}
    for run in runs:
        for comparison in run["comparisons"]:
            for ratio in comparison["ratios"]:
                if not ratio["guarded"]:
                    continue
                values = Ratio(ratio["name"], tuple(ratio["values"]), at_most=ratio["at_most"])
                found.setdefault(key_of(comparison["title"], ratio["name"]), []).append(values)
    yield from found.items()


def main(arguments: Sequence[str]) -> None:
    """Write the baseline anew."""
    verb, *paths = arguments
    if verb != "keep" or len(paths) < _LEAST_RUNS:
        raise SystemExit(
            f"usage: python -m benchmarks.guard keep RUN.json... (at least {_LEAST_RUNS} quick runs)"
        )
    runs = [json.loads(Path(path).read_text()) for path in paths]
    kept = keep(runs)
    machine = runs[0]["machine"]
    loads = ", ".join(run["machine"]["load before"] for run in runs)
    document = {
        "about": f"From {len(runs)} quick runs, see guard.py; {machine['cores']} cores of {machine['CPU']}, load before them: {loads}.",
        "ratios": {key: vars(one) for key, one in sorted(kept.items())},
    }
    BASELINE.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    for key, one in sorted(kept.items()):
        print(f"{key}: {one.median:.2f}, band {one.band:.0%}")


if __name__ == "__main__":
    main(sys.argv[1:])
