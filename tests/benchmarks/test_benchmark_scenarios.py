"""Every scenario runs at a tiny size, so that none can rot unseen. No figure is judged here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks import micro
from benchmarks.arms import Comparison
from benchmarks.peers import OURS, OURS_WITHOUT_LOG, PYNETDICOM, STORESCP
from benchmarks.scenarios import PROFILE, SCENARIOS, Scale, end_to_end
from benchmarks.scenarios.kafka_receive import BARE
from benchmarks.scenarios.kafka_receive import OURS as OURS_INTO_KAFKA
from benchmarks.scenarios.kafka_receive import SERIAL_LIMIT as KAFKA_SERIAL_LIMIT
from benchmarks.scenarios.network import CEILING
from benchmarks.scenarios.receive import DISK, SERIAL_LIMIT

pytestmark = pytest.mark.real
in_bench_too = pytest.mark.slow  # continuous integration runs `make bench` beside `make test`


@pytest.fixture
def tiny(tmp_path: Path) -> Scale:
    return Scale(0.002, 1, tmp_path, quick=True, large="cine", many="mr")


def run(name: str, scale: Scale) -> list[Comparison]:
    comparisons = SCENARIOS[name](scale)
    for comparison in comparisons:
        assert all(value > 0 for arm in comparison.samples for value in comparison.values(arm)), comparison
        assert comparison.ratios or name == PROFILE
    assert not [path for path in scale.scratch.iterdir() if path.is_dir() and path.name != "kafka"]
    return comparisons


@in_bench_too
def test_protocol_runs(tiny: Scale) -> None:
    """Protocol alone: ours and the discarding peer answer all instances."""
    assert len(run("protocol", tiny)) == 2


@in_bench_too
def test_receive_runs(tiny: Scale) -> None:
    """Durable receive: every peer and both limits have their arms; the serial limit is that of one sender."""
    one, many = run("receive", tiny)
    assert {OURS.name, STORESCP.name, PYNETDICOM.name, DISK, SERIAL_LIMIT} <= set(one.samples)
    assert SERIAL_LIMIT not in many.samples


@in_bench_too
@pytest.mark.xdist_group("kafka")
def test_kafka_runs(tiny: Scale) -> None:
    """Into Kafka: the receiver, and the bare client beside it; the serial limit is that of one sender."""
    one, many = run("kafka", tiny)
    assert set(many.samples) == {OURS_INTO_KAFKA, BARE, CEILING}
    assert set(one.samples) == {*many.samples, OURS_WITHOUT_LOG.name, KAFKA_SERIAL_LIMIT}


@in_bench_too
@pytest.mark.xdist_group("kafka")
def test_kafka_consume_runs(tiny: Scale) -> None:
    """Our worker and the bare client read the same records."""
    (comparison,) = run("kafka-consume", tiny)
    assert len(comparison.samples) == 2


@in_bench_too
def test_worker_runs(tiny: Scale) -> None:
    """Spool to store by our worker, and the codec alone."""
    (comparison,) = run("worker", tiny)
    assert len(comparison.samples) == 2


@in_bench_too
@pytest.mark.xdist_group("buckets")
def test_commitment_runs(tiny: Scale) -> None:
    """Our proof and bare reads of the same objects, in a folder and in a bucket; whole requests; receive beside them."""
    assert [len(comparison.samples) for comparison in run("commitment", tiny)] == [2, 2, 2, 2]


@in_bench_too
def test_memory_runs(tiny: Scale) -> None:
    """The receiver is watched while a multi-frame instance passes, and with many senders."""
    (comparison,) = run("memory", tiny)
    assert len(comparison.ratios) == 2


@in_bench_too
@pytest.mark.xdist_group("buckets")
def test_end_to_end_runs(tiny: Scale) -> None:
    """Two workers into a folder, alone and with reception going on."""
    (comparison,) = run("end-to-end", tiny)
    assert {end_to_end.TWO, end_to_end.RECEIVING, end_to_end.BARE} == set(comparison.samples)


@pytest.mark.slow
@pytest.mark.xdist_group("buckets")
def test_end_to_end_runs_in_full(tiny: Scale) -> None:
    """One and two workers, into a folder and into MinIO, too."""
    (comparison,) = run("end-to-end", replace(tiny, quick=False, gigabytes=0.04))
    assert len(comparison.samples) == 6


@in_bench_too
def test_resend_runs(tiny: Scale) -> None:
    """A study is sent twice."""
    (comparison,) = run("resend", tiny)
    assert comparison.ratios[0].median > 1


@in_bench_too
def test_latency_runs(tiny: Scale) -> None:
    """Responses at half load beside peer, disk and sink; and until stored."""
    answers, until_stored = run("latency", tiny)
    assert set(answers.curves) == set(answers.samples)
    assert len(answers.samples) == 4
    assert until_stored.ratios[0].median > 1


@in_bench_too
def test_soak_runs(tiny: Scale) -> None:
    """Memory of receiver, workers and codecs is watched while a day's mix comes."""
    (comparison,) = run("soak", replace(tiny, soak=5))
    assert set(comparison.curves) == {"receiver", "workers", "codec processes"}


@in_bench_too
def test_scaling_runs(tiny: Scale) -> None:
    """Cost by objects in the store, and by associations."""
    by_store, by_associations = run("scaling", tiny)
    assert len(by_store.samples) == len(by_associations.samples) == 2


@pytest.mark.slow
def test_profile_runs(tiny: Scale) -> None:
    """Every hop has its processor time, whichever tracers there are."""
    (comparison,) = run("profile", tiny)
    assert len(comparison.samples) == 5


def test_micro_runs(tiny: Scale) -> None:
    """Each pure part is timed."""
    comparison = micro.run(tiny)
    assert all(value > 0 for arm in comparison.samples for value in comparison.values(arm))


def test_scenarios_have_folders_of_their_own(tiny: Scale, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that write the same name run one after the other, and nothing of them stays."""

    def writes(scale: Scale) -> list[Comparison]:
        (scale.scratch / "kafka").mkdir()
        return [Comparison("", "", {})]

    monkeypatch.setattr(command, "SCENARIOS", {"one": writes, "other": writes})
    assert len(command.run(tiny, "one")) == len(command.run(tiny, "other")) == 1
    assert not list(tiny.scratch.iterdir())


def test_command_prints_and_keeps_the_report(tmp_path: Path) -> None:
    """`python -m benchmarks` prints Markdown, keeps JSON, and leaves no other file."""
    kept = tmp_path / "kept.json"
    arguments = [
        "--quick",
        "--only",
        "micro",
        "--rounds",
        "1",
        "--folder",
        str(tmp_path),
        "--json",
        str(kept),
    ]
    result = CliRunner().invoke(command.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "## Micro" in result.stdout
    assert json.loads(kept.read_text())["comparisons"][0]["title"] == "Micro"
    assert list(tmp_path.iterdir()) == [kept]
