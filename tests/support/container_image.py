"""The project's image, built by buildah on a Debian of debootstrap, and a container of it by runc. Both need root.

The base is kept, see `cache`; the image is made anew each time, in a store of its own that goes with it.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.cache import cached
from tests.support.kustomize import K8S

_BASE: Final = "localhost/debian-python:1"
_BUILD: Final = 1800.0  # s; two minutes on two cores that nobody else uses
_FOLDERS: Final = ("/tmp", "/var/lib/dicom-ingest")  # what pods mount to be written


class Image:
    """One that is built, its files at ``root``."""

    def __init__(self, root: Path, config: dict[str, Any]) -> None:
        self.root = root
        self.config = config

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.lstat().st_size for path in self.root.rglob("*") if not path.is_dir())

    @contextmanager
    def run(self, *arguments: str) -> Iterator["Container"]:
        """A container as pods have it: root filesystem read-only, the image's user, no capability, no new rights, no network."""
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["runc", "spec"], cwd=folder, check=True)
            file = Path(folder) / "config.json"
            spec = json.loads(file.read_text())
            user, _, group = self.config["User"].partition(":")
            spec["root"] = {"path": str(self.root), "readonly": True}
            spec["process"] |= {
                "terminal": False,
                "args": [*self.config["Entrypoint"], *arguments],
                "env": self.config["Env"],
                "cwd": self.config["WorkingDir"],
                "user": {"uid": int(user), "gid": int(group)},
                "capabilities": {},
                "noNewPrivileges": True,
            }
            spec["mounts"] += [
                {
                    "destination": place,
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "nodev", f"uid={user}", f"gid={group}", "mode=0700"],
                }
                for place in _FOLDERS
            ]
            file.write_text(json.dumps(spec))
            name = Path(folder).name
            with (Path(folder) / "log").open("w+b") as log:
                process = subprocess.Popen(
                    ["runc", "run", "--bundle", folder, name],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                try:
                    yield Container(name, process, Path(folder) / "log")
                finally:
                    subprocess.run(["runc", "delete", "--force", name], check=False, capture_output=True)
                    process.wait(timeout=60)


class Container:
    """One that runs."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def python(self, program: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of Python in it."""
        return subprocess.run(
            ["runc", "exec", self.name, "python", "-c", program],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def terminate(self) -> int:
        """SIGTERM, as the kubelet sends it; the exit code."""
        subprocess.run(["runc", "kill", self.name, "TERM"], check=True)
        return self.process.wait(timeout=120)


def _debootstrap(root: Path) -> None:
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", str(root)],
        check=True, capture_output=True, timeout=_BUILD,
    )  # fmt: skip


def debian() -> Path:
    """The files of a Debian with Python."""
    return cached("debian-bookworm-python", _debootstrap)


@contextmanager
def built_image() -> Iterator[Image]:
    """The image of this tree, by its recipe."""
    base = debian()
    with tempfile.TemporaryDirectory() as folder:
        store = ["buildah", "--root", f"{folder}/store", "--runroot", f"{folder}/run"]

        def buildah(*arguments: str | Path) -> str:
            done = subprocess.run(
                [*store, *arguments], capture_output=True, text=True, check=False, timeout=_BUILD
            )
            if done.returncode:
                raise RuntimeError(f"buildah {arguments[0]}: {(done.stdout + done.stderr)[-4000:]}")
            return done.stdout.strip()

        start = buildah("from", "scratch")
        buildah("add", "--quiet", start, base, "/")
        buildah("commit", "--quiet", "--rm", start, _BASE)
        recipe = K8S / "image" / "Dockerfile"
        # Packages come over TLS, maybe by a proxy that only this machine trusts: the build does, too; none of it stays in the image.
        trust = ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        buildah(
            "bud", "--quiet", "--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={_BASE}", *trust,
            "--file", recipe, "--tag", "dicom-ingest:1", K8S.parent,
        )  # fmt: skip
        container = buildah("from", "dicom-ingest:1")
        try:
            config = json.loads(buildah("inspect", container))["Docker"]["config"]
            yield Image(Path(buildah("mount", container)), config)
        finally:
            buildah("umount", container)
            buildah("rm", "--all")
