"""Comparisons compute what they say, and the report shows every figure beside its ratio and spread."""

import json
from pathlib import Path

import pytest

from benchmarks import machine, tables
from benchmarks.arms import COST, RATE, Arm, Comparison, Ratio, alternate
from benchmarks.disk import SEGMENT_SIZE, Disk


def test_arms_alternate_there_and_back() -> None:
    """Every arm runs once a round, and no arm always follows the same other one."""
    order: list[str] = []

    def arm(name: str) -> Arm:
        def run() -> dict[str, float]:
            order.append(name)
            return {RATE: len(order)}

        return Arm(name, run)

    samples = alternate([arm("a"), arm("b"), arm("c")], 3)
    assert "".join(order) == "abccbaabc"
    assert [sample[RATE] for sample in samples["b"]] == [2, 5, 8]


def test_ratios_are_taken_round_by_round() -> None:
    """The ratio of medians would be 2; the median of ratios, taken between neighbours in time, is 1."""
    comparison = Comparison(
        "t", "MB/s", {"a": [{RATE: 1}, {RATE: 20}, {RATE: 30}], "b": [{RATE: 1}, {RATE: 10}, {RATE: 60}]}
    )
    comparison.add_ratio("a", "b", 1.1)
    comparison.add_ratio("a", "b", 1.1, at_most=True)
    assert comparison.ratios[0].values == (1, 2, 0.5)
    assert comparison.ratios[0].median == 1
    assert [ratio.reached for ratio in comparison.ratios] == [False, True]
    assert comparison.best("a", "b") == "a"


def test_cost_is_compared_where_less_is_better() -> None:
    """What a byte costs in processor time is a ratio of its own, of the same rounds, and has no aim."""
    comparison = Comparison("t", "MB/s", {"a": [{RATE: 1, COST: 3.0}], "b": [{RATE: 9, COST: 2.0}]})
    comparison.add_cost_ratio("a", "b", name="the best")
    assert comparison.ratios == [Ratio("processor time a byte, a / the best", (1.5,), at_most=True)]
    assert comparison.ratios[0].reached is None


def test_serial_limit_is_that_of_turns() -> None:
    """Protocol at 3 and disk at 6 units a second take 1/3 + 1/6 = 1/2 s a unit."""
    comparison = Comparison("t", "MB/s", {"p": [{RATE: 3}], "d": [{RATE: 6}]})
    comparison.add_serial_limit("limit", "p", "d")
    assert comparison.values("limit") == pytest.approx((2,))


def test_report_judges_by_aims(tmp_path: Path) -> None:
    """Markdown names the machine, every arm with its range, every ratio with its verdict; JSON holds all samples."""
    comparison = Comparison(
        "Receive",
        "MB/s",
        {
            "ours": [{RATE: 2e8, "p50": 0.001, "volume": 1e9}, {RATE: 4e8, "p50": 0.003, "volume": 5e8}],
            "disk": [{RATE: 4e8}],
        },
    )
    comparison.ratios = [Ratio("ours / disk", (0.5, 1.0), 0.9), Ratio("RSS / limit", (0.5,), 1, at_most=True)]
    facts = machine.describe(tmp_path)
    text = tables.markdown(facts, {"volume": "1 GB"}, [comparison])
    assert facts["CPU"] in text
    assert "| ours | 300.0 | 200.0 to 400.0 | 1.50 | 2.00 |" in text
    assert "| ours / disk | **0.75** | 0.50 to 1.00 | ≥ 0.9 | missed |" in text
    assert "| RSS / limit | **0.50** | 0.50 to 0.50 | ≤ 1 | reached |" in text
    kept = json.loads(json.dumps(tables.as_json(facts, {}, [comparison])))
    assert kept["comparisons"][0]["samples"]["ours"][1][RATE] == 4e8
    assert kept["comparisons"][0]["ratios"][0]["reached"] is False


def test_disk_writes_the_same_bytes(tmp_path: Path) -> None:
    """Every commit lands whole in a segment that was there before, across the end of one as well."""
    disk = Disk(tmp_path, segments=2)
    instance = bytes(range(256)) * 1024
    try:
        assert disk.overwrite(instance, 2 * SEGMENT_SIZE // len(instance) + 3, 5) > 0
        assert disk.overwrite(instance * 80, 2, 1) > 0
    finally:
        disk.close()
    files = sorted(tmp_path.iterdir())
    assert [path.stat().st_size for path in files] == [SEGMENT_SIZE, SEGMENT_SIZE]
    assert files[0].read_bytes()[: len(instance)] == instance
