"""The overlay on the cluster's nodes, and what scenarios do to it and see of it."""

import hashlib
import json
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import obstore

from tests.cluster import broker
from tests.cluster.images import CLUSTER, HERE, make_images
from tests.cluster.modalities import Modalities, enter_network
from tests.cluster.server import Cluster
from tests.cluster.timeline import Timeline
from tests.support.buckets import store_settings, url_of
from tests.support.crash.watch import is_object, uid_of
from tests.support.kustomize import Manifest, render
from workers.storage.bucket import Bucket
from workers.storage.part10 import HEAD, decode_head

NAME: Final = "dicom-ingest"
_NODES: Final = ("10.245.0.11", "10.245.0.12")
_STRIMZI: Final = ("Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser")
_PATIENCE: Final = 420.0  # s that anything may take on a loaded machine


class Deployment:
    """The pipeline in pods, with modalities that can send to it."""

    def __init__(self) -> None:
        self._cluster = Cluster(nodes=len(_NODES))
        self.kubectl = self._cluster.kubectl

    def __enter__(self) -> Self:
        images = make_images()
        objects = render(HERE / "overlay")
        self._cluster.__enter__()
        try:
            self._cluster.load(*images)
            enter_network("dicom-ingest-cluster-modalities")
            self._apply(objects)
            self._reach()
        except BaseException:
            self.tell()
            self._cluster.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.modalities.end()
            self.timeline.end()
        finally:
            self._cluster.__exit__(None, None, None)

    def _apply(self, objects: list[Manifest]) -> None:
        self._cluster.define()
        keda = self.kubectl("kustomize", str(self._keda()))
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=keda)
        self._cluster.apply([found for found in objects if found["kind"] == "Namespace"])
        self._cluster.apply(self._volumes(objects))
        key = secrets.token_hex(20)
        self.kubectl(
            "-n", NAME, "create", "secret", "generic", "dicom-ingest-store",
            "--from-literal=AWS_ACCESS_KEY_ID=trial", f"--from-literal=AWS_SECRET_ACCESS_KEY={key}",
        )  # fmt: skip
        self._credentials = {"AWS_ACCESS_KEY_ID": "trial", "AWS_SECRET_ACCESS_KEY": key}
        with tempfile.TemporaryDirectory() as folder:
            stand_in = broker.broker_objects(objects, Path(folder))
        self._cluster.apply([found for found in objects if found["kind"] == "PriorityClass"])
        self._cluster.apply(stand_in)
        self.kubectl(
            "-n", NAME, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/operator", "--timeout=180s"
        )
        self._cluster.apply([found for found in objects if found["kind"] != "Namespace"])
        for workload in ("statefulset/dicom-ingest-minio", "deployment/dicom-ingest-receiver"):
            self.kubectl("-n", NAME, "rollout", "status", workload, "--timeout=180s")
        self.kubectl("-n", "keda", "rollout", "status", "deployment/keda-operator", "--timeout=180s")

    @staticmethod
    def _keda() -> Path:
        folder = CLUSTER / "keda" / "cluster"
        folder.mkdir(exist_ok=True)
        (folder / "kustomization.yaml").write_text((HERE / "node" / "keda.yaml").read_text())
        return folder

    @staticmethod
    def _volumes(objects: Sequence[Manifest]) -> list[Manifest]:
        """A folder of this machine for the claim of the broker and of each StatefulSet."""
        made = []
        for claim in ["data-dicom-ingest-broker-0", "data-dicom-ingest-minio-0"]:
            folder = CLUSTER / "run" / "volumes" / claim
            folder.mkdir(parents=True)
            os.chown(folder, 10001, 10001)
            made.append(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": claim},
                    "spec": {
                        "capacity": {"storage": "20Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "hostPath": {"path": str(folder)},
                        "claimRef": {"namespace": NAME, "name": claim},
                    },
                }
            )
        return made

    def _reach(self) -> None:
        service = self.get("service", NAME)["spec"]
        (port,) = service["ports"]
        self.modalities = Modalities(_NODES, port["nodePort"], service["healthCheckNodePort"])
        self.ledger = self.modalities.ledger
        self.timeline = Timeline(self)

    def _bucket(self) -> Any:
        """Behind the pipeline's back, at the pod's own address, which changes with the pod."""
        os.environ |= self._credentials  # which each test begins without
        address = self.get("pod", "dicom-ingest-minio-0")["status"]["podIP"]
        return Bucket(url_of(f"s3://images?endpoint=http://{address}:9000"), store_settings())._client

    def get(self, *arguments: str) -> Manifest:
        """What `kubectl get` says of objects in the namespace."""
        found: Manifest = json.loads(self.kubectl("-n", NAME, "get", *arguments, "-o", "json"))
        return found

    def pods(self, component: str) -> list[Manifest]:
        """The pods of receivers or workers that are not on their way out."""
        found = self.get("pods", "-l", f"app.kubernetes.io/component={component}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, component: str) -> int:
        """How many of them are ready."""
        return sum(is_ready(pod) for pod in self.pods(component))

    def gone(self, component: str) -> bool:
        """Whether no pod of it is on its way out."""
        found = self.get("pods", "-l", f"app.kubernetes.io/component={component}")["items"]
        return not any("deletionTimestamp" in pod["metadata"] for pod in found)

    def until(self, condition: Callable[[], bool], what: str, timeout: float = _PATIENCE) -> None:
        """Wait for something to be so."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come"
            time.sleep(1)

    def acknowledged(self, count: int) -> None:
        """Wait until so many more instances are."""
        target = len(self.ledger.acknowledged) + count
        self.until(lambda: len(self.ledger.acknowledged) >= target, f"{count} more acknowledgements")

    def stored(self) -> dict[str, list[str]]:
        """The keys under which each instance is."""
        found: dict[str, list[str]] = {}
        for chunk in obstore.list(self._bucket()):
            for meta in chunk:
                if is_object(meta["path"]):
                    found.setdefault(uid_of(meta["path"]), []).append(meta["path"])
        return found

    def settle(self) -> None:
        """Let senders rest, and wait until all that was acknowledged is stored."""
        self.modalities.rest()
        self.until(
            lambda: self.ledger.acknowledged <= set(self.stored()), "the store of what was acknowledged", 900
        )

    def check_account(self) -> None:
        """Every acknowledged instance is in the store, once, as it was sent; and nothing else is."""
        stored = self.stored()
        missing = self.ledger.acknowledged - set(stored)
        assert not missing, f"{len(missing)} of {len(self.ledger.acknowledged)} lost: {sorted(missing)[:5]}"
        assert set(stored) <= set(self.ledger.tried), "something that nobody sent"
        twice = {uid: keys for uid, keys in stored.items() if len(keys) > 1}
        assert not twice, f"stored twice: {twice}"
        bucket = self._bucket()
        for uid, (key,) in stored.items():
            head = decode_head(bytes(obstore.get_range(bucket, key, start=0, length=HEAD)))
            sent = hashlib.sha256(self.ledger.tried[uid].data_set()).hexdigest()
            assert head.manifest.source_digest == sent, f"{uid} is altered"

    def kill(self, component: str) -> str:
        """SIGKILL to the process of one pod; the pod's name."""
        pod = next(pod for pod in self.pods(component) if is_ready(pod))
        os.kill(first_process(pod), signal.SIGKILL)
        name: str = pod["metadata"]["name"]
        return name

    def tell(self) -> None:
        """Print what pods say, for whoever looks why it failed."""
        for arguments in (
            ["get", "pods", "-A", "-o", "wide"],
            ["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ):
            print(self.kubectl(*arguments)[-6000:])  # noqa: T201 - pytest shows it when a test fails


def is_ready(pod: Manifest) -> bool:
    """Whether it is."""
    return any(
        found["type"] == "Ready" and found["status"] == "True"
        for found in pod["status"].get("conditions", [])
    )


def first_process(pod: Manifest) -> int:
    """The id on this machine of the process that is the first of the pod's container.

    Raises:
        LookupError: It has none now.
    """
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines: dict[str, Any] = dict(
                line.split(":", 1) for line in status.read_text().splitlines() if ":" in line
            )
            if lines["NSpid"].split()[1:] == ["1"] and container in (status.parent / "cgroup").read_text():
                return int(status.parent.name)
        except (OSError, KeyError):
            continue  # it has ended
    raise LookupError(container)
