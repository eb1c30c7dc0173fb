"""A real API server takes every overlay as it is; `make k8s-check` runs it, which the file's name keeps out of other runs.

Field by field it is stricter than any schema: defaults are filled in, selectors compared with labels, quantities and names
parsed, KEDA's, Strimzi's, cert-manager's and Prometheus' kinds held to the definitions that they publish, and pods to
`restricted`, which the namespace enforces. What the operators themselves refuse later (a webhook of KEDA's, Strimzi's list of Kafka
settings) is not asked here.
"""

import copy
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.server import Cluster, Refused
from tests.kubernetes.test_schemas import WRONG
from tests.support.kustomize import K8S, OVERLAYS, Manifest, Overlay, pod, pod_labels


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One that has the namespace and the definitions, and else nothing."""
    with Cluster() as found:
        found.define()
        (namespace,) = Overlay("hospital").of_kind("Namespace")
        found.kubectl("create", "-f", "-", given=as_text(namespace))
        yield found


def as_text(manifest: Manifest) -> str:
    """As kubectl reads it; JSON is YAML."""
    return json.dumps(manifest)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_api_server_takes_every_object(cluster: Cluster, name: str) -> None:
    """Of each overlay, and every one of them is named in its answer."""
    overlay = Overlay(name)
    said = cluster.try_out(overlay.objects)
    assert said.count("(server dry run)") == len(overlay.objects)


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_admitted(cluster: Cluster, name: str) -> None:
    """A Deployment of pods that admission refuses is taken, and never has one: so each pod is tried by itself."""
    overlay = Overlay(name)
    for item in overlay.of_kind("PriorityClass", "ServiceAccount"):
        cluster.kubectl("apply", "-f", "-", given=as_text(item))
    for workload in overlay.workloads:
        claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
        spec: dict[str, Any] = copy.deepcopy(pod(workload))
        spec.setdefault("serviceAccountName", "dicom-ingest-worker")  # no controller makes `default` here
        spec["volumes"] = [
            *spec.get("volumes", []),
            *({"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims),
        ]
        cluster.try_out(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": "one",
                        "namespace": "dicom-ingest",
                        "labels": pod_labels(workload),
                    },
                    "spec": spec,
                }
            ]
        )


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_renders_as_the_other_tests_do(cluster: Cluster, name: str) -> None:
    """Its kustomize is another release than ours; operators apply with it."""
    said = cluster.kubectl("kustomize", str(K8S / "overlays" / name))
    assert [item for item in yaml.safe_load_all(said) if item] == Overlay(name).objects


@pytest.mark.parametrize("case", sorted(set(WRONG) - {"all rights"}))
def test_the_api_server_finds_what_is_wrong(cluster: Cluster, case: str) -> None:
    """A check that takes everything would make all the others pass. Rights are a rule of ours, not of Strimzi's."""
    kind, path, value = WRONG[case]
    manifest = copy.deepcopy(Overlay("regional").of_kind(kind)[0])
    place: Any = manifest
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(Refused):
        cluster.try_out([manifest])


def test_the_api_server_finds_a_selector_of_no_pod(cluster: Cluster) -> None:
    """Which each schema takes."""
    manifest = copy.deepcopy(Overlay("hospital").ours("worker"))
    manifest["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] = "wroker"
    with pytest.raises(Refused, match="selector"):
        cluster.try_out([manifest])


def test_admission_refuses_what_runs_as_root(cluster: Cluster) -> None:
    """So that the pods above were looked at."""
    spec = {"containers": [{"name": "one", "image": "one:1"}], "serviceAccountName": "dicom-ingest-worker"}
    metadata = {"name": "root", "namespace": "dicom-ingest"}
    with pytest.raises(Refused, match="restricted"):
        cluster.try_out([{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}])


def test_nothing_of_the_cluster_is_outside_its_network(cluster: Cluster) -> None:
    """Its addresses are on no interface and no route of the machine's own."""
    said = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    assert "10.245." not in said
