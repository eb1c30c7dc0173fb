"""The `dicom-ingest` group: each subcommand is an entry point, imported only when it is run.

``ingest`` and ``workers`` register their commands side by side under `ENTRY_POINTS`, so neither imports the
other. The list in ``--help`` takes each command's summary from the first line of its module's docstring,
which is read from the source without running it: the codecs are not loaded to print a help page.
"""

import ast
import errno
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Final

import click

ENTRY_POINTS: Final = "dicom_ingest.commands"

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))  # what a disk says, or a limit of its use


class EntryPointGroup(click.Group):
    """A group whose commands are the entry points of `ENTRY_POINTS`."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command that is named; where its output cannot be written, say so in one line."""
        _open_closed_streams()
        try:
            return super().main(*args, **extra)
        except OSError as error:
            if error.errno not in _FULL or error.filename is not None:
                raise
            click.echo(f"Error: output: {error.strerror}", err=True)
            raise SystemExit(1) from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all installed commands, sorted."""
        return sorted(importlib.metadata.entry_points(group=ENTRY_POINTS).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the command, or None when there is none of that name."""
        for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=cmd_name):
            command = entry_point.load()
            if isinstance(command, click.Command):
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the commands with their summaries, importing none of them."""
        rows = [
            (entry_point.name, summary_of(entry_point.module))
            for entry_point in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS))
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _open_closed_streams() -> None:
    """Have all standard streams: of one that our caller closed Python has None, and the next file opened its descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115 - for as long as the process lives
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def summary_of(module: str) -> str:
    """The first line of a module's docstring, without running the module; empty when there is none."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_bytes())
    return (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")


@click.command(
    cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="dicom-ingest", prog_name="dicom-ingest", message="%(prog)s %(version)s")
def main() -> None:
    """Receive DICOM images, keep each exactly once, and lose none that was acknowledged.

    \b
    Exit codes: 0 success, 1 failure, 2 wrong usage or settings.
    """  # noqa: D301 - \b is click's own mark for a paragraph that is not re-wrapped
