"""What the figures were measured on."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_PACKAGES: Final = (
    "dicom-ingest", "uvloop", "crc32c", "xxhash", "numpy", "pylibjpeg-openjpeg", "pydicom", "pynetdicom",
)  # fmt: skip


def describe(folder: Path) -> dict[str, str]:
    """CPU, cores, kernel, memory, the file system of ``folder``, and versions."""
    facts = {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _file_system(folder),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "Python": platform.python_version(),
        "DCMTK": _first_line("storescp", "--version"),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Type and device of the mount that holds ``folder``."""
    found = ("/", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, f"{kind} on {device}")
    return f"{found[1]}, {shutil.disk_usage(folder).free / 1e9:.0f} GB free"


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return printed.partition("\n")[0].strip("$ ") or "unknown"
