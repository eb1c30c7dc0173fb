"""What the figures were measured on."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.cargo import DICOM_STORESCP_VERSION
from tests.support.kafka_jars import KAFKA_VERSION
from tests.support.s3_servers import MINIO

_PACKAGES: Final = (
    "dicom-ingest", "uvloop", "crc32c", "xxhash", "numpy", "pylibjpeg-openjpeg", "pydicom", "pynetdicom",
    "kafka-python", "obstore",
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
        "Orthanc": _first_line("Orthanc", "--version"),
        "dicom-rs storescp": DICOM_STORESCP_VERSION,
        "Kafka": KAFKA_VERSION,
        "MinIO": MINIO.version,
        "Java": _first_line("java", "-version"),
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
    # Debian has Orthanc where only root's PATH leads.
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        return "not installed"
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    printed = done.stdout or done.stderr  # Java says it there
    return printed.partition("\n")[0].strip("$ ") or "unknown"
