"""Apache Kafka's jars: fetched once by Maven into the user's cache folder, shared by every checkout."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.3.1"

_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dicom-ingest</groupId><artifactId>kafka-server</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""
# A pinned plug-in: Maven's choice would follow the machine's Maven.
_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def cache_folder() -> Path:
    """Where what tests downloaded or built is kept, outside the tree."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dicom-ingest"


def kafka_jars() -> Path:
    """The folder of the jars, complete; another process that fetches them now is waited for.

    Raises:
        RuntimeError: Maven is missing or could not fetch them; with the end of what it said.
    """
    jars = cache_folder() / f"kafka-{KAFKA_VERSION}"
    if jars.is_dir():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / f"{jars.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("mvn is missing: install the system package maven")
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        pom, libraries = Path(folder) / "pom.xml", Path(folder) / "libraries"
        pom.write_text(_POM)
        command = [maven, "-q", "-B", "-f", str(pom), _COPY, "-DincludeScope=runtime"]
        command.append(f"-DoutputDirectory={libraries}")
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"mvn could not fetch Kafka: {(done.stdout + done.stderr)[-2000:]}")
        libraries.rename(jars)  # only complete ones have the name
