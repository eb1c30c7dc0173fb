"""The README says what the code does: its tables are made from the code.

To bring them up to date: ``python tests/cli/test_readme.py``.
"""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from ingest.cli.config import markdown_table
from ingest.cli.group import ENTRY_POINTS, summary_of

README = Path(__file__).resolve().parents[2] / "README.md"


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
    """Each dependency of the project is in the README's table."""
    requirements = importlib.metadata.requires("dicom-ingest") or []
    table = README.read_text().partition("Dependencies, and why each:")[2]
    for requirement in requirements:
        name = requirement.partition(";")[0].split(">")[0].split("[")[0].strip()
        assert name in table, name


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
