"""The guard fails a run whose ratio is below what is kept, passes one within the band, and keeps what runs allow."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks import guard
from benchmarks.arms import RATE, Comparison, Ratio
from benchmarks.guard import Kept, keep
from benchmarks.scenarios import Scale
from benchmarks.tables import as_json

TITLE = "Receive"


def comparison(rate: float, cost: float) -> Comparison:
    return Comparison(
        TITLE,
        "MB/s",
        {"ours": [{RATE: 1e6}]},
        [
            Ratio("ours / theirs", (rate,)),
            Ratio("cost", (cost,), at_most=True),
            Ratio("slope", (9.0,), guarded=False),
        ],
    )


def run_of(rate: float, cost: float) -> dict[str, object]:
    read: dict[str, object] = json.loads(
        json.dumps(as_json({"CPU": "x", "cores": "2"}, {}, [comparison(rate, cost)]))
    )
    return read


BASELINE = keep([run_of(rate, 1.0) for rate in (1.9, 2.0, 2.0, 2.1, 2.0)])


def test_the_band_follows_from_the_spread() -> None:
    """Twice what the worst run lay off, half of it at least; what lies wider apart, or is not to be guarded, is not kept."""
    key = f"{TITLE}: ours / theirs"
    assert {key: Kept(2.0, 0.5, at_most=False), f"{TITLE}: cost": Kept(1.0, 0.5, at_most=True)} == BASELINE
    assert keep([run_of(rate, 1.0) for rate in (1.4, 2.0, 2.0)])[key] == Kept(2.0, 0.6, at_most=False)
    assert key not in keep([run_of(rate, 1.0) for rate in (1.0, 2.0, 2.0)])


@pytest.mark.parametrize(
    ("rate", "cost", "passed"),
    [(2.0, 1.0, True), (1.01, 1.99, True), (9.0, 0.1, True), (0.99, 1.0, False), (2.0, 2.01, False)],
)
def test_a_bad_figure_fails_and_a_good_one_passes(rate: float, cost: float, passed: bool) -> None:
    """Worse than the band allows is a regression, in either direction; better never is."""
    assert all(one.passed for one in guard.judge([comparison(rate, cost)], BASELINE)) is passed


@pytest.mark.parametrize(
    ("rates", "code"), [((2.0,), 0), ((0.9, 0.8), 1), ((0.9, 2.0), 0)], ids=["good", "bad twice", "bad once"]
)
def test_the_command_fails_with_the_guard(
    rates: tuple[float, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make bench` ends with exit code 1 after a regression that was measured twice, and says which; else with 0."""
    left = list(rates)

    def measured(_scale: Scale) -> list[Comparison]:
        return [comparison(left.pop(0), 1.0)]

    monkeypatch.setattr(command, "SCENARIOS", {"micro": measured})
    monkeypatch.setattr(guard, "read_baseline", lambda: BASELINE)
    result = CliRunner().invoke(command.main, ["--quick", "--only", "micro", "--folder", str(tmp_path)])
    assert result.exit_code == code
    assert not left
    assert ("\nREGRESSION: Receive: ours / theirs: 0.90" in result.stderr) is bool(code)
    assert "Receive: cost: 1.00" in result.stdout


def test_a_guarded_ratio_cannot_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run that no longer has a ratio of the baseline fails: a new name is no way round."""
    monkeypatch.setattr(command, "_NAMES", ("micro",))
    monkeypatch.setattr(command, "SCENARIOS", {"micro": lambda _scale: []})
    monkeypatch.setattr(guard, "read_baseline", lambda: BASELINE)
    result = CliRunner().invoke(command.main, ["--quick", "--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert "no longer measured: Receive: ours / theirs" in result.stderr


def test_the_kept_baseline_can_be_read() -> None:
    """The file in the repository guards the critical path: protocol, durable receive, Kafka both ways, the codec."""
    kept = guard.read_baseline()
    for start in (
        "Protocol alone",
        "Durable receive",
        "Receive into Kafka",
        "Worker without codec",
        "Transcode and proof",
    ):
        assert [key for key in kept if key.startswith(start)], start
    assert all(0 < one.band <= 0.6 for one in kept.values())
