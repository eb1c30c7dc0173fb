"""The report's tables: Markdown for people, JSON for whoever compares runs."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from benchmarks.arms import RATE, Comparison, Ratio

# What a sample may hold beside its figure: column, factor, format.
_COLUMNS: Final = {
    "instances_per_second": ("instances/s", 1.0, ".0f"),
    "p50": ("p50 ms", 1e3, ".2f"),
    "p99": ("p99 ms", 1e3, ".2f"),
    "p99.9": ("p99.9 ms", 1e3, ".2f"),
    "late_p99": ("sender late, p99 ms", 1e3, ".2f"),
    "resident": ("resident MiB", 1.0, ".0f"),
    "cpu_ms_per_instance": ("CPU ms/instance", 1.0, ".3f"),
    "copying": ("of it copying, %", 100.0, ".0f"),
    "syscalls": ("system calls/instance", 1.0, ".1f"),
    "kernel_bytes": ("bytes through system calls/byte", 1.0, ".2f"),
    "switches": ("waits of threads/instance", 1.0, ".2f"),
    "receiver_cpu_per_byte": ("receiver CPU ms/MB", 1e9, ".3f"),
    "cpu_per_byte": ("CPU ms/MB", 1e9, ".3f"),
    "sender_cpu_per_byte": ("sender CPU ms/MB", 1e9, ".3f"),
}
_MB: Final = 1e6


def markdown(
    machine: Mapping[str, str], settings: Mapping[str, str], comparisons: Sequence[Comparison]
) -> str:
    """The whole report."""
    lines = ["# Benchmarks", ""]
    lines += [f"- {name}: {value}" for name, value in {**machine, **settings}.items()]
    for comparison in comparisons:
        lines += ["", *_section(comparison)]
    return "\n".join(lines) + "\n"


def as_json(
    machine: Mapping[str, str], settings: Mapping[str, str], comparisons: Sequence[Comparison]
) -> dict[str, object]:
    """The same as plain data: every sample of every round."""
    return {
        "machine": dict(machine),
        "settings": dict(settings),
        "comparisons": [
            {
                **asdict(comparison),
                "ratios": [
                    {**asdict(ratio), "median": ratio.median, "reached": ratio.reached}
                    for ratio in comparison.ratios
                ],
            }
            for comparison in comparisons
        ],
    }


def _section(comparison: Comparison) -> Iterator[str]:
    factor = _MB if comparison.unit == "MB/s" else 1.0
    used = [
        key
        for key in _COLUMNS
        if any(key in sample for samples in comparison.samples.values() for sample in samples)
    ]
    yield f"## {comparison.title}"
    yield ""
    yield (
        "| " + " | ".join(["arm", comparison.unit, "range", "GB", *(_COLUMNS[key][0] for key in used)]) + " |"
    )
    yield "|" + "---|" * (4 + len(used))
    for arm, samples in comparison.samples.items():
        values = [sample[RATE] / factor for sample in samples]
        volume = sum(sample.get("volume", 0) for sample in samples) / 1e9
        cells = [arm, _number(statistics.median(values)), f"{_number(min(values))} to {_number(max(values))}"]
        cells.append(f"{volume:.2f}" if volume else "")
        for key in used:
            _, scale, form = _COLUMNS[key]
            found = [sample[key] * scale for sample in samples if key in sample]
            cells.append(format(statistics.median(found), form) if found else "")
        yield "| " + " | ".join(cells) + " |"
    if comparison.ratios:
        yield ""
        yield "| ratio | median | range | aim | |"
        yield "|---|---|---|---|---|"
        yield from map(_ratio_row, comparison.ratios)
    for note in comparison.notes:
        yield ""
        yield note
    if comparison.settings:
        yield ""
        yield from (f"- {name}: `{settings}`" for name, settings in comparison.settings.items())


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio_row(ratio: Ratio) -> str:
    sign = "≤" if ratio.at_most else "≥"
    aim = "" if ratio.aim is None else f"{sign} {ratio.aim:g}"
    verdict = {True: "reached", False: "missed", None: ""}[ratio.reached]
    spread = f"{min(ratio.values):.2f} to {max(ratio.values):.2f}"
    return f"| {ratio.name} | **{ratio.median:.2f}** | {spread} | {aim} | {verdict} |"
