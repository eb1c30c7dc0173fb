"""Every object is what Kubernetes and its operators take, with no field that they would drop."""

import copy
from typing import Any

import pytest

from tests.support.kubernetes_schemas import problems
from tests.support.kustomize import K8S, OVERLAYS, Overlay, rendered

# An object of each sort of schema, and a change that must be found.
WRONG: dict[str, tuple[str, tuple[str | int, ...], object]] = {
    "misspelt field of a pod": ("Deployment", ("spec", "template", "spec", "terminationGracePeriod"), 5),
    "text for a number": ("Deployment", ("spec", "replicas"), "three"),
    "misspelt field of KEDA's": ("ScaledObject", ("spec", "maxReplicas"), 5),
    "unknown word for KEDA's fallback": (
        "ScaledObject",
        ("spec", "fallback", "behavior"),
        "currentReplicasIfHighest",
    ),
    "misspelt field of Strimzi's": ("KafkaTopic", ("spec", "partition"), 5),
    "API that Strimzi 1 no longer has": ("KafkaTopic", ("apiVersion",), "kafka.strimzi.io/v1beta2"),
    "all rights": ("KafkaUser", ("spec", "authorization", "acls", 0, "operations"), ["All"]),
    "misspelt field of cert-manager's": ("Certificate", ("spec", "dnsName"), "a"),
    "misspelt field of the Prometheus Operator's": ("PodMonitor", ("spec", "podMetricsEndpoint"), []),
}


def test_overlays_are_what_the_readme_names() -> None:
    """Each has its paragraph."""
    text = (K8S / "README.md").read_text()
    assert OVERLAYS == ["hospital", "regional", "try"]
    assert all(f"`{name}`" in text for name in OVERLAYS)


def test_every_object_fits_its_schema(overlay: Overlay) -> None:
    """None is misspelt, and none is of a kind that nobody checks."""
    found = {
        f"{item['kind']} {item['metadata']['name']}": wrong
        for item in overlay.objects
        if (wrong := problems(item))
    }
    assert not found


def test_every_object_has_the_namespace(overlay: Overlay) -> None:
    """Nothing lands where kubectl happens to point."""
    for item in overlay.objects:
        expected = None if item["kind"] in {"Namespace", "PriorityClass"} else "dicom-ingest"
        assert item["metadata"].get("namespace") == expected, item["metadata"]["name"]


@pytest.mark.parametrize("case", WRONG)
def test_schemas_find_what_is_wrong(case: str) -> None:
    """A schema that lets everything through would make all the others pass."""
    kind, path, value = WRONG[case]
    manifest = copy.deepcopy(rendered("regional").of_kind(kind)[0])
    assert not problems(manifest)
    place: Any = manifest
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert problems(manifest)
