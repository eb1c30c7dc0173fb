"""Ledgers for tests: SQLite in a folder, or Debian's PostgreSQL on a socket of its own."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import text

from benchmarks.processes import free_port
from ingest.contract.records import Outcome, Place
from ingest.contract.settings import Settings
from workers.ledger.database import reading
from workers.ledger.ledger import Ledger

NOBODY = 65534  # PostgreSQL does not run as root


def outcome(number: int, **changes: object) -> Outcome:
    """Of an upload that was stored."""
    facts: dict[str, object] = {
        "sop_instance_uid": f"1.2.3.{number}",
        "place": Place.STORED,
        "reason": "",
        "source_digest": f"{number:064x}",
        "store": "store-0",
        "key": f"0ab/1.2.3.{number}.dcm",
        "at": 1_700_000_000_000_000_000 + number,
        "study_instance_uid": "1.2.3",
        "series_instance_uid": "1.2.3.9",
        "source": "ct",
        "calling_ae_title": "CT1",
        "received_at": 1_700_000_000_000_000_000,
        "size": 1000,
        "patient": "aa" * 16,
        "patient_scope": "issuer",
    }
    return Outcome(**(facts | changes))  # type: ignore[arg-type]


def rows(ledger: Ledger, question: str) -> list[dict[str, Any]]:
    """What the database answers."""
    with reading(ledger.engine) as connection:
        return [dict(row) for row in connection.execute(text(question)).mappings()]


def fates(ledger: Ledger) -> list[dict[str, Any]]:
    """All uploads as they are, but for when they were placed, which a head knows a moment earlier than an outcome."""
    found = rows(ledger, "SELECT * FROM fates ORDER BY upload_id")
    for row in found:
        del row["placed_at"]
    return found


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A server of Debian's package, and the URL of its database; on loopback, gone afterwards.

    In a folder of its own: into those of pytest only root may look.
    """
    programs = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    assert programs is not None, "install Debian's package postgresql"
    programs = programs.parent
    place = Path(tempfile.mkdtemp(prefix="postgresql-"))
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chown(place, NOBODY, NOBODY)
    data, port = place / "data", free_port()
    with (place / "log").open("wb") as log:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        common: dict[str, Any] = {"stdout": log, "stderr": log, "env": environment, "cwd": place, **as_user}
        command = [str(programs / "initdb"), "-D", str(data), "-U", "ledger", "-A", "trust", "--no-sync"]
        done = subprocess.run(command, check=False, timeout=300, **common)
        assert done.returncode == 0, (place / "log").read_text()[-2000:]
        server = subprocess.Popen(
            [
                str(programs / "postgres"), "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                "-c", f"unix_socket_directories={place}", "-c", "fsync=off",
            ],
            **common,
        )  # fmt: skip
    try:
        ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-U", "ledger"]
        while subprocess.run(ready, check=False, capture_output=True, timeout=60).returncode:
            assert server.poll() is None, (place / "log").read_text()[-2000:]
        yield f"postgresql://ledger@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(120)
        shutil.rmtree(place)


def settings_of(data: Path, database: str, **more: object) -> Settings:
    """Settings with that database; an empty one is SQLite in ``data``."""
    return Settings.model_validate({"data": data, "ledger": {"database": database}} | more)
