"""What the image is made of, as far as can be read: the whole lock, the settings of the allocator, no rights."""

import json
import re
import subprocess
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ingest.contract.allocator import VARIABLES
from tests.support.kustomize import K8S, named_ports, pod, rendered

IMAGE = K8S / "image"
PROJECT = K8S.parent


def pinned(file: Path) -> dict[str, list[Version]]:
    """The versions of each package in a lock file; some have one for each Python."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"(?m)^([a-z0-9-]+)==([^ ;\\]+)", file.read_text()):
        found.setdefault(name, []).append(Version(version))
    return found


def instructions() -> dict[str, list[str]]:
    """Those of the last stage, by keyword; a line that goes on is one."""
    last = (IMAGE / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in last.splitlines()[1:]:
        if line and not line.startswith("#"):
            keyword, _, rest = line.partition(" ")
            found.setdefault(keyword, []).append(" ".join(rest.split()))
    return found


def test_the_lock_has_every_dependency() -> None:
    """At versions that the project allows, with the extras of both sides."""
    versions = pinned(IMAGE / "requirements.txt")
    for text in requires("dicom-ingest") or []:
        requirement = Requirement(text)
        for version in versions[requirement.name.lower()]:
            assert requirement.specifier.contains(version), text


def test_every_package_of_the_lock_has_hashes() -> None:
    """Else pip would refuse all of it."""
    for name in ("requirements.txt", "build-requirements.txt"):
        text = (IMAGE / name).read_text()
        for block in re.split(r"(?m)^(?=[a-z0-9-]+==)", text):
            assert not block.strip() or "--hash=sha256:" in block


def test_the_image_tells_its_processes_what_they_tell_themselves() -> None:
    """A variable of the environment wins over what the process sets: they must agree."""
    (environment,) = instructions()["ENV"]
    given = dict(item.split("=", 1) for item in environment.split())
    assert {name: value for name, value in given.items() if name.startswith("MALLOC_")} == VARIABLES


def test_the_image_runs_as_the_user_of_the_pods() -> None:
    """Who owns nothing, in the folder that is mounted."""
    (user,) = instructions()["USER"]
    (folder,) = instructions()["WORKDIR"]
    overlay = rendered("hospital")
    for component in ("receiver", "worker"):
        context = pod(overlay.ours(component))["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert overlay.settings_map()["DICOM_INGEST_DATA"] == folder


def test_the_image_says_which_ports_it_has() -> None:
    """Those of the pods."""
    (exposed,) = instructions()["EXPOSE"]
    overlay = rendered("regional")
    ports = {port for name in ("receiver", "worker") for port in named_ports(overlay.ours(name)).values()}
    assert {int(port) for port in exposed.split()} == ports
    (check,) = instructions()["HEALTHCHECK"]
    assert f":{named_ports(overlay.ours('receiver'))['admin']}/livez" in check


def test_the_image_keeps_no_layer_with_what_was_taken_out() -> None:
    """Its last stage has one, copied from where package managers and compilers were removed."""
    text = (IMAGE / "Dockerfile").read_text()
    assert text.rpartition("\nFROM ")[2].startswith("scratch\n")
    assert instructions()["COPY"] == ["--from=root / /"]
    assert "RUN" not in instructions()


@pytest.mark.slow
@pytest.mark.timeout(900)  # s; it installs 40 packages
def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    """`make sbom` names each package at its version, under a licence, and whom the project needs itself."""
    subprocess.run(["make", "--silent", "sbom"], cwd=PROJECT, check=True, capture_output=True)
    bill = json.loads((PROJECT / "build" / "sbom.cdx.json").read_text())
    locked = pinned(IMAGE / "requirements.txt")
    versions = {canonicalize_name(part["name"]): part["version"] for part in bill["components"]}
    assert versions.keys() <= locked.keys()
    for name, version in versions.items():
        assert Version(version) in locked[name]
    assert all(part["licenses"] for part in bill["components"])
    (own,) = (entry for entry in bill["dependencies"] if entry["ref"] == "root-component")
    needed = {canonicalize_name(ref.partition("==")[0]) for ref in own["dependsOn"]}
    assert needed == {canonicalize_name(Requirement(text).name) for text in requires("dicom-ingest") or []}
