"""kill -9 at every numbered step of storage commitment: one outcome for each request, and no success without proof."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from ingest.cli.commitment_view import SpoolRecords
from ingest.contract.failpoints import VARIABLE
from ingest.contract.settings import Settings
from ingest.contract.settings_sources import load_settings
from tests.support.commitment_trial import CONSOLE, STEPS, Step, Trial
from tests.support.console import Console
from tests.support.distributed import Host
from workers.cli.status_report import Report, read_report

pytestmark = pytest.mark.real

# `make crash` runs this many seeds of each step, CI one. A failure names its seed: CRASH_FIRST_SEED=… SEEDS=1 repeats it.
SEEDS = int(os.environ.get("SEEDS", "7"))
FIRST_SEED = int(os.environ.get("CRASH_FIRST_SEED", "1"))

_SETTINGS = """
[log]
partitions = 4
maximum_size = 268435456
[transcode]
enabled = false
[worker]
checkpoint_interval = 0.1
[commitment]
enabled = true
absent_grace = 1
retry_first = 0.2
[sources.console]
ae_titles = ["{title}", "TESTER"]
host = "127.0.0.1"
port = {port}
same_association = {same}
"""


class OneMachine:
    """A receiver and a worker over one data folder."""

    def __init__(self, folder: Path, port: int, *, same_association: bool) -> None:
        self._folder = folder
        self._config = folder / "settings.toml"
        self._config.write_text(
            _SETTINGS.format(title=CONSOLE, port=port, same=str(same_association).lower())
        )
        self._data = folder / "data"
        self._data.mkdir()
        self._port = free_port()
        self._number = 0

    def start_receiver(self, failpoints: str = "") -> Host:
        host = self._started("receiver", failpoints, "--listen", f"127.0.0.1:{self._port}")
        host.port = self._port
        host.wait_said('"listening"')
        return host

    def start_worker(self, failpoints: str = "") -> Host:
        return self._started("worker", failpoints)

    def commitment_log(self) -> SpoolRecords:
        return SpoolRecords(Settings(data=self._data))

    def objects(self) -> dict[str, Path]:
        return {path.stem: path for path in (self._data / "store").glob("[0-9a-f][0-9a-f][0-9a-f]/*.dcm")}

    def report(self) -> Report:
        return read_report(load_settings(self._config, {"data": self._data}).settings, quick=True)

    def _started(self, kind: str, failpoints: str, *arguments: str) -> Host:
        self._number += 1
        command = [sys.executable, "-m", "ingest", kind, "--config", str(self._config)]
        command += ["--data", str(self._data), *arguments]
        environment = {**os.environ, VARIABLE: failpoints}
        return Host(f"{kind}-{self._number}", command, self._folder, environment)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=[pytest.mark.long] if seed > FIRST_SEED else [])
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS)
    ],
)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name.replace(",", "").replace(" ", "-"))
def test_a_death_at_any_step_leads_to_one_outcome(tmp_path: Path, step: Step, seed: int) -> None:
    """Every second seed the source wants its reports on the association of the request."""
    console = Console(CONSOLE)
    machine = OneMachine(tmp_path, console.port, same_association=seed % 2 == 0)
    with console.listening():
        Trial(machine, console, step, seed).run()
    shutil.rmtree(tmp_path / "data")  # 40 MiB, a hundred times
