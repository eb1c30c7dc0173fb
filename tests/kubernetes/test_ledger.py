"""The ledger, where an overlay has it: its place, its port, and who knows which secret."""

import pytest

from ingest.contract.settings import Settings
from ingest.contract.settings_sources import CONFIG_VARIABLE
from tests.support.kustomize import Overlay, containers, named_ports, overlays_with, pod, rendered

CLOSING = 10.0  # s; as of the other processes
TRANSACTION = 30.0  # s; the ledger's own limit of an answer of Kafka, the longest that it waits within a turn

kept = pytest.mark.parametrize("overlay", overlays_with("ledger"), indirect=True)


def secrets_of(overlay: Overlay, component: str) -> dict[str, bool]:
    """What its environment is filled from, and whether it starts without."""
    (container,) = containers(overlay.ours(component))
    found = [source["secretRef"] for source in container["envFrom"] if "secretRef" in source]
    return {item["name"]: item.get("optional", False) for item in found}


def test_an_overlay_names_its_database_if_it_has_a_ledger() -> None:
    """And only then: a ledger without would keep a file that goes with its pod."""
    assert overlays_with("ledger") == ["regional"]
    for name in ("try", "hospital"):
        assert "DICOM_INGEST_LEDGER__DATABASE" not in rendered(name).settings_map()


@kept
def test_it_keeps_a_database_of_many_machines(overlay: Overlay, settings: Settings) -> None:
    """Whose password is not in the address."""
    assert settings.ledger.database.startswith("postgresql://")
    assert ":" not in settings.ledger.database.removeprefix("postgresql://").partition("@")[0]
    assert containers(overlay.ours("ledger"))[0]["args"] == ["ledger", "run"]


@kept
def test_its_port_is_behind_the_last_worker(overlay: Overlay, settings: Settings) -> None:
    """As the process counts."""
    receiver = named_ports(overlay.ours("receiver"))["admin"]
    assert named_ports(overlay.ours("ledger")) == {"admin": receiver + 1 + settings.log.partitions}


@kept
def test_it_reads_the_settings_of_the_others(overlay: Overlay) -> None:
    """From where they are mounted, with the certificates where these say."""
    given = overlay.settings_map()
    (container,) = containers(overlay.ours("ledger"))
    mounts = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
    for name in (CONFIG_VARIABLE, *(key for key in given if key.endswith("_FILE"))):
        assert given[name].rpartition("/")[0] in mounts
    assert {"configMapRef": {"name": settings_name(overlay, "worker")}} in container["envFrom"]
    volumes = {item["name"]: item for item in pod(overlay.ours("ledger"))["volumes"]}
    user = volumes[mounts["/etc/kafka/user"]]["secret"]["secretName"]
    assert user == "dicom-ingest-ledger-user"
    assert user in overlay.names("KafkaUser")


def settings_name(overlay: Overlay, component: str) -> str:
    """The ConfigMap of its environment."""
    (container,) = containers(overlay.ours(component))
    return str(container["envFrom"][0]["configMapRef"]["name"])


@kept
def test_each_knows_the_secrets_that_it_needs(overlay: Overlay) -> None:
    """Workers make the hashes and never see the database; receivers, whom the network reaches, know none."""
    assert secrets_of(overlay, "ledger") == {
        "dicom-ingest-store": True,
        "dicom-ingest-ledger": False,
        "dicom-ingest-ledger-key": False,
    }
    assert secrets_of(overlay, "worker") == {"dicom-ingest-store": True, "dicom-ingest-ledger-key": False}
    assert secrets_of(overlay, "receiver") == {}


@kept
def test_it_has_longer_to_end_than_a_turn_takes(overlay: Overlay) -> None:
    """Else each rollout would end in a SIGKILL."""
    assert pod(overlay.ours("ledger"))["terminationGracePeriodSeconds"] >= TRANSACTION + CLOSING


@kept
def test_its_probes_ask_what_those_of_workers_ask(overlay: Overlay) -> None:
    """Liveness the event loop alone."""
    (ledger,), (worker,) = containers(overlay.ours("ledger")), containers(overlay.ours("worker"))
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert ledger[probe] == worker[probe]
