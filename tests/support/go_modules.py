"""What Go's module proxy gives to tests: programs, built once, and files of modules.

Both are kept, see `cache`.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.cache import cached

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
    """The program's binary.

    Raises:
        RuntimeError: Go is missing or too old, or the build failed.
    """
    return cached(f"{program.name}-{program.version}/{program.name}", lambda path: _build(program, path))


def _build(program: Program, path: Path) -> None:
    _require_go(program)
    done = subprocess.run(
        ["go", "install", f"{program.package}@{program.version}"],
        env={**os.environ, "GOBIN": str(path.parent)}, capture_output=True, text=True, timeout=_BUILD, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"building {program.name} failed:\n{done.stderr[-4000:]}")


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
    """A file of a module.

    Raises:
        RuntimeError: Go is missing, or the module proxy does not give the module.
    """
    name = f"{module.path.replace('/', '-')}-{module.version}/{path.replace('/', '-')}"
    return cached(name, lambda kept: shutil.copyfile(_downloaded(module) / path, kept))


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
