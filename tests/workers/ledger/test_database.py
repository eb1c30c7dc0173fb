"""The database of the ledger: how it is reached."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.ledgers import settings_of
from workers.ledger.database import open_database
from workers.ledger.ledger import Ledger


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.real
def test_a_server_that_is_gone_is_given_up(server: str, tmp_path: Path) -> None:
    """With its machine, and so without a word: libpq would wait for the kernel's two hours. A URL that says better is heeded."""
    for query, idle in (("", "30"), ("?keepalives_idle=7", "7")):
        with closing(Ledger(open_database(settings_of(tmp_path, server + query)))) as ledger:
            driven: Any = ledger.engine.raw_connection().driver_connection
            said = driven.info.get_parameters()
        assert (said["keepalives_idle"], said["keepalives_count"]) == (idle, "3")
        assert int(said["tcp_user_timeout"]) == 60_000
