"""The report's plots, as SVG: throughput by senders, latencies, memory over time, processor time by hop."""

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.arms import Comparison

_SIZE: Final = (8.0, 4.5)  # inches
_MB: Final = 1e6
_LATENCY: Final = "ms"
_MEMORY: Final = "MiB"
_PROCESSOR: Final = "CPU ms/MB"
_TICKS: Final = (0.5, 0.9, 0.99, 0.999)


def write_plots(folder: Path, comparisons: Sequence[Comparison]) -> list[Path]:
    """Write every plot that ``comparisons`` have figures for; equal figures give equal files."""
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9})
    written = []
    for title, figure in _figures(comparisons):
        path = folder / f"{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}.svg"
        figure.savefig(path, metadata={"Date": None})
        written.append(path)
    return written


def _figures(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, Figure]]:
    families: dict[str, list[Comparison]] = {}
    for one in comparisons:
        if one.family:
            families.setdefault(one.family, []).append(one)
        if one.curves and one.unit.startswith(_LATENCY):
            yield one.title, _latency(one)
        if one.curves and one.unit == _MEMORY:
            yield one.title, _memory(one)
        if one.unit == _PROCESSOR:
            yield one.title, _processor(one)
    for family, members in families.items():
        if len(members) > 1:
            yield family, _throughput(family, sorted(members, key=lambda one: one.senders))


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _throughput(family: str, members: Sequence[Comparison]) -> Figure:
    """Medians with their ranges, a line an arm."""
    figure, axes = _axes(family, "senders", "MB/s of data sets, median and range")
    for arm in dict.fromkeys(arm for one in members for arm in one.samples):
        found = [(one.senders, one.values(arm)) for one in members if arm in one.samples]
        middle = [statistics.median(values) / _MB for _, values in found]
        below = [mid - min(values) / _MB for mid, (_, values) in zip(middle, found, strict=True)]
        above = [max(values) / _MB - mid for mid, (_, values) in zip(middle, found, strict=True)]
        wide = 2.5 if arm.startswith("ours") else 1.0
        axes.errorbar(
            [senders for senders, _ in found],
            middle,
            (below, above),
            label=arm,
            marker="o",
            capsize=3,
            linewidth=wide,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([one.senders for one in members], [str(one.senders) for one in members])
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", fontsize=7)
    return figure


def _latency(comparison: Comparison) -> Figure:
    """Quantiles by nines: each step to the right is a tenth of the instances before."""
    figure, axes = _axes(comparison.title, "of instances no slower", "ms, from when each was due")
    for arm, points in comparison.curves.items():
        shown = [(-math.log10(1 - quantile), ms) for quantile, ms in points if quantile < 1]
        axes.plot(*zip(*shown, strict=True), label=arm, linewidth=2.5 if arm.startswith("ours") else 1.0)
    axes.set_xticks([-math.log10(1 - tick) for tick in _TICKS], [f"{tick:.1%}" for tick in _TICKS])
    axes.set_yscale("log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(FuncFormatter(lambda ms, _: f"{ms:g}"))
    axes.legend()
    return figure


def _memory(comparison: Comparison) -> Figure:
    figure, axes = _axes(comparison.title, "minutes", "MiB resident")
    for name, points in comparison.curves.items():
        axes.plot([seconds / 60 for seconds, _ in points], [mib for _, mib in points], label=name)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _processor(comparison: Comparison) -> Figure:
    """A bar a hop."""
    figure, axes = _axes(comparison.title, _PROCESSOR, "")
    names = list(comparison.samples)
    bars = axes.barh(names, [statistics.median(comparison.values(name)) for name in names])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    return figure
