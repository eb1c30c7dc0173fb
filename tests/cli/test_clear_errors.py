"""What was asked wrongly is answered with what, where and what to do."""

from pathlib import Path

import pytest

from ingest.contract.settings import Settings
from tests.support.command import run
from workers.storage.stores import open_stores

STUDY = ("--study", "1.2.3")


@pytest.mark.parametrize(
    "command",
    [("status",), ("status", "--rejected"), ("quarantine", "list"), ("conflicts", "list"), ("commitments", "list"),
     ("find", *STUDY), ("report",), ("get", *STUDY, "study")],
    ids=" ".join,
)  # fmt: skip
def test_where_nothing_ever_was(tmp_path: Path, command: tuple[str, ...]) -> None:
    """In another directory than `serve` runs in zeros are no answer; and no folder is made for a question."""
    data = tmp_path / "data"
    done = run(data, *command)
    assert f"there is no data folder at {data}; name that of `serve` by --data" in done.err
    assert not data.exists()
    assert done.code == (command[0] in ("find", "report", "get"))
    data.mkdir()
    assert "data folder" not in run(data, *command).err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("find",), "give one of --sop, --study, --accession and --patient"),
        (
            ("quarantine", "show", "1.2.3"),
            "no entry of quarantine is named '1.2.3': `dicom-ingest quarantine list`",
        ),
        (("conflicts", "show", "1.2.3"), "nothing is stored under 1.2.3, and nothing is in conflict with it"),
    ],
    ids=["find", "quarantine show", "conflicts show"],
)
def test_what_is_not_there(tmp_path: Path, command: tuple[str, ...], said: str) -> None:
    """It is named, with where to look."""
    settings = Settings(data=tmp_path)
    with open_stores(settings.store_locations, settings.store):
        pass
    done = run(tmp_path, *command)
    assert done.code != 0
    assert said in done.err
