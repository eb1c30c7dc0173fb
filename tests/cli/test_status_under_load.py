"""The account stays exact while instances stream in, workers settle them, and processes are killed."""

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from ingest.contract.running import running_processes
from ingest.contract.settings import Settings
from tests.support.pipeline import CORPUS, Pipeline, assert_adds_up
from workers.cli.status_report import Report, read_report

pytestmark = pytest.mark.real

ROUNDS = 3  # each worker is killed


def look(settings: Settings, before: Report) -> Report:
    """Status at any moment: the sum holds, and no instance is forgotten, nor taken back from its place."""
    report = read_report(settings, quick=True)
    assert_adds_up(msgspec.to_builtins(report))
    assert report.received >= before.received
    for place in ("stored", "duplicates", "conflicts", "quarantined", "discarded"):
        assert getattr(report, place) >= getattr(before, place)
    assert report.spool.instances == report.backlog
    return report


def test_account_is_exact_at_every_moment(tmp_path: Path) -> None:
    """Readings while the corpus is sent again and again and a worker is killed each time."""
    settings = Settings(data=tmp_path / "data")
    sent = 0
    # Small segments, so that many are recycled under the readings.
    environment = {"DICOM_INGEST_LOG__SEGMENT_SIZE": str(2 * 1024 * 1024)}
    with Pipeline(settings.data, workers=2, environment=environment) as pipeline:
        report = read_report(settings, quick=True)
        command = pipeline.command("send", str(CORPUS), "--to", f"127.0.0.1:{pipeline.port}", "--json")
        for number in range(ROUNDS):
            with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
                while sender.poll() is None:
                    report = look(settings, report)
                assert sender.stdout is not None
                sent += msgspec.json.decode(sender.stdout.read())["sent"]
            report = look(settings, report)
            assert report.received == sent
            workers = [
                found for found in running_processes(settings.data) if found.name == f"worker-{number % 2}"
            ]
            for found in workers:
                os.kill(found.pid, signal.SIGKILL)
            for _ in range(20):
                report = look(settings, report)
        pipeline.kill()
        assert look(settings, report).received == sent
        pipeline.start()
        pipeline.settle()
        assert look(settings, report).received == sent
    report = look(settings, report)
    assert report.received == sent
    assert report.backlog == 0
    assert report.stored == len(pipeline.objects())
    assert report.listening is None
