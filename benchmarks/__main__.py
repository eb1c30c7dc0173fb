"""`python -m benchmarks`: run the scenarios, print the report, judge the quick form by the baseline."""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import guard, machine, tables
from benchmarks.arms import Comparison
from benchmarks.messages import DEFAULT_PDU_LENGTH
from benchmarks.micro import run as run_micro
from benchmarks.peers import OURS
from benchmarks.scenarios import PROFILE, SCENARIOS, Scale

_FULL = (5.0, 5)  # gigabytes an arm, rounds
_QUICK = (0.5, 3)
_SOAK = 10.0  # minutes of the full form; an hour is asked for by --soak
_QUICK_SOAK = 8 / 60
_NAMES = (*SCENARIOS, "micro")


@click.command()
@click.option(
    "--quick", is_flag=True, help="Some three minutes; its ratios are rough, and judged by baseline.json."
)
@click.option("--profile", is_flag=True, help="Only say where processor time, copies and system calls go.")
@click.option("--only", multiple=True, type=click.Choice(_NAMES), help="Run this scenario; may be repeated.")
@click.option("--gigabytes", type=click.FloatRange(min=0), help="Volume of each arm, over all rounds.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often the arms alternate.")
@click.option("--soak", type=click.FloatRange(min=0), help="Minutes for which memory is watched.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every sample here.")
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), help="Write tables, plots and JSON here."
)
@click.option("--no-guard", is_flag=True, help="Do not fail where a ratio is below the baseline.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write spools and stores; its disk is what is measured. Default: the temporary folder.",
)
def main(
    *,
    quick: bool,
    profile: bool,
    only: tuple[str, ...],
    gigabytes: float | None,
    rounds: int | None,
    soak: float | None,
    json_file: Path | None,
    report: Path | None,
    no_guard: bool,
    folder: Path | None,
) -> None:
    """Measure this pipeline, what one would use instead, and the machine's own limits, side by side."""
    default = _QUICK if quick else _FULL
    volume, times = gigabytes or default[0], rounds or default[1]
    minutes = (_QUICK_SOAK if quick else _SOAK) if soak is None else soak
    names = (PROFILE,) if profile else only or tuple(n for n in _NAMES if not (quick and n == PROFILE))
    scratch = Path(tempfile.mkdtemp(prefix="benchmarks-", dir=folder))
    begun = time.monotonic()
    facts = machine.describe(scratch)
    measured: dict[str, list[Comparison]] = {}
    try:
        large = "multi-frame" if quick else "huge"
        scale = Scale(volume, times, scratch, quick, large, soak=minutes * 60, progress=_progress)
        for name in names:
            measured[name] = run(scale, name)
            # After each, so that an hour's run that ends early leaves what it has measured.
            _write(json_file, report, facts, _settings(volume, times, begun), measured)
        baseline = guard.read_baseline() if quick and not no_guard else {}
        judged = _judge(scale, measured, baseline)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    comparisons = [comparison for found in measured.values() for comparison in found]
    print(tables.markdown(facts, _settings(volume, times, begun), comparisons))
    failures = [str(one) for one in judged if not one.passed]
    if not (only or profile):
        failures += [f"no longer measured: {key}" for key in guard.missing(comparisons, baseline)]
    print("".join(f"- {one}\n" for one in judged))
    if failures:
        print("\n".join(failures), file=sys.stderr)
        sys.exit(1)


def _settings(volume: float, rounds: int, begun: float) -> dict[str, str]:
    """What a reader must know of the run beside the machine."""
    return {
        "volume": f"{volume:g} GB an arm in {rounds} rounds, arms alternating; less where a table says so",
        "PDUs": f"{DEFAULT_PDU_LENGTH} bytes",
        "our settings": f"the defaults, but {OURS.settings.partition(' python')[0]}; others where a table says so",
        "took": f"{time.monotonic() - begun:.0f} s",
    }


def _write(
    json_file: Path | None,
    report: Path | None,
    facts: Mapping[str, str],
    settings: Mapping[str, str],
    measured: Mapping[str, Sequence[Comparison]],
) -> None:
    """Where the figures were asked for, beside standard output."""
    comparisons = [comparison for found in measured.values() for comparison in found]
    # Here and not above, since only they need matplotlib, which takes half a second to load.
    from benchmarks.report_folder import write_report, write_results  # noqa: PLC0415

    if json_file is not None:
        write_results(json_file, facts, settings, comparisons)
    if report is not None:
        write_report(report, facts, settings, comparisons)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _judge(
    scale: Scale, measured: Mapping[str, list[Comparison]], baseline: Mapping[str, guard.Kept]
) -> list[guard.Judged]:
    """What the guard says; a scenario that fails is measured once more, since a regression is there the second time, too."""
    judged: list[guard.Judged] = []
    for name, comparisons in measured.items():
        found = guard.judge(comparisons, baseline)
        if not all(one.passed for one in found):
            scale.progress(f"{name} once more: " + "; ".join(str(one) for one in found if not one.passed))
            found = guard.better(found, guard.judge(run(scale, name), baseline))
        judged += found
    return judged


def run(scale: Scale, name: str) -> list[Comparison]:
    """The comparisons of one scenario."""
    begun = time.monotonic()
    with _own_folder(scale, name) as own:
        comparisons = SCENARIOS[name](own) if name in SCENARIOS else [run_micro(own)]
    scale.progress(f"{name} took {time.monotonic() - begun:.0f} s")
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
    # So that what was started ends, and what was written goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
