"""The manifests of `k8s/` as kustomize renders them, and what is looked up in them.

``python -m tests.support.kustomize`` builds kustomize ahead of the tests.
"""

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.go_modules import Program, binary

KUSTOMIZE: Final = Program("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "v5.7.1", (1, 23))
K8S: Final = Path(__file__).resolve().parents[2] / "k8s"
OVERLAYS: Final = sorted(path.name for path in (K8S / "overlays").iterdir())

# In C where PyYAML was built so, which is ten times as quick.
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]


def overlays_with(component: str) -> list[str]:
    """The overlays that take a component in."""
    found = []
    for name in OVERLAYS:
        kustomization = yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text())
        if f"../../components/{component}" in kustomization["components"]:
            found.append(name)
    return found


def render(folder: Path) -> list[Manifest]:
    """All objects of a kustomization.

    Raises:
        RuntimeError: kustomize refuses it, or is not to be had.
    """
    done = subprocess.run(
        [str(binary(KUSTOMIZE)), "build", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise RuntimeError(f"kustomize build {folder}: {done.stderr[-2000:]}")
    return [found for found in yaml.load_all(done.stdout, LOADER) if found]


class Overlay:
    """One overlay, rendered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects = render(K8S / "overlays" / name)

    def of_kind(self, *kinds: str) -> list[Manifest]:
        """The objects of these kinds."""
        return [found for found in self.objects if found["kind"] in kinds]

    def one(self, kind: str, name: str) -> Manifest:
        """The object of this kind and name."""
        (found,) = [item for item in self.of_kind(kind) if item["metadata"]["name"] == name]
        return found

    def names(self, kind: str) -> set[str]:
        """The names of all objects of a kind."""
        return {found["metadata"]["name"] for found in self.of_kind(kind)}

    @property
    def workloads(self) -> list[Manifest]:
        """What makes pods of ours."""
        return self.of_kind("Deployment", "StatefulSet")

    def ours(self, component: str) -> Manifest:
        """The Deployment of receivers or workers."""
        return self.one("Deployment", f"dicom-ingest-{component}")

    def selected(self, labels: dict[str, str]) -> list[Manifest]:
        """The workloads whose pods have these labels."""
        return [found for found in self.workloads if labels.items() <= pod_labels(found).items()]

    def settings_map(self) -> dict[str, str]:
        """The variables of the environment that are settings."""
        return dict(self._config_map("dicom-ingest", "DICOM_INGEST_CONFIG"))

    def settings_file(self) -> str:
        """The settings file."""
        return str(self._config_map("dicom-ingest-file", "dicom-ingest.toml")["dicom-ingest.toml"])

    def _config_map(self, name: str, key: str) -> dict[str, str]:
        (found,) = [
            item
            for item in self.of_kind("ConfigMap")
            if item["metadata"]["name"].startswith(f"{name}-") and key in item["data"]
        ]
        data: dict[str, str] = found["data"]
        return data


@functools.cache
def rendered(name: str) -> Overlay:
    """One overlay, rendered once; nobody changes it."""
    return Overlay(name)


def pod(workload: Manifest) -> Manifest:
    """The pod's specification of a workload."""
    found: Manifest = workload["spec"]["template"]["spec"]
    return found


def pod_labels(workload: Manifest) -> dict[str, str]:
    """The labels of a workload's pods."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def containers(workload: Manifest) -> list[Manifest]:
    """All containers of a workload's pods."""
    return [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]


def named_ports(workload: Manifest) -> dict[str, int]:
    """The named ports of a workload's pods."""
    return {
        port["name"]: port["containerPort"] for item in containers(workload) for port in item.get("ports", [])
    }


def walk(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every scalar of an object, with its path."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from walk(below, f"{path}/{key}")
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from walk(below, f"{path}/{number}")
    else:
        yield path, value


def main() -> None:
    """Build kustomize."""
    try:
        binary(KUSTOMIZE)
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
