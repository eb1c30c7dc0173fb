"""The log's objects say what the settings promise: brokers, topics, rights, and the autoscaler that looks at them."""

from ingest.contract.kafka import topic_configuration
from ingest.contract.settings import Settings
from tests.support.kustomize import Manifest, Overlay


def cluster(overlay: Overlay) -> Manifest:
    """The Kafka of an overlay."""
    (found,) = overlay.of_kind("Kafka")
    return found


def brokers(overlay: Overlay) -> int:
    """How many there are."""
    return sum(
        pool["spec"]["replicas"]
        for pool in overlay.of_kind("KafkaNodePool")
        if "broker" in pool["spec"]["roles"]
    )


def test_clients_find_the_brokers(overlay: Overlay, settings: Settings) -> None:
    """At the Service that Strimzi makes, on a listener with TLS and client certificates."""
    kafka = cluster(overlay)
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    assert listener["tls"] is True
    assert listener["authentication"] == {"type": "tls"}
    assert settings.kafka.security_protocol == "SSL"
    name = f"{kafka['metadata']['name']}-kafka-bootstrap"
    assert settings.kafka.bootstrap_servers == (f"{name}:{listener['port']}",)


def test_everything_of_the_cluster_says_so(overlay: Overlay) -> None:
    """An operator overlooks what has another cluster's label."""
    name = cluster(overlay)["metadata"]["name"]
    for item in overlay.of_kind("KafkaNodePool", "KafkaTopic", "KafkaUser"):
        assert item["metadata"]["labels"]["strimzi.io/cluster"] == name


def test_controllers_can_lose_one_where_there_are_replicas(overlay: Overlay, settings: Settings) -> None:
    """A quorum is odd; what is acknowledged is on as many brokers as promised, and one may go."""
    pools = overlay.of_kind("KafkaNodePool")
    controllers = sum(pool["spec"]["replicas"] for pool in pools if "controller" in pool["spec"]["roles"])
    assert controllers % 2 == 1
    assert brokers(overlay) >= settings.kafka.replication_factor
    if overlay.name != "try":
        assert controllers >= 3
        assert brokers(overlay) > settings.kafka.min_insync_replicas
        assert cluster(overlay)["spec"]["kafka"]["rack"]["topologyKey"] == "topology.kubernetes.io/zone"
    for pool in pools:
        for volume in pool["spec"]["storage"]["volumes"]:
            assert volume["deleteClaim"] is (overlay.name == "try")


def test_topics_are_as_the_settings_promise(overlay: Overlay, settings: Settings) -> None:
    """As `dicom-ingest topics create` makes them: else receivers and workers refuse to start."""
    kafka = settings.kafka
    assert overlay.names("KafkaTopic") == {kafka.instance_topic, kafka.outcome_topic, kafka.commitment_topic}
    for topic in overlay.of_kind("KafkaTopic"):
        spec = topic["spec"]
        assert spec["partitions"] == settings.log.partitions
        assert spec["replicas"] == kafka.replication_factor
        found = {
            key: str(value).lower() if value is False else str(value) for key, value in spec["config"].items()
        }
        assert found == topic_configuration(kafka)


def test_brokers_take_what_topics_take(overlay: Overlay, settings: Settings) -> None:
    """Replicas can fetch the largest batch, and offsets outlast the records that they count."""
    config = cluster(overlay)["spec"]["kafka"]["config"]
    largest = int(topic_configuration(settings.kafka)["max.message.bytes"])
    assert config["message.max.bytes"] >= largest
    assert config["replica.fetch.max.bytes"] > largest
    assert config["offsets.retention.minutes"] * 60 > settings.kafka.retention
    assert config["min.insync.replicas"] == settings.kafka.min_insync_replicas
    assert config["default.replication.factor"] == settings.kafka.replication_factor
    assert config["offsets.topic.replication.factor"] == settings.kafka.replication_factor
    assert config["auto.create.topics.enable"] is False
    assert config["unclean.leader.election.enable"] is False


def rights(overlay: Overlay, settings: Settings) -> dict[str, dict[str, set[str]]]:
    """Of each user: resource -> operations; resources by what they are to the settings."""
    kafka = settings.kafka
    meaning = {
        ("topic", kafka.instance_topic): "instances",
        ("topic", kafka.outcome_topic): "outcomes",
        ("topic", kafka.commitment_topic): "commitments",
        ("group", kafka.group): "group",
    }
    found: dict[str, dict[str, set[str]]] = {}
    for user in overlay.of_kind("KafkaUser"):
        assert user["spec"]["authentication"] == {"type": "tls"}
        of_user = found.setdefault(user["metadata"]["name"].removeprefix("dicom-ingest-"), {})
        for acl in user["spec"]["authorization"]["acls"]:
            resource = acl["resource"]
            assert resource["patternType"] == "literal"
            of_user[meaning[resource["type"], resource["name"]]] = set(acl["operations"])
    return found


def test_each_user_has_what_it_needs_and_no_more(overlay: Overlay, settings: Settings) -> None:
    """As ingest/log/README.md's paragraph on access has it."""
    see = {"Describe", "DescribeConfigs"}
    ledger = {
        "ledger-user": {
            "instances": {"Read"},  # as `find` and `report` do, and the group's commits
            "outcomes": {"Read"},
            "commitments": {"Read"},
            "group": {"Describe"},
        }
    }
    assert rights(overlay, settings) == {
        "receiver": {
            "instances": see | {"Write"},
            "outcomes": see,
            "commitments": see | {"Read", "Write"},
            "group": {"Describe"},
        },
        "worker": {
            "instances": see | {"Read"},
            "outcomes": see | {"Write"},
            "commitments": see | {"Write"},
            "group": {"Read"},
        },
        "keda": {"instances": {"Describe"}, "group": {"Describe"}},
    } | (ledger if settings.ledger.database else {})


def test_the_autoscaler_looks_at_the_workers_backlog(overlay: Overlay, settings: Settings) -> None:
    """The group and topic that workers read, from the beginning as they do."""
    (scaled,) = overlay.of_kind("ScaledObject")
    (trigger,) = [item for item in scaled["spec"]["triggers"] if item["type"] == "kafka"]
    metadata = trigger["metadata"]
    # KEDA's operator, in a namespace of its own, looks the name up: one without a namespace it would look for beside itself.
    (server,) = settings.kafka.bootstrap_servers
    name, _, port = server.partition(":")
    assert metadata["bootstrapServers"] == f"{name}.{scaled['metadata']['namespace']}.svc:{port}"
    assert metadata["topic"] == settings.kafka.instance_topic
    assert metadata["consumerGroup"] == settings.kafka.group
    assert metadata["offsetResetPolicy"] == "earliest"
    assert metadata["limitToPartitionsWithLag"] == "true"
    assert metadata["allowIdleConsumers"] == metadata["excludePersistentLag"] == "false"
    assert metadata["scaleToZeroOnInvalidOffset"] == "false"
    assert trigger["authenticationRef"]["name"] in overlay.names("TriggerAuthentication")


def test_the_autoscaler_scales_workers_and_nobody_else_does(overlay: Overlay, settings: Settings) -> None:
    """Never more than there are partitions, and with what is there while Kafka does not answer it."""
    (scaled,) = overlay.of_kind("ScaledObject")
    spec = scaled["spec"]
    target = spec["scaleTargetRef"]
    assert target.get("kind", "Deployment") == "Deployment"
    assert "replicas" not in overlay.one("Deployment", target["name"])["spec"]
    assert target["name"] == "dicom-ingest-worker"
    assert not overlay.of_kind("HorizontalPodAutoscaler")
    assert spec["minReplicaCount"] < spec["maxReplicaCount"] <= settings.log.partitions
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]
    # A worker that was told to stop is gone before the next one is.
    grace = overlay.ours("worker")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert overlay.name == "try" or down["stabilizationWindowSeconds"] > grace
