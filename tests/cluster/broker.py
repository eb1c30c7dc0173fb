"""What stands where Strimzi's operator would: no registry that tests may ask has its images.

From the same objects of Strimzi's kinds that the overlay has, it makes what the operator would: a broker with their settings, a
certificate and rights for each KafkaUser, and each KafkaTopic. Names of Services, Secrets and principals are Strimzi's.
"""

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.cluster.images import KAFKA, OLD
from tests.support.kustomize import Manifest

NAME: Final = "dicom-ingest"
POD: Final = f"{NAME}-broker-0"
_BROKERS: Final = f"{NAME}-kafka-brokers"
_BOOTSTRAP: Final = f"{NAME}-kafka-bootstrap"
_SUPER: Final = (f"{NAME}-kafka", f"{NAME}-operator")
_LABELS: Final = {"strimzi.io/cluster": NAME, "strimzi.io/kind": "Kafka"}
_PROPERTIES: Final = {
    "node.id": "0",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "controller.quorum.bootstrap.servers": "127.0.0.1:9090",
    "inter.broker.listener.name": "TLS",
    "listeners": "CONTROLLER://127.0.0.1:9090,TLS://0.0.0.0:9093",
    "advertised.listeners": f"TLS://{POD}.{_BROKERS}.{NAME}.svc:9093",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,TLS:SSL",
    "log.dirs": "/data/log",
    "ssl.client.auth": "required",
    "ssl.keystore.type": "PEM",
    "ssl.keystore.location": "/etc/broker-tls/keystore.pem",
    "ssl.truststore.type": "PEM",
    "ssl.truststore.location": "/etc/broker-tls/ca.crt",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # The controller's listener is of loopback, and nobody is anybody there.
    "super.users": ";".join(["User:ANONYMOUS", *(f"User:CN={name}" for name in _SUPER)]),
}
# Run in a pod of the project's image, which has a client of Kafka.
_OPERATOR: Final = """
import json, time
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, KafkaAdminClient, ResourcePattern, ResourceType
from kafka.errors import KafkaError
wanted = json.load(open("/etc/wanted/wanted.json"))
while True:
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=wanted["servers"], security_protocol="SSL", ssl_cafile="/etc/user/ca.crt",
            ssl_certfile="/etc/user/user.crt", ssl_keyfile="/etc/user/user.key",
        )
        break
    except KafkaError as error:
        print("waiting:", error, flush=True)
        time.sleep(1)
admin.create_topics(wanted["topics"], wait_for_metadata=True)
made = admin.create_acls([
    ACL(
        "User:CN=" + rule["user"], "*", ACLOperation[rule["operation"].upper()], ACLPermissionType.ALLOW,
        ResourcePattern(ResourceType[rule["type"].upper()], rule["name"], ACLResourcePatternType.LITERAL),
    )
    for rule in wanted["rules"]
])
assert not made["failed"], made["failed"]
print("made", len(wanted["topics"]), "topics and", len(made["succeeded"]), "rules", flush=True)
"""
_OPERATION: Final = {"DescribeConfigs": "DESCRIBE_CONFIGS"}
_RESTRICTED: Final = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINED: Final = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def broker_objects(objects: Sequence[Manifest], folder: Path) -> list[Manifest]:
    """The broker and what its clients need, for the overlay's objects of Strimzi's kinds."""
    (kafka,) = _of_kind(objects, "Kafka")
    users = [found["metadata"]["name"] for found in _of_kind(objects, "KafkaUser")]
    authority = _Authority(folder)
    ca = authority.certificate
    properties = _PROPERTIES | {key: str(value) for key, value in kafka["spec"]["kafka"]["config"].items()}
    key, certificate = authority.issue(_SUPER[0])
    return [
        _secret(f"{NAME}-cluster-ca-cert", {"ca.crt": ca}),
        *(
            _secret(name, {"ca.crt": ca, "user.key": issued[0], "user.crt": issued[1]})
            for name in [*users, _SUPER[1]]
            for issued in [authority.issue(name)]
        ),
        _secret(f"{NAME}-broker-tls", {"ca.crt": ca, "keystore.pem": key + certificate}),
        _config_map(
            "broker", {"server.properties": "".join(f"{key}={properties[key]}\n" for key in properties)}
        ),
        _service(_BOOTSTRAP, {}),
        _service(_BROKERS, {"clusterIP": "None", "publishNotReadyAddresses": True}),
        _broker(),
        _config_map("wanted", {"wanted.json": json.dumps(_wanted(objects)), "make.py": _OPERATOR}),
        _operator(),
    ]


def _of_kind(objects: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [found for found in objects if found["kind"] == kind]


def _wanted(objects: Sequence[Manifest]) -> dict[str, Any]:
    """Topics and rights, as a client of Kafka asks for them."""
    topics = {
        found["metadata"]["name"]: {
            "num_partitions": found["spec"]["partitions"],
            "replication_factor": found["spec"]["replicas"],
            "configs": {key: _text(value) for key, value in found["spec"]["config"].items()},
        }
        for found in _of_kind(objects, "KafkaTopic")
    }
    rules = [
        {
            "user": found["metadata"]["name"],
            "type": rule["resource"]["type"],
            "name": rule["resource"]["name"],
            "operation": _OPERATION.get(operation, operation),
        }
        for found in _of_kind(objects, "KafkaUser")
        for rule in found["spec"]["authorization"]["acls"]
        for operation in rule["operations"]
    ]
    return {"servers": f"{_BOOTSTRAP}:9093", "topics": topics, "rules": rules}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _object(kind: str, name: str, version: str = "v1", **fields: Any) -> Manifest:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAME, "labels": _LABELS},
        **fields,
    }


def _secret(name: str, files: dict[str, bytes]) -> Manifest:
    return _object(
        "Secret", name, data={key: base64.b64encode(value).decode() for key, value in files.items()}
    )


def _config_map(name: str, files: dict[str, str]) -> Manifest:
    return _object("ConfigMap", name, data=files)


def _service(name: str, more: dict[str, Any]) -> Manifest:
    return _object(
        "Service", name, spec={"selector": _LABELS, "ports": [{"name": "tls", "port": 9093}], **more}
    )


def _broker() -> Manifest:
    container = {
        "name": "kafka",
        "image": KAFKA,
        "env": [{"name": "CLUSTER_ID", "value": "ZGljb20taW5nZXN0LXRyeQ"}],
        "ports": [{"name": "tls", "containerPort": 9093}],
        "readinessProbe": {"tcpSocket": {"port": "tls"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "securityContext": _CONTAINED,
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "settings", "mountPath": "/etc/broker"},
            {"name": "tls", "mountPath": "/etc/broker-tls"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod = {
        "nodeSelector": {"kubernetes.io/hostname": "node1"},  # where its disk is
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": f"{NAME}-receiver",
        "securityContext": _RESTRICTED,
        "containers": [container],
        "volumes": [
            {"name": "settings", "configMap": {"name": "broker"}},
            {"name": "tls", "secret": {"secretName": f"{NAME}-broker-tls"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}
    return _object(
        "StatefulSet", f"{NAME}-broker", "apps/v1",
        spec={
            "replicas": 1,
            "serviceName": _BROKERS,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    )  # fmt: skip


def _operator() -> Manifest:
    """Makes topics and rights, and ends."""
    container = {
        "name": "operator",
        "image": OLD,
        "command": ["python", "/etc/wanted/make.py"],
        "securityContext": _CONTAINED,
        "volumeMounts": [
            {"name": "wanted", "mountPath": "/etc/wanted"},
            {"name": "user", "mountPath": "/etc/user"},
        ],
    }
    made = _object(
        "Pod", "operator",
        spec={
            "restartPolicy": "OnFailure",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _RESTRICTED,
            "containers": [container],
            "volumes": [
                {"name": "wanted", "configMap": {"name": "wanted"}},
                {"name": "user", "secret": {"secretName": _SUPER[1]}},
            ],
        },
    )  # fmt: skip
    made["metadata"]["labels"] = {"app.kubernetes.io/name": "operator"}
    return made


class _Authority:
    """Signs certificates, as Strimzi's does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=cluster-ca", "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
        self.certificate = (folder / "ca.crt").read_bytes()
        names = [
            _BOOTSTRAP,
            f"{_BOOTSTRAP}.{NAME}",
            f"{_BOOTSTRAP}.{NAME}.svc",
            f"{POD}.{_BROKERS}.{NAME}.svc",
        ]
        (folder / "names").write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in names) + "\n")

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A private key and its certificate, as PEM."""
        key, request, certificate = (f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request
        )
        self._openssl("x509", "-req", "-in", request, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", certificate)  # fmt: skip
        return (self._folder / key).read_bytes(), (self._folder / certificate).read_bytes()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60, cwd=self._folder)
