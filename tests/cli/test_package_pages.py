"""Each package's page, the docstring of its ``__init__``, leads to every file and folder of the package."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(page for side in ("ingest", "workers") for page in (ROOT / side).rglob("__init__.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.parent.relative_to(ROOT)))
def test_a_page_names_every_module(page: Path) -> None:
    """Who looks for a thing reads one page and knows where it is."""
    files = {path.stem for path in page.parent.glob("*.py") if not path.stem.startswith("__")}
    folders = {path.parent.name for path in page.parent.glob("*/__init__.py")}
    named = re.findall(r"\w+", ast.get_docstring(ast.parse(page.read_text())) or "")
    assert (files | folders) - set(named) == set()
