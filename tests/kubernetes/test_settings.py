"""The settings in ConfigMaps are settings: read by the loader of the program itself, and equal to what the objects around say."""

import re
from pathlib import Path
from typing import Any

from ingest.contract.kafka import is_single_copy
from ingest.contract.settings import Settings
from ingest.contract.settings_sources import CONFIG_VARIABLE, ENVIRONMENT_PREFIX
from tests.support.kustomize import Overlay, containers, named_ports, pod
from workers.worker import LAST_COMMIT

# Seconds from the last answer until a process is gone: clients closed, threads ended; as `serve` gives its children.
CLOSING = 10.0


def test_every_setting_is_read(overlay: Overlay, settings: Settings) -> None:
    """An unknown name or a wrong value would stop every pod; each variable that is given has its effect."""
    for name, value in overlay.settings_map().items():
        found: Any = settings
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if name == CONFIG_VARIABLE:
            continue
        for part in path:
            found = getattr(found, part)
        # Where it is mounted is below another root here.
        assert as_text(found).endswith(value) if name.endswith("_FILE") else as_text(found) == value, name


def as_text(value: object) -> str:
    """As the environment has it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_pods_read_these_settings(overlay: Overlay) -> None:
    """All of them, from where the file is mounted; beside them nothing is set."""
    for component in ("receiver", "worker"):
        (container,) = containers(overlay.ours(component))
        assert container["args"] == [component]
        assert "env" not in container
        mount = next(item for item in container["volumeMounts"] if item["name"] == "settings")
        assert overlay.settings_map()[CONFIG_VARIABLE] == f"{mount['mountPath']}/dicom-ingest.toml"
        folders = {item["mountPath"] for item in container["volumeMounts"] if not item.get("readOnly")}
        assert overlay.settings_map()["DICOM_INGEST_DATA"] in folders


def test_ports_are_those_of_the_settings(overlay: Overlay, settings: Settings) -> None:
    """Admin ports count from the receiver's: a worker in a pod of its own is the first."""
    receiver, worker = named_ports(overlay.ours("receiver")), named_ports(overlay.ours("worker"))
    assert receiver["dicom"] == settings.receiver.port
    host, _, admin = overlay.settings_map()["DICOM_INGEST_ADMIN__LISTEN"].rpartition(":")
    assert settings.receiver.host == host == "0.0.0.0"
    assert receiver["admin"] == int(admin)
    assert worker["admin"] == int(admin) + 1


def test_a_tls_port_has_its_listener_and_certificate(overlay: Overlay) -> None:
    """And the other way round."""
    found = re.search(r"(?ms)^\[listeners\..*?(?=^\[|\Z)", overlay.settings_file())
    port = named_ports(overlay.ours("receiver")).get("dicom-tls")
    assert (found is None) == (port is None)
    if found is not None:
        assert f"port = {port}" in found[0]
        (container,) = containers(overlay.ours("receiver"))
        mount = next(item["mountPath"] for item in container["volumeMounts"] if item["name"] == "dicom-tls")
        files = re.findall(r'_file = "(.*)/(.*?)"', found[0])
        assert {folder for folder, _ in files} == {mount}
        assert {name for _, name in files} == {"tls.crt", "tls.key", "ca.crt"}  # as cert-manager has them


def test_certificates_are_where_the_settings_look(overlay: Overlay) -> None:
    """Of the brokers' authority, and of each side's own user."""
    given = overlay.settings_map()
    authority = Path(given["DICOM_INGEST_KAFKA__SSL_CA_FILE"])
    certificate = Path(given["DICOM_INGEST_KAFKA__SSL_CERTIFICATE_FILE"])
    key = Path(given["DICOM_INGEST_KAFKA__SSL_KEY_FILE"])
    assert (authority.name, certificate.name, key.name) == (
        "ca.crt",
        "user.crt",
        "user.key",
    )  # as Strimzi has them
    assert certificate.parent == key.parent
    for component in ("receiver", "worker"):
        workload = overlay.ours(component)
        (container,) = containers(workload)
        mounts = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
        secrets = {
            item["name"]: item["secret"]["secretName"]
            for item in pod(workload)["volumes"]
            if "secret" in item
        }
        assert secrets[mounts[str(authority.parent)]] == "dicom-ingest-cluster-ca-cert"
        assert secrets[mounts[str(certificate.parent)]] == f"dicom-ingest-{component}"


def test_pods_have_longer_to_end_than_they_take(overlay: Overlay, settings: Settings) -> None:
    """The kubelet's SIGKILL comes after the drain's own deadline, last answers and last commit, by construction."""
    receiver, worker = pod(overlay.ours("receiver")), pod(overlay.ours("worker"))
    pause = receiver["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = settings.receiver.drain_timeout + settings.kafka.delivery_timeout
    assert receiver["terminationGracePeriodSeconds"] >= pause + drain + CLOSING
    assert "lifecycle" not in worker["containers"][0]
    assert worker["terminationGracePeriodSeconds"] >= settings.worker.stop_timeout + LAST_COMMIT + CLOSING
    for component in ("receiver", "worker"):
        workload = overlay.ours(component)
        assert workload["spec"]["progressDeadlineSeconds"] > pod(workload)["terminationGracePeriodSeconds"]


def test_only_trying_is_with_a_single_copy(overlay: Overlay, settings: Settings) -> None:
    """A hospital's images are with three brokers."""
    assert is_single_copy(settings) == (overlay.name == "try")


def test_a_worker_can_end_the_frame_in_work(settings: Settings, overlay: Overlay) -> None:
    """Outside of trying, stopping waits for the longest that one frame may take."""
    if overlay.name != "try":
        assert settings.worker.stop_timeout > settings.worker.codec_timeout


def test_the_store_of_trying_is_the_one_that_comes_with_it(overlay: Overlay, settings: Settings) -> None:
    """At its Service's name and port."""
    if overlay.name == "try":
        service = overlay.one("Service", "dicom-ingest-minio")
        address = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
        assert settings.store.urls == (f"s3://images?endpoint={address}",)
    else:
        assert all(url.startswith("s3://") and "http://" not in url for url in settings.store.urls)
