"""The report as a folder: README.md with tables and plots, the SVG files, and results.json with every sample."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import tables
from benchmarks.arms import Comparison
from benchmarks.plots import write_plots

RESULTS: Final = "results.json"


def write_report(
    folder: Path, machine: Mapping[str, str], settings: Mapping[str, str], comparisons: Sequence[Comparison]
) -> None:
    """Write it anew; plots of an earlier run go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    plots = write_plots(folder, comparisons)
    shown = "".join(f"\n![{path.stem.replace('-', ' ')}]({path.name})\n" for path in plots)
    text = tables.markdown(machine, settings, comparisons)
    (folder / "README.md").write_text(text + ("\n## Plots\n" + shown if plots else ""))
    write_results(folder / RESULTS, machine, settings, comparisons)


def write_results(
    path: Path, machine: Mapping[str, str], settings: Mapping[str, str], comparisons: Sequence[Comparison]
) -> None:
    """Every sample of every round, as JSON."""
    path.write_text(
        json.dumps(tables.as_json(machine, settings, comparisons), indent=1, ensure_ascii=False) + "\n"
    )
