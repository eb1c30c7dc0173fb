"""README.md and CONFORMANCE.md say what the code does: tables and statement are made from it.

To bring them up to date: ``python tests/cli/test_readme.py``.
"""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from ingest.cli.config import markdown_table
from ingest.cli.conformance_statement import statement
from ingest.cli.group import ENTRY_POINTS, summary_of
from ingest.contract.settings import CommitmentSettings, Settings

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
CONFORMANCE = ROOT / "CONFORMANCE.md"
NOTE = """\
This is the statement of an installation with the default settings and `commitment.enabled`; `dicom-ingest conformance`
prints that of yours, from its settings.
"""


def commands_table() -> Iterator[str]:
    for entry_point in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS)):
        yield f"| `{entry_point.name}` | {summary_of(entry_point.module)} |"


def with_tables(text: str) -> str:
    """The README with both tables made anew."""
    for name, lines in (("commands", commands_table()), ("settings", markdown_table())):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + "".join(f"{line}\n" for line in lines) + end + after
    return text


def test_tables_are_those_of_the_code() -> None:
    """Every command and every setting is in the README, with its default and what is allowed."""
    text = README.read_text()
    assert text == with_tables(text)


def test_dependencies_are_explained() -> None:
    """Each dependency of the project is in the table of CONTRIBUTING.md."""
    requirements = importlib.metadata.requires("dicom-ingest") or []
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2]
    for requirement in requirements:
        name = requirement.partition(";")[0].split(">")[0].split("[")[0].strip()
        assert name in table, name


def conformance() -> str:
    """The statement as a document."""
    title, *rest = statement(Settings(commitment=CommitmentSettings(enabled=True)))
    return "\n".join([title, "", *NOTE.splitlines(), *rest, ""])


def test_conformance_statement_is_that_of_the_code() -> None:
    """CONFORMANCE.md is what `dicom-ingest conformance` prints with storage commitment on."""
    assert CONFORMANCE.read_text() == conformance()


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
    CONFORMANCE.write_text(conformance())
