"""What no schema knows: names, labels and ports that one object has of another."""

from collections.abc import Iterator

import pytest

from tests.support.kustomize import (
    Manifest,
    Overlay,
    containers,
    named_ports,
    overlays_with,
    pod,
    pod_labels,
)

walled = pytest.mark.parametrize("overlay", overlays_with("network"), indirect=True)

# Secrets that the site makes; operators make the others.
SITE = {"dicom-ingest-store", "dicom-ingest-ledger", "dicom-ingest-ledger-key"}
STRIMZI_CLUSTER_CA = "dicom-ingest-cluster-ca-cert"


def secrets(overlay: Overlay) -> set[str]:
    """Those that will be there."""
    made = {f"{name}-cluster-ca-cert" for name in overlay.names("Kafka")} | overlay.names("KafkaUser")
    made |= {item["spec"]["secretName"] for item in overlay.of_kind("Certificate")}
    assert not made & SITE  # the operator would overwrite it
    return made | SITE


def component(workload: Manifest) -> str:
    """What its pods are."""
    return str(pod_labels(workload)["app.kubernetes.io/component"])


def labels_of(selector: Manifest) -> dict[str, str]:
    """Of a selector that has nothing but labels."""
    assert list(selector) == ["matchLabels"]
    found: dict[str, str] = selector["matchLabels"]
    return found


def test_workloads_select_their_own_pods(overlay: Overlay) -> None:
    """And no others'."""
    for item in overlay.workloads:
        assert overlay.selected(labels_of(item["spec"]["selector"])) == [item]


def test_each_service_has_one_workload_and_its_ports(overlay: Overlay) -> None:
    """Traffic goes somewhere, and to a port that is open there."""
    for service in overlay.of_kind("Service"):
        (workload,) = overlay.selected(service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in named_ports(workload)


def test_modalities_keep_their_addresses(overlay: Overlay) -> None:
    """Logs and networks tell of the sender, not of a node."""
    assert overlay.one("Service", "dicom-ingest")["spec"]["externalTrafficPolicy"] == "Local"


def test_each_of_ours_has_a_disruption_budget_that_lets_a_node_go(overlay: Overlay) -> None:
    """One at a time; a budget that never lets one go blocks every upgrade of the cluster."""
    protected = []
    for budget in overlay.of_kind("PodDisruptionBudget"):
        (workload,) = overlay.selected(labels_of(budget["spec"]["selector"]))
        protected.append(workload["metadata"]["name"])
        assert "minAvailable" not in budget["spec"]
        assert budget["spec"]["maxUnavailable"] not in (0, "0%")
    assert sorted(protected) == ["dicom-ingest-receiver", "dicom-ingest-worker"]


def test_probes_name_ports_of_their_container(overlay: Overlay) -> None:
    """A probe of a port that is not there restarts a healthy pod for ever."""
    for workload in overlay.workloads:
        for container in containers(workload):
            ports = {port["name"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                if kind in container:
                    assert container[kind]["httpGet"]["port"] in ports


def test_pods_spread_by_their_own_labels(overlay: Overlay) -> None:
    """A constraint that counts other pods spreads nothing."""
    for component in ("receiver", "worker"):
        workload = overlay.ours(component)
        constraints = pod(workload)["topologySpreadConstraints"]
        assert {item["topologyKey"] for item in constraints} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }
        for item in constraints:
            assert overlay.selected(labels_of(item["labelSelector"])) == [workload]
            strict = component == "receiver" and item["topologyKey"] == "kubernetes.io/hostname"
            assert item["whenUnsatisfiable"] == ("DoNotSchedule" if strict else "ScheduleAnyway")


def test_accounts_and_priorities_are_there(overlay: Overlay) -> None:
    """The API server refuses pods with an unknown priority or account."""
    classes = overlay.names("PriorityClass")
    for workload in overlay.workloads:
        assert pod(workload).get("priorityClassName", next(iter(classes))) in classes
        assert pod(workload).get("serviceAccountName", "default") in overlay.names("ServiceAccount") | {
            "default"
        }
    for pool in overlay.of_kind("KafkaNodePool"):
        assert pool["spec"]["template"]["pod"]["priorityClassName"] in classes
    values = {item["metadata"]["name"]: item["value"] for item in overlay.of_kind("PriorityClass")}
    assert values["dicom-ingest-receiver"] > values["dicom-ingest-worker"]


def referenced(workload: Manifest) -> Iterator[tuple[str, str]]:
    """Kind and name of what its pods need."""
    for volume in pod(workload).get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
    for container in containers(workload):
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                yield "ConfigMap", source["configMapRef"]["name"]
            if "secretRef" in source:
                yield "Secret", source["secretRef"]["name"]
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                yield "Secret", variable["valueFrom"]["secretKeyRef"]["name"]


def test_what_pods_mount_is_there(overlay: Overlay) -> None:
    """A missing one keeps pods waiting without an error that anybody sees."""
    there = {"ConfigMap": overlay.names("ConfigMap"), "Secret": secrets(overlay)}
    for workload in overlay.workloads:
        for kind, name in referenced(workload):
            assert name in there[kind], (workload["metadata"]["name"], kind)


def test_each_mount_has_its_volume(overlay: Overlay) -> None:
    """And each volume a mount."""
    for workload in overlay.workloads:
        volumes = {volume["name"] for volume in pod(workload).get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        mounts = {mount["name"] for item in containers(workload) for mount in item.get("volumeMounts", [])}
        assert mounts == volumes


def test_the_autoscaler_comes_with_its_own_user(overlay: Overlay) -> None:
    """Not with the rights of a worker."""
    (access,) = overlay.of_kind("TriggerAuthentication")
    targets = {
        target["parameter"]: (target["name"], target["key"]) for target in access["spec"]["secretTargetRef"]
    }
    assert targets == {
        "ca": (STRIMZI_CLUSTER_CA, "ca.crt"),
        "cert": ("dicom-ingest-keda", "user.crt"),
        "key": ("dicom-ingest-keda", "user.key"),
    }
    assert {name for name, _ in targets.values()} <= secrets(overlay)


@walled
def test_policies_are_about_pods_that_are_there(overlay: Overlay) -> None:
    """A policy that selects nothing protects nothing; one of a named port opens only what the pods name so."""
    policies = overlay.of_kind("NetworkPolicy")
    for policy in policies:
        selected = overlay.selected(labels_of(policy["spec"]["podSelector"]))
        assert selected
        for rule in policy["spec"].get("ingress", []):
            for port in rule["ports"]:
                assert any(port["port"] in named_ports(workload) for workload in selected)
        for direction, peers in (("Ingress", "ingress"), ("Egress", "egress")):
            assert peers not in policy["spec"] or direction in policy["spec"]["policyTypes"]
    first = next(item for item in policies if item["metadata"]["name"] == "dicom-ingest-nothing")
    assert {pod_labels(item)["app.kubernetes.io/component"] for item in overlay.selected(
        labels_of(first["spec"]["podSelector"])
    )} == {component(item) for item in overlay.workloads}  # fmt: skip
    assert set(first["spec"]) == {"podSelector", "policyTypes"}


@walled
def test_policies_let_pods_reach_the_brokers(overlay: Overlay) -> None:
    """On the port of the listener that the settings name, at the pods that Strimzi makes."""
    policies = {item["metadata"]["name"]: item for item in overlay.of_kind("NetworkPolicy")}
    brokers = policies["dicom-ingest-log"]["spec"]["egress"][0]
    (peer,) = brokers["to"]
    cluster = peer["podSelector"]["matchLabels"]["strimzi.io/cluster"]
    (port,) = brokers["ports"]
    (listener,) = overlay.one("Kafka", cluster)["spec"]["kafka"]["listeners"]
    assert port["port"] == listener["port"]


@walled
def test_policies_are_about_components_that_are_there(overlay: Overlay) -> None:
    """Each of ours has one that lets it do something."""
    chosen = [
        overlay.selected(labels_of(item["spec"]["podSelector"])) for item in overlay.of_kind("NetworkPolicy")
    ]
    own = {component(found[0]) for found in chosen if len(found) == 1}
    assert own == {component(item) for item in overlay.workloads}


def test_metrics_are_read_from_every_process(overlay: Overlay) -> None:
    """Receivers, workers, and the ledger where there is one."""
    for monitor in overlay.of_kind("PodMonitor"):
        selected = overlay.selected(labels_of(monitor["spec"]["selector"]))
        assert selected == overlay.workloads
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert all(endpoint["port"] in named_ports(item) for item in selected)
