"""dcmjs-dimse, a DICOM library for Node.js, as an SCU of storage commitment.

npm installs it once, by the lock file in ``node/``, see `cache`. ``python -m tests.support.dcmjs`` does so ahead of
the tests, so that no test waits for downloads.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.cache import cached

_NODE: Final = Path(__file__).parent / "node"
_LOCK: Final = _NODE / "package-lock.json"
_INSTALL: Final = 600.0  # seconds
_PATIENCE: Final = 60  # seconds, of the script; a report takes one or two


@dataclass(frozen=True)
class Report:
    """One N-EVENT-REPORT as the library has read it."""

    association: str  # "same" as the request's, or "new"
    event_type: int
    transaction_uid: str
    committed: set[str]
    failed: dict[str, int]


@dataclass(frozen=True)
class Outcome:
    """What came of one run: the statuses of C-STORE and N-ACTION, and the reports."""

    stored: list[int]
    action: int | None
    reports: list[Report]
    problems: list[str]


def modules() -> Path:
    """The folder that has the library in its node_modules.

    Raises:
        RuntimeError: npm is missing or could not install it; with the end of what it said.
    """
    # By the lock's content, so that a checkout with other versions has a folder of its own.
    return cached(f"dcmjs-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}", _install)


def _install(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise RuntimeError("npm or node is missing: install the system packages nodejs and npm")
    folder.mkdir()
    for name in ("package.json", _LOCK.name):
        shutil.copy(_NODE / name, folder / name)
    # None of them needs a script of its own to run at installation.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=_INSTALL,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"npm could not install dcmjs-dimse: {(done.stdout + done.stderr)[-2000:]}")


def store_and_ask(
    port: int,
    files: Sequence[Path],
    references: Sequence[tuple[str, str]],
    transaction_uid: str,
    *,
    calling_ae_title: str,
    listen: int | None,
) -> Outcome:
    """Store ``files`` and ask for commitment of ``references`` on one association, and wait for the report.

    Args:
        port: Ours, on loopback.
        files: PS3.10 files.
        references: SOP Class and SOP Instance UIDs.
        transaction_uid: Of the request.
        calling_ae_title: Its own.
        listen: Where it takes reports on new associations; ``None``: it keeps the association open for them.
    """
    order = {
        "modules": str(modules()), "host": "127.0.0.1", "port": port, "listen": listen,
        "calling_ae_title": calling_ae_title, "called_ae_title": "DICOM-INGEST",
        "files": [str(path) for path in files], "references": references, "transaction_uid": transaction_uid,
        "linger": _PATIENCE if listen is None else 0, "patience": _PATIENCE,
    }  # fmt: skip
    done = subprocess.run(
        ["node", str(_NODE / "commitment.mjs"), json.dumps(order)],
        capture_output=True, text=True, check=False, timeout=2 * _PATIENCE,
    )  # fmt: skip
    if not done.stdout:
        raise RuntimeError(f"the script failed: {done.stderr[-4000:]}")
    said = json.loads(done.stdout)
    reports = [
        Report(**{**one, "committed": set(one["committed"]), "failed": dict(one["failed"])})
        for one in said.pop("reports")
    ]
    return Outcome(reports=reports, **said)


def main() -> None:
    """Install the library."""
    try:
        modules()
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
