"""The same promises for both databases; PostgreSQL's are kept by `make test-all`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from tests.support.ledgers import postgresql, settings_of
from workers.ledger.database import open_database
from workers.ledger.ledger import Ledger


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """One for all tests, each of which finds it empty."""
    with postgresql() as url:
        yield url


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=[pytest.mark.slow, pytest.mark.servers, pytest.mark.real]),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `ledger.database` is."""
    if request.param == "sqlite":
        return ""
    url: str = request.getfixturevalue("server")
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url


@pytest.fixture
def ledger(database: str, tmp_path: Path) -> Iterator[Ledger]:
    found = Ledger(open_database(settings_of(tmp_path, database)))
    yield found
    found.close()
