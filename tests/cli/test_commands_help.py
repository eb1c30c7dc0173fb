"""Every command explains itself, and the list of them is quick and complete."""

import importlib.metadata
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from ingest.cli.group import ENTRY_POINTS, main, summary_of

COMMANDS = sorted(importlib.metadata.entry_points(group=ENTRY_POINTS).names)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments], check=False, capture_output=True, text=True, timeout=60
    )


def paths_of(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    below = command.commands if isinstance(command, click.Group) else {}
    return [path, *(found for name, sub in below.items() for found in paths_of(sub, (*path, name)))]


def all_paths() -> list[tuple[str, ...]]:
    context = click.Context(main)
    commands = {name: main.get_command(context, name) for name in COMMANDS}
    return [path for name, command in commands.items() if command for path in paths_of(command, (name,))]


def test_list_has_every_command_and_loads_none() -> None:
    """`--help` names each command with a summary; no codec and no array library is imported for it."""
    program = (
        "import sys; from ingest.cli.group import main; main(['--help'], standalone_mode=False); "
        "print([name for name in ('numpy', 'pydicom', 'uvloop', 'pydantic', 'workers.worker') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("path", all_paths(), ids=" ".join)
def test_help_of_every_command(path: tuple[str, ...]) -> None:
    """`--help` anywhere: exit code 0, usage, and what it is for."""
    done = CliRunner().invoke(main, [*path, "--help"], prog_name="dicom-ingest")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"Usage: dicom-ingest {' '.join(path)}")
    assert done.stderr == ""


def test_help_of_a_command_alone() -> None:
    """In a process of its own, where nothing else has imported what it needs."""
    done = run("quarantine", "replay", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: python -m ingest quarantine replay")


@pytest.mark.parametrize("name", COMMANDS)
def test_summary_in_the_list_is_the_commands_own(name: str) -> None:
    """The line in the list is the first of the command's help."""
    (entry_point,) = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    command = entry_point.load()
    assert summary_of(entry_point.module) == str(command.help).partition("\n")[0].rstrip(".")


def test_version() -> None:
    """`--version` is the installed distribution's."""
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout == f"dicom-ingest {importlib.metadata.version('dicom-ingest')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("serve", "--listen", "here"),
        ("serve", "--unknown"),
        ("worker", "--partitions", "99"),
        ("send",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """What was not understood is said, with 2."""
    done = run(*arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr


@pytest.mark.parametrize("command", ["serve", "receiver", "worker", "config check"])
def test_wrong_setting_stops_the_start(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the key, what was given, what is allowed; exit code 2; no traceback."""
    monkeypatch.setenv("DICOM_INGEST_RECEIVER__PORT", "http")
    done = run(*command.split())
    assert done.returncode == 2
    assert done.stderr == (
        "dicom-ingest: receiver.port (environment DICOM_INGEST_RECEIVER__PORT): given 'http'; "
        "allowed: an integer from 0 to 65535\n"
    )
    assert done.stdout == ""
