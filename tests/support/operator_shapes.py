"""Shapes of the objects of operators whose schemas take long to make: the fields that our manifests use, and no others.

They find a misspelt field, a wrong type and a missing part, and are narrower than the operators' definitions, to which
`make k8s-check` holds the same objects. What the operators refuse beyond these, such as a Kafka setting that Strimzi keeps to itself, is not covered.
"""

from typing import Any, Final

Schema = dict[str, Any]

_TEXT: Final = {"type": "string", "minLength": 1}
_FLAG: Final = {"type": "boolean"}
_COUNT: Final = {"type": "integer", "minimum": 1}
_QUANTITY: Final = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?$"}
_DURATION: Final = {"type": "string", "pattern": r"^([0-9]+(ms|[smh]))+$"}
_STRINGS: Final = {"type": "object", "additionalProperties": _TEXT}


def _table(*required: str, **fields: Schema) -> Schema:
    """An object of these fields; the names in ``required`` must be there."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


def _one_of(*values: str) -> Schema:
    return {"enum": list(values)}


_METADATA: Final = _table(
    "name", "namespace", name=_TEXT, namespace=_TEXT, labels=_STRINGS, annotations=_STRINGS
)
_OF_CLUSTER: Final = {
    **_METADATA,
    "required": ["name", "namespace", "labels"],
    "properties": {
        **_METADATA["properties"],
        "labels": {"type": "object", "required": ["strimzi.io/cluster"], "additionalProperties": _TEXT},
    },
}
_AMOUNTS: Final = {"type": "object", "additionalProperties": _QUANTITY}
_CONFIGURATION: Final = {
    "type": "object",
    "additionalProperties": {"type": ["string", "integer", "boolean", "number"]},
}


def _object(api_version: str, kind: str, spec: Schema, metadata: Schema = _METADATA) -> Schema:
    return _table(
        "apiVersion", "kind", "metadata", "spec",
        apiVersion={"const": api_version}, kind={"const": kind}, metadata=metadata, spec=spec,
    )  # fmt: skip


_NODE_POOL: Final = _table(
    "replicas", "roles", "storage", "resources",
    replicas=_COUNT,
    roles=_list(_one_of("controller", "broker")),
    storage=_table(
        "type", "volumes",
        type=_one_of("jbod"),
        volumes=_list(
            _table(
                "id", "type", "size", "deleteClaim",
                id={"type": "integer", "minimum": 0},
                type=_one_of("persistent-claim"),
                size=_QUANTITY,
                deleteClaim=_FLAG,
                kraftMetadata=_one_of("shared"),
            )
        ),
    ),
    resources=_table("requests", "limits", requests=_AMOUNTS, limits=_AMOUNTS),
    jvmOptions={"type": "object", "propertyNames": {"enum": ["-Xms", "-Xmx"]}},
    template=_table(
        "pod", pod=_table(priorityClassName=_TEXT, terminationGracePeriodSeconds=_COUNT)
    ),
)  # fmt: skip
_KAFKA: Final = _table(
    "kafka", "entityOperator",
    kafka=_table(
        "version", "metadataVersion", "listeners", "authorization", "config",
        version={"type": "string", "pattern": r"^4\.\d+\.\d+$"},
        metadataVersion={"type": "string", "pattern": r"^4\.\d+-IV\d+$"},
        listeners=_list(
            _table(
                "name", "port", "type", "tls",
                name={"type": "string", "pattern": "^[a-z0-9]{1,11}$"},
                port={"type": "integer", "minimum": 9092},
                type=_one_of("internal"),
                tls=_FLAG,
                authentication=_table("type", type=_one_of("tls", "scram-sha-512")),
            )
        ),
        authorization=_table("type", type=_one_of("simple")),
        rack=_table("topologyKey", topologyKey=_TEXT),
        config=_CONFIGURATION,
    ),
    entityOperator=_table("topicOperator", "userOperator", topicOperator=_table(), userOperator=_table()),
)  # fmt: skip
_TOPIC: Final = _table(
    "partitions", "replicas", "config", partitions=_COUNT, replicas=_COUNT, config=_CONFIGURATION
)
_USER: Final = _table(
    "authentication", "authorization",
    authentication=_table("type", type=_one_of("tls", "scram-sha-512")),
    authorization=_table(
        "type", "acls",
        type=_one_of("simple"),
        acls=_list(
            _table(
                "resource", "operations",
                resource=_table(
                    "type", "name", "patternType",
                    type=_one_of("topic", "group", "cluster", "transactionalId"),
                    name=_TEXT,
                    patternType=_one_of("literal", "prefix"),
                ),
                operations=_list(_one_of("Describe", "DescribeConfigs", "Read", "Write")),
            )
        ),
    ),
)  # fmt: skip
_POD_MONITOR: Final = _table(
    "selector", "podMetricsEndpoints",
    selector=_table("matchLabels", matchLabels=_STRINGS),
    podTargetLabels=_list(_TEXT),
    podMetricsEndpoints=_list(
        _table(
            "port", "path",
            port=_TEXT, path={"const": "/metrics"}, interval=_DURATION, scrapeTimeout=_DURATION,
        )
    ),
)  # fmt: skip

_STRIMZI: Final = "kafka.strimzi.io/v1"
_OPERATOR: Final = "monitoring.coreos.com/v1"
SHAPES: Final[dict[tuple[str, str], Schema]] = {
    ("metadata", ""): _METADATA,
    (_STRIMZI, "Kafka"): _object(_STRIMZI, "Kafka", _KAFKA),
    (_STRIMZI, "KafkaNodePool"): _object(_STRIMZI, "KafkaNodePool", _NODE_POOL, _OF_CLUSTER),
    (_STRIMZI, "KafkaTopic"): _object(_STRIMZI, "KafkaTopic", _TOPIC, _OF_CLUSTER),
    (_STRIMZI, "KafkaUser"): _object(_STRIMZI, "KafkaUser", _USER, _OF_CLUSTER),
    (_OPERATOR, "PodMonitor"): _object(_OPERATOR, "PodMonitor", _POD_MONITOR),
}
