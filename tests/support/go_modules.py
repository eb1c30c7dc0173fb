"""What Go's module proxy gives to tests: programs, built once, and files of modules.

Both are kept in the project's cache folder (``$XDG_CACHE_HOME/dicom-ingest``, else ``~/.cache/dicom-ingest``), so that a second
run needs neither compiler nor network.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BUILD: Final = 1800.0  # seconds; two minutes on two cores that nobody else uses
_DOWNLOAD: Final = 300.0  # seconds


@dataclass(frozen=True)
class Program:
    """A program as a Go module."""

    name: str
    package: str
    version: str
    go: tuple[int, int]  # that its go.mod asks for


@dataclass(frozen=True)
class Module:
    """A module of which files are wanted, not programs."""

    path: str
    version: str


def binary(program: Program) -> Path:
    """The program's binary, built if it is not in the cache; safe when several processes ask at once.

    Raises:
        RuntimeError: Go is missing or too old, or the build failed.
    """
    folder = _cache() / f"{program.name}-{program.version}"
    path = folder / program.name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _build(program, folder)
    return path


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "dicom-ingest"


def _build(program: Program, folder: Path) -> None:
    _require_go(program)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        done = subprocess.run(
            ["go", "install", f"{program.package}@{program.version}"],
            env={**os.environ, "GOBIN": made}, capture_output=True, text=True, timeout=_BUILD, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"building {program.name} failed:\n{done.stderr[-4000:]}")
        (Path(made) / program.name).rename(folder / program.name)  # complete before it has its name


def _require_go(program: Program) -> None:
    needed = ".".join(map(str, program.go))
    advice = f"the tests run a real {program.name}, which is built with Go {needed} or newer: install it from https://go.dev/dl/"
    if shutil.which("go") is None:
        raise RuntimeError(f"{advice}; there is none on the PATH (Debian 12's package golang is too old)")
    said = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < program.go:
        raise RuntimeError(f"{advice}; this is {said.strip()}")


def module_file(module: Module, path: str) -> Path:
    """A file of a module, copied into the cache if it is not there.

    Raises:
        RuntimeError: Go is missing, or the module proxy does not give the module.
    """
    kept = _cache() / f"{module.path.replace('/', '-')}-{module.version}" / path.replace("/", "-")
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as made:
            made.write((_downloaded(module) / path).read_bytes())
        Path(made.name).rename(kept)  # complete before it has its name
    return kept


def _downloaded(module: Module) -> Path:
    if shutil.which("go") is None:
        raise RuntimeError(
            f"the tests read files of {module.path}, which Go fetches: install it from https://go.dev/dl/"
        )
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{module.path}@{module.version}"],
        capture_output=True, text=True, timeout=_DOWNLOAD, check=False, cwd=tempfile.gettempdir(),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"fetching {module.path} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return Path(json.loads(done.stdout)["Dir"])
