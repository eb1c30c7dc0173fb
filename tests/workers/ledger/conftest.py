"""The same promises for both databases; PostgreSQL's are kept by `make test-all`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ledgers import postgresql, settings_of
from workers.ledger.database import open_database
from workers.ledger.ledger import Ledger


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=[pytest.mark.slow, pytest.mark.servers, pytest.mark.real]),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What `ledger.database` is."""
    if request.param == "sqlite":
        yield ""
        return
    with postgresql(tmp_path) as url:
        yield url


@pytest.fixture
def ledger(database: str, tmp_path: Path) -> Iterator[Ledger]:
    found = Ledger(open_database(settings_of(tmp_path, database)))
    yield found
    found.close()
