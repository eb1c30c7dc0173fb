"""`dicom-ingest` run within the test's process: its exit code and what it printed."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from ingest.cli.group import main


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed for scripts."""
        return json.loads(self.out)


def run(data: Path, *arguments: str) -> Done:
    """Run a command on a data folder; a defect of ours fails the test with its traceback."""
    result = CliRunner().invoke(main, [*arguments, "--data", str(data)], catch_exceptions=False)
    return Done(result.exit_code, result.stdout, result.stderr)
