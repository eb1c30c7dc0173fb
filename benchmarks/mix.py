"""What a load is made of: one kind of image, or a hospital day's mix of them, drawn from a seed."""

import random
from collections.abc import Iterator, Mapping
from typing import Final

from benchmarks.data import KINDS, Kind, template

# Instances of each kind in 10,000. Cross-sectional series make most instances, projection radiography most bytes beside
# them; one in 10,000 is an object of hundreds of megabytes (tomosynthesis, long cine runs). Half a megabyte is the median.
DAY: Final = {"ct": 6000, "mr": 2500, "small": 1197, "dx": 250, "cine": 52, "multi-frame": 1}
# The latter for tests: no large object.
MIXES: Final = {"day": DAY, "day-small": {"ct": 60, "mr": 25, "small": 15}}


def shares(name: str) -> Mapping[Kind, int]:
    """The kinds of a mix with their weights; of a kind's name, itself alone."""
    return {KINDS[kind]: weight for kind, weight in MIXES.get(name, {name: 1}).items()}


def label(name: str) -> str:
    """For reports."""
    return f"mix {name}" if name in MIXES else KINDS[name].label


def mean_size(name: str) -> float:
    """Bytes of Pixel Data of one instance, on average."""
    weights = shares(name)
    return sum(kind.pixel_size * weight for kind, weight in weights.items()) / sum(weights.values())


def draw(name: str, seed: int) -> Iterator[int]:
    """Without end, which of `shares` comes next; equal seeds give equal series."""
    weights = list(shares(name).values())
    if len(weights) == 1:
        while True:
            yield 0
    generator = random.Random(seed)
    while True:
        yield from generator.choices(range(len(weights)), weights, k=1000)


def sizes(name: str) -> tuple[int, ...]:
    """Bytes of a data set of each of `shares`."""
    return tuple(template(kind).size for kind in shares(name))
