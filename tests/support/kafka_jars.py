"""Apache Kafka's jars: fetched once by Maven, see `cache`."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.support.cache import cached

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


def kafka_jars() -> Path:
    """The folder of the jars.

    Raises:
        RuntimeError: Maven is missing or could not fetch them; with the end of what it said.
    """
    return cached(f"kafka-{KAFKA_VERSION}", _fetch)


def _fetch(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("mvn is missing: install the system package maven")
    pom = jars.parent / "pom.xml"
    pom.write_text(_POM)
    command = [
        maven,
        "-q",
        "-B",
        "-f",
        str(pom),
        _COPY,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={jars}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"mvn could not fetch Kafka: {(done.stdout + done.stderr)[-2000:]}")
