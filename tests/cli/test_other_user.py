"""The service runs as a user of its own, and its administrator is root: what root made, the service could not read."""

import os
from pathlib import Path

import pytest

from ingest.contract.running import make_run_folder
from ingest.contract.settings import Settings
from tests.support.command import run
from workers.storage.stores import open_stores

SERVICE = 65534
IS_ROOT = os.geteuid() == 0
UID = ("1.2.3", "--reason", "a test")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    settings = Settings(data=tmp_path)
    make_run_folder(tmp_path)
    with open_stores(settings.store_locations, settings.store):
        pass
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, SERVICE if IS_ROOT else -1, -1)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [("conflicts", "resolve", *UID, "--prefer", "01234567"), ("quarantine", "discard", *UID), ("quarantine", "replay", "--all"),
     ("verify",), ("shards", "add", "{}/more"), ("shards", "rebalance"), ("ledger", "rebuild"),
     ("commitments", "retry", "0123"), ("commitments", "expire", "0123")],
    ids=" ".join,
)  # fmt: skip
def test_what_would_be_root_s_is_not_made(data: Path, command: tuple[str, ...]) -> None:
    """It is said as whom to run the command; nothing here is another user's than the service's after it."""
    done = run(data, *(word.format(data) for word in command))
    assert ("run this as nobody (sudo -u 'nobody')" in done.err) is IS_ROOT
    assert {path.stat().st_uid for path in data.rglob("*")} == {SERVICE if IS_ROOT else os.geteuid()}


@pytest.mark.parametrize(
    "command",
    [("status",), ("quarantine", "list"), ("conflicts", "show", "1.2.3"), ("verify", "--report-only"), ("shards", "show"),
     ("commitments", "list")],
    ids=" ".join,
)  # fmt: skip
def test_root_may_look(data: Path, command: tuple[str, ...]) -> None:
    """What makes nothing is answered."""
    done = run(data, *command)
    assert "run this as" not in done.err
    assert {path.stat().st_uid for path in data.rglob("*")} == {SERVICE if IS_ROOT else os.geteuid()}
