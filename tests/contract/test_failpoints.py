"""Failpoints do what the variable says, at the turn it says, and nothing without it."""

import os
import signal
import subprocess
import sys

import pytest

from ingest.contract.failpoints import VARIABLE, Failpoint, parse

_PROGRAM = """
import sys
from ingest.contract.failpoints import Failpoint, reach
for turn in range(3):
    reach(Failpoint.AFTER_PUT)
    print(turn, flush=True)
"""


def _run(armed: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, VARIABLE: armed}
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=False
    )


def test_without_the_variable_nothing_happens() -> None:
    assert _run("").stdout.split() == ["0", "1", "2"]


def test_a_kill_comes_at_its_turn() -> None:
    result = _run("worker.after-put=kill@2")
    assert result.stdout.split() == ["0"]
    assert result.returncode == -signal.SIGKILL


def test_another_point_is_not_touched() -> None:
    assert _run("worker.before-put=kill").returncode == 0


def test_a_sleep_lets_the_process_go_on() -> None:
    assert _run("worker.after-put=sleep:0.01@3").stdout.split() == ["0", "1", "2"]


def test_each_point_can_be_armed() -> None:
    text = ",".join(f"{point}=stop@{turn}" for turn, point in enumerate(Failpoint, 1))
    assert [armed.turn for armed in parse(text).values()] == list(range(1, len(Failpoint) + 1))


@pytest.mark.parametrize(
    "text", ["worker.after-put", "worker.after-put=burn", "nowhere=kill", "=kill", "x=kill@0"]
)
def test_a_wrong_spec_stops_the_start(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)
