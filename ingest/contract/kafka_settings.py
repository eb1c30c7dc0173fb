"""Settings of Kafka, as a log between many machines: how it is reached, and what it promises."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from ingest.contract.settings_base import MiB, Section, TopicName, split_list


class KafkaSettings(Section):
    """How Kafka is reached and what it promises; only with log.kind = kafka."""

    bootstrap_servers: Annotated[tuple[str, ...], BeforeValidator(split_list), Field(min_length=1)] = Field(
        ("127.0.0.1:9092",), description="HOST:PORT of some brokers; the others are learnt from them."
    )
    instance_topic: TopicName = Field("dicom-instances", description="Instances on their way to workers.")
    outcome_topic: TopicName = Field("dicom-outcomes", description="What workers announce of them.")
    commitment_topic: TopicName = Field(
        "dicom-commitments", description="Storage commitment, with commitment.enabled."
    )
    replication_factor: int = Field(
        3, ge=1, description="Brokers that hold each record; the topics must have it."
    )
    min_insync_replicas: int = Field(
        2, ge=1, description="Of them, those that must have it before success is said."
    )
    retention: float = Field(
        7 * 86400.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="For `topics create`. Must outlast the longest time that workers may stand still.",
    )
    retention_limit: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Part of the topic's retention, by age or size, that may wait for workers; past it A700H.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How clients talk to the brokers; SSL stands for TLS."
    )
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="With a SASL protocol."
    )
    sasl_username: str = Field("", description="With a SASL protocol.")
    sasl_password: SecretStr = Field(
        SecretStr(""), description="With a SASL protocol; never shown. Best given by the environment."
    )
    ssl_ca_file: str = Field(
        "", description="PEM file of the authorities that sign brokers; empty: the system's."
    )
    ssl_certificate_file: str = Field(
        "", description="PEM file of our certificate, where brokers ask for it."
    )
    ssl_key_file: str = Field("", description="PEM file of its private key.")
    ssl_key_password: SecretStr = Field(SecretStr(""), description="Of the private key; never shown.")
    delivery_timeout: float = Field(
        20.0,
        ge=1,
        json_schema_extra={"unit": "s"},
        description="Until a record that no broker acknowledges fails, and its instance gets A700H.",
    )
    linger: float = Field(
        0.0,
        ge=0,
        le=1,
        json_schema_extra={"unit": "s"},
        description="How long a record waits for others to share its request; those under way gather them anyway.",
    )
    group: TopicName = Field("dicom-ingest", description="Consumer group of the workers.")
    group_instance_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,249}$",
        description="Stable name of one worker, as of a StatefulSet's pod: its partitions wait for its restart.",
    )
    session_timeout: float = Field(
        30.0,
        ge=6,
        le=1800,
        json_schema_extra={"unit": "s"},
        description="Until the partitions of a worker that is not heard of go to the others.",
    )
    poll_interval: float = Field(
        300.0,
        ge=6,
        le=3600,
        json_schema_extra={"unit": "s"},
        description="A worker that is alive and asks for nothing so long has its partitions taken; as long waits a rebalance for a member.",
    )
    fetch_maximum: int = Field(
        8 * MiB,
        ge=1 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Of one answer of a broker, and of records read ahead; a worker takes some four times it a broker.",
    )
