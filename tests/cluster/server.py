"""The cluster of this folder, as tests use it; `cluster` and `build.sh` say what it is."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from tests.support.go_modules import Module, module_file
from tests.support.kubernetes_schemas import DEFINITIONS
from tests.support.strimzi import strimzi_definitions

HERE: Final = Path(__file__).parent
_PROMETHEUS: Final = Module("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
_POD_MONITOR: Final = "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"


class Refused(Exception):  # noqa: N818 - named for the fact
    """The API server, or a program before it, did not take what it was given."""


class Cluster:
    """An API server that checks and keeps objects, and with nodes also runs pods; up while it is entered."""

    def __init__(self, nodes: int = 0) -> None:
        self._nodes = nodes

    def __enter__(self) -> Self:
        _run("up", str(self._nodes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run("down")

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """What kubectl says.

        Raises:
            Refused: It failed.
        """
        return _run("kubectl", *arguments, given=given)

    def load(self, *images: Path) -> None:
        """Make images known to every node."""
        _run("load", *map(str, images))

    def apply(self, objects: list[dict[str, Any]]) -> str:
        """Create or change objects."""
        return self.kubectl("apply", "--server-side", "-f", "-", given=yaml.safe_dump_all(objects))

    def define(self) -> None:
        """Create the definitions of the operators' kinds, as the operators publish them."""
        files = [module_file(module, path) for module, path in DEFINITIONS.values()]
        files += [module_file(_PROMETHEUS, _POD_MONITOR), *strimzi_definitions()]
        given = [argument for file in files for argument in ("-f", str(file))]
        self.kubectl("create", *given)
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")

    def try_out(self, objects: list[dict[str, Any]]) -> str:
        """Whether the API server would take objects, with unknown and doubled fields refused."""
        text = yaml.safe_dump_all(objects)
        return self.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", given=text)


def _run(*arguments: str, given: str | None = None) -> str:
    done = subprocess.run(
        [str(HERE / "cluster"), *arguments],
        input=given, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr[-8000:])
    return done.stdout
