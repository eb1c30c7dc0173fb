"""How pods are allowed to live: least rights, bounds on everything, time enough to end well."""

import tomllib
from pathlib import Path

from ingest.contract.settings import Settings
from tests.support.kustomize import Manifest, Overlay, containers, pod, walk

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
UNITS = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: str) -> int:
    """Bytes."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def test_pods_have_no_rights(overlay: Overlay) -> None:
    """The profile `restricted` of Kubernetes, and no token of the API server."""
    for workload in overlay.workloads:
        assert pod(workload)["automountServiceAccountToken"] is False
        assert pod(workload)["securityContext"]["runAsNonRoot"] is True
        assert pod(workload)["securityContext"]["runAsUser"] > 0
        assert pod(workload)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(workload))
        assert not any("hostPath" in volume for volume in pod(workload).get("volumes", []))
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert all(port["containerPort"] > 1024 for port in container.get("ports", []))


def test_a_waiting_audit_trail_puts_no_pod_out(overlay: Overlay, settings: Settings) -> None:
    """It waits in the volume of the data folder, which a pod may not exceed, with room for what else is there."""
    for workload in overlay.workloads:
        mounts = {
            item["mountPath"]: item["name"]
            for container in containers(workload)
            for item in container["volumeMounts"]
        }
        if str(settings.data) in mounts:
            (volume,) = (one for one in pod(workload)["volumes"] if one["name"] == mounts[str(settings.data)])
            assert 2 * settings.audit.maximum_size <= amount(volume["emptyDir"]["sizeLimit"])


def test_the_namespace_asks_for_it(overlay: Overlay) -> None:
    """So that nothing else gets in beside them."""
    (namespace,) = overlay.of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_all_that_grows_is_bounded(overlay: Overlay) -> None:
    """Memory, and what is on the node's disk; the processor has a request and no limit, which would stall the event loop."""
    for workload in overlay.workloads:
        for container in containers(workload):
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"])
            assert "memory" in resources["limits"]
            assert "cpu" not in resources["limits"]
            assert amount(resources["requests"]["memory"]) <= amount(resources["limits"]["memory"])
        for volume in pod(workload).get("volumes", []):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""})


def test_what_a_pod_may_write_fits_its_limit(overlay: Overlay) -> None:
    """Else the kubelet puts it out before a volume is full."""
    for component in ("receiver", "worker"):
        workload = overlay.ours(component)
        (container,) = containers(workload)
        volumes = [
            amount(item["emptyDir"]["sizeLimit"]) for item in pod(workload)["volumes"] if "emptyDir" in item
        ]
        assert sum(volumes) < amount(container["resources"]["limits"]["ephemeral-storage"])


def test_a_restart_is_for_what_a_restart_helps(overlay: Overlay) -> None:
    """Liveness asks the event loop alone; Kafka and stores are readiness."""
    for component in ("receiver", "worker"):
        (container,) = containers(overlay.ours(component))
        assert container["startupProbe"]["httpGet"]["path"] == "/livez"
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert set(container[kind]["httpGet"]) == {"path", "port"}


def test_rollouts_never_leave_less_than_asked_for(overlay: Overlay) -> None:
    """A new pod is ready before an old one drains."""
    for component in ("receiver", "worker"):
        assert overlay.ours(component)["spec"]["strategy"]["rollingUpdate"] == {
            "maxSurge": 1,
            "maxUnavailable": 0,
        }


def test_images_are_named_exactly(overlay: Overlay) -> None:
    """A tag that moves would mix versions without a rollout; ours is that of this project."""
    for workload in overlay.workloads:
        for container in containers(workload):
            name, colon, tag = container["image"].rpartition(":")
            assert colon, container["image"]
            assert tag not in {"", "latest"}
            if name.rpartition("/")[2] == "dicom-ingest":
                assert tag == PROJECT["version"]


def test_there_are_no_secrets(overlay: Overlay) -> None:
    """Not as a Secret, and not as a plain value: operators or the site's administrators make them."""
    assert not overlay.of_kind("Secret")
    for item in overlay.objects:
        for path, value in walk(item):
            assert "-----BEGIN" not in str(value), path
    for workload in overlay.workloads:
        for container in containers(workload):
            for variable in container.get("env", []):
                assert not is_secret(variable["name"]) or "value" not in variable, variable["name"]
    for config in overlay.of_kind("ConfigMap"):
        assert not [key for key in config["data"] if is_secret(key)]


def is_secret(name: str) -> bool:
    """By its name."""
    return any(word in name.upper() for word in ("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY"))


def test_only_workers_may_touch_the_store(overlay: Overlay) -> None:
    """A receiver, whom the network reaches, has no credentials of buckets."""
    assert "dicom-ingest-store" in store_references(overlay.ours("worker"))
    assert "dicom-ingest-store" not in store_references(overlay.ours("receiver"))


def store_references(workload: Manifest) -> set[str]:
    """All values in its pods."""
    return {str(value) for _, value in walk(pod(workload))}
