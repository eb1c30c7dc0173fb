"""`dicom-ingest plan`: figures that can be worked out by hand, and no plan from numbers that make none."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest.cli.capacity import Assumptions, CannotPlan, Modality
from ingest.cli.capacity import plan as planned
from ingest.cli.plan import plan

CT = Modality("CT", machines=10, studies=36, instances=2000, megabytes=0.5)  # 720,000 and 360 GB a day


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plan, arguments)


def figures(*modalities: Modality, **assumptions: float) -> dict[str, float]:
    return {line.name: line.value for line in planned(modalities, Assumptions(**assumptions))}  # type: ignore[arg-type]


def test_figures_follow_from_the_formulae() -> None:
    """360 GB a day, a tenth of it in the busiest hour: 10 MB/s, 20 instances a second."""
    found = figures(CT, busiest_hour=0.1, use=0.5, retention=2, slack=0.5)
    assert found["volume"] == pytest.approx(360)
    assert found["instances"] == 720_000
    assert found["peak"] == pytest.approx(10)
    assert found["peak instances"] == pytest.approx(20)
    assert found["receivers"] == 2  # 10 x 1.5 ms: a fiftieth of a core, and one that may be lost
    assert found["workers"] == 3  # (10 x 99.2 + 20 x 5) ms = 1.09 cores, half used
    assert found["workers by morning"] == 1  # 0.455 cores: 0.91
    assert found["partitions"] == 12
    assert found["brokers"] == 3
    assert found["disk of a broker"] == pytest.approx((360 * 2 * 3 * 1.5 + 12 * 3) / 3)
    assert found["network of a broker"] == pytest.approx(10 * 6 / 3)
    assert found["longest outage of all workers"] == pytest.approx(1.5)
    assert found["stored"] == pytest.approx(360 * 0.32)
    assert found["store"] == pytest.approx(360 * 0.32 * 365 / 1000)
    assert found["buckets"] == 1


def test_everything_grows_with_what_is_sent() -> None:
    """A region of a hundred times as much needs more of each."""
    small, large = figures(CT), figures(Modality("CT", 500, 36, 2000, 0.5))
    for name in ("receivers", "workers", "partitions", "brokers", "disk of a broker", "store", "buckets"):
        assert large[name] > small[name], name
    assert large["partitions"] >= large["workers"]


def test_more_than_a_log_can_share_is_no_plan() -> None:
    """Workers beyond 1024 partitions would be idle."""
    with pytest.raises(CannotPlan, match="1024"):
        figures(Modality("CT", 50_000, 36, 2000, 0.5))


def test_file_and_options_add_up(tmp_path: Path) -> None:
    """Modalities of both, with the file's assumptions; for scripts as JSON."""
    file = tmp_path / "site.toml"
    file.write_text(
        '[[modality]]\nname = "CT"\nmachines = 10\nstudies = 36\ninstances = 2000\nmegabytes = 0.5\n'
        "[assumptions]\nbusiest_hour = 0.2\nbrokers = 5\n"
    )
    done = run(str(file), "--modality", "DX,2,50,2,20", "--json")
    assert done.exit_code == 0
    found = {line["name"]: line["value"] for line in json.loads(done.output)}
    assert found["volume"] == pytest.approx(360 + 4)
    assert found["peak"] == pytest.approx(364_000 * 0.2 / 3600)
    assert found["brokers"] == 5


def test_each_figure_is_printed_with_its_formula() -> None:
    """So that a reader can put in what was measured elsewhere."""
    lines = run("--modality", "CT,10,36,2000,0.5").output.splitlines()
    workers = next(line for line in lines if line.startswith("workers "))
    assert "peak x (95 + 4.2) ms" in workers
    assert all(len(line.split("  ")) >= 3 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing is sent"),
        (("--modality", "CT,1,2"), "name,machines"),
        (("--modality", "CT,1,2,3,much"), "'much' is no number"),
        (("--modality", "CT,1.5,2,3,4"), "whole number"),
        (("--modality", "CT,1,nan,3,4"), "studies is nan"),
        (("--modality", "CT,1,inf,3,4"), "studies is inf"),
        (("--modality", "CT,1,2,-3,4"), "instances is -3"),
        (("--modality", "CT,0,2,3,4"), "machines is 0"),
    ],
)
def test_wrong_numbers_are_named(arguments: tuple[str, ...], said: str) -> None:
    """With what is allowed, as wrong usage."""
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modality = 3", "[[modality]]"),
        ("modalities = []", "modalities is unknown"),
        ('[[modality]]\nname = "CT"', "instances is missing"),
        ("[[modality]]\nname = 3", "allowed: text"),
        ("[assumptions]\nuse = 1.5", "use is 1.5"),
        ("[assumptions]\nuse = 0", "use is 0"),
        ("[assumptions]\nreplicas = true", "replicas is True"),
        ("assumptions = 1", "[assumptions]"),
        ("[[", "allowed: TOML"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, said: str) -> None:
    """What is wrong in them, as wrong usage."""
    file = tmp_path / "site.toml"
    file.write_text(text)
    done = run(str(file), "--modality", "CT,1,1,1,1")
    assert done.exit_code == 2
    assert said in done.output
