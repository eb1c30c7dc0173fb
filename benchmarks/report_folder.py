"""The report as a folder: README.md with tables and plots, the SVG files, and results.json with every sample.

``python -m benchmarks.report_folder FOLDER RUN.json...`` makes it of runs that were made one after the other with ``--json``,
a scenario each, where nobody has a quiet machine for so long as all of them take.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import tables
from benchmarks.arms import Comparison, Ratio
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


def read_results(document: Mapping[str, Any]) -> list[Comparison]:
    """The comparisons of what `write_results` wrote."""
    found = []
    for kept in document["comparisons"]:
        ratios = [
            Ratio(one["name"], tuple(one["values"]), one["aim"], one["at_most"], one["guarded"])
            for one in kept["ratios"]
        ]
        curves = {arm: [(x, y) for x, y in points] for arm, points in kept["curves"].items()}
        found.append(Comparison(**{**kept, "ratios": ratios, "curves": curves}))
    return found


def main(folder: Path, paths: Sequence[Path]) -> None:
    """One report of several runs; each says its volume and its load."""
    documents = [json.loads(path.read_text()) for path in paths]
    machine = {name: value for name, value in documents[0]["machine"].items() if name != "load before"}
    settings = {}
    for document in documents:
        titles = [one["title"] for one in document["comparisons"]]
        said = {**document["settings"], "load before": document["machine"]["load before"]}
        settings[f"from {titles[0]!r} on"] = "; ".join(f"{name}: {value}" for name, value in said.items())
    write_report(folder, machine, settings, [one for document in documents for one in read_results(document)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
