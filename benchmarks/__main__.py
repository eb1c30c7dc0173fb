"""`python -m benchmarks`: run the scenarios, print the report."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import machine, report
from benchmarks.arms import Comparison
from benchmarks.micro import run as run_micro
from benchmarks.scenarios import SCENARIOS, Scale

_FULL = (5.0, 5)  # gigabytes an arm, rounds
_QUICK = (0.6, 3)
_NAMES = (*SCENARIOS, "micro")


@click.command()
@click.option("--quick", is_flag=True, help="Under three minutes; its ratios are rough.")
@click.option("--only", multiple=True, type=click.Choice(_NAMES), help="Run this scenario; may be repeated.")
@click.option("--gigabytes", type=click.FloatRange(min=0), help="Volume of each arm, over all rounds.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often the arms alternate.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every sample here.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write spools and stores; its disk is what is measured. Default: the temporary folder.",
)
def main(
    *,
    quick: bool,
    only: tuple[str, ...],
    gigabytes: float | None,
    rounds: int | None,
    json_file: Path | None,
    folder: Path | None,
) -> None:
    """Measure this pipeline, what one would use instead, and the machine's own limits, side by side."""
    default = _QUICK if quick else _FULL
    volume, times = gigabytes or default[0], rounds or default[1]
    scratch = Path(tempfile.mkdtemp(prefix="benchmarks-", dir=folder))
    begun = time.monotonic()
    facts = machine.describe(scratch)
    try:
        large = "multi-frame" if quick else "huge"
        scale = Scale(
            volume, times, scratch, quick, large, progress=lambda line: print(line, file=sys.stderr)
        )
        comparisons = run(scale, only or _NAMES)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    settings = {
        "volume": f"{volume:g} GB an arm in {times} rounds, arms alternating",
        "took": f"{time.monotonic() - begun:.0f} s",
    }
    print(report.markdown(facts, settings, comparisons))
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(facts, settings, comparisons), indent=1) + "\n")


def run(scale: Scale, names: tuple[str, ...]) -> list[Comparison]:
    """The comparisons of the named scenarios."""
    comparisons: list[Comparison] = []
    for name in names:
        with _own_folder(scale, name) as own:
            comparisons += SCENARIOS[name](own) if name in SCENARIOS else [run_micro(own)]
    return comparisons


@contextmanager
def _own_folder(scale: Scale, name: str) -> Iterator[Scale]:
    """What one scenario leaves behind neither fills the disk for the next nor stands in its way."""
    scratch = scale.scratch / name
    scratch.mkdir()
    try:
        yield replace(scale, scratch=scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
