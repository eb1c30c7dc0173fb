"""Where what a command prints cannot be written: one line on standard error, and exit code 1."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.datasets import data_set_bytes
from tests.support.placing import CT, placing

OTHER = data_set_bytes(CT).replace(b"CompressedSamples^CT1", b"CompressedSamples^CT2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")

    async def scenario() -> None:
        async with placing(folder, encode=False) as one:
            await one.file(CT)
            await one.data_set(OTHER, CT, calling_ae_title="CONSOLE")

    asyncio.run(scenario())
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("config", "show"),
        ("report", "--csv"),
        ("conflicts", "list"),
        ("conflicts", "list", "--json"),
    ],
    ids=" ".join,
)
def test_output_to_a_full_disk(data: Path, command: tuple[str, ...]) -> None:
    """Nobody is told that the store is full, and nobody has to read a traceback."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ingest", *command, "--data", str(data)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: ")
    assert line.endswith("output: No space left on device")
    assert done.returncode == 1


@pytest.mark.parametrize(
    "command", [("status",), ("conflicts", "list"), ("find", "--sop", "1.2.3")], ids=" ".join
)
def test_without_standard_error(data: Path, command: tuple[str, ...]) -> None:
    """As a cron job has it that closes it: the answer is the same."""
    words = [sys.executable, "-m", "ingest", *command, "--data", str(data)]
    there = subprocess.run(words, capture_output=True, check=False)
    closed = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], stdout=subprocess.PIPE, check=False)
    assert (closed.returncode, closed.stdout) == (there.returncode, there.stdout)
    assert there.returncode in (0, command[0] == "find")
