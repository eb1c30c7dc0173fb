"""Peers written in Rust, built from crates.io once and kept in the user's cache folder (see `tests.support.cache`).

``python -m benchmarks.cargo`` builds them ahead of a run.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.support.cache import cached

DICOM_STORESCP_VERSION: Final = "0.10.1"
_BUILD: Final = 1800.0  # s; one minute on two cores


def dicom_storescp() -> Path:
    """dicom-rs's storage SCP.

    Raises:
        RuntimeError: cargo is missing, or the build failed; with the end of what it said.
    """
    return cached(f"dicom-storescp-{DICOM_STORESCP_VERSION}/dicom-storescp", _build)


def _build(path: Path) -> None:
    if shutil.which("cargo") is None:
        raise RuntimeError("the full benchmarks run dicom-rs: install cargo from https://rustup.rs")
    with tempfile.TemporaryDirectory(dir=path.parent) as root:
        command = [
            "cargo",
            "install",
            "dicom-storescp",
            "--version",
            DICOM_STORESCP_VERSION,
            "--locked",
            "--root",
            root,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD, check=False)
        if done.returncode:
            raise RuntimeError(f"building dicom-storescp failed:\n{done.stderr[-4000:]}")
        shutil.move(Path(root) / "bin" / "dicom-storescp", path)


if __name__ == "__main__":
    dicom_storescp()
