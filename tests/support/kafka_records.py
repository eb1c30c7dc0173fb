"""Uploads on a real instance topic without a receiver, and the settings with which workers find them."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
from kafka import KafkaProducer

from ingest.contract.identifiers import UploadId, partition_of
from ingest.contract.kafka import MAXIMUM_MESSAGE, client_options
from ingest.contract.kafka_topics import create_topics
from ingest.contract.records import MAX_PAYLOAD, Instance, Kind, Place, encode_header
from ingest.contract.settings import Settings
from ingest.contract.settings_sources import load_settings
from tests.support.kafka_servers import KafkaServers

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def kafka_settings(
    kafka: KafkaServers,
    folder: Path,
    topic: str,
    *,
    partitions: int = 4,
    client: dict[str, Any] | None = None,
    **tables: dict[str, Any],
) -> tuple[Settings, Path]:
    """Settings of a log with topics of its own, which are made, and the file that says the same.

    ``client``: further ones of the table kafka.
    """
    values: dict[str, dict[str, Any]] = {
        "log": {"kind": "kafka", "allow_single_copy": True, "partitions": partitions},
        "kafka": {
            "bootstrap_servers": list(kafka.bootstrap_servers),
            "instance_topic": f"{topic}-instances",
            "outcome_topic": f"{topic}-outcomes",
            "replication_factor": 1,
            "min_insync_replicas": 1,
            "group": topic,
            "session_timeout": 6,
            **(client or {}),
        },
        "worker": {"checkpoint_interval": 0.1},
    }
    for table, keys in tables.items():
        values[table] = values.get(table, {}) | keys
    lines = [f'data = "{folder / "data"}"']
    for table, keys in values.items():
        lines += [f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]
    file = folder / "config.toml"
    file.write_text("\n".join(lines) + "\n")
    settings = load_settings(file).settings
    settings.data.mkdir(exist_ok=True)
    create_topics(settings)
    return settings, file


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


class Published(NamedTuple):
    """A complete upload in the topic."""

    upload_id: UploadId
    uid: str
    data: bytes


class Publisher:
    """Appends uploads, as a receiver would have them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.producer = KafkaProducer(
            **client_options(settings.kafka),
            acks="all",
            enable_idempotence=True,
            batch_size=MAXIMUM_MESSAGE // 2,
            max_request_size=4 * MAXIMUM_MESSAGE,
            metrics_enabled=False,
        )
        self.sequence = 0
        self.published: list[Published] = []

    def send(self, partition: int, record: bytes) -> None:
        """One record."""
        self.producer.send(self.settings.kafka.instance_topic, record, partition=partition)

    def upload(
        self, uid: str, data: bytes, *, syntax: str = EXPLICIT, sop_class: str = CT, part: int = MAX_PAYLOAD
    ) -> UploadId:
        """One complete upload."""
        self.sequence += 1
        upload_id = UploadId.of(7, 1, self.sequence)
        partition = partition_of(uid, self.settings.log.partitions)
        instance = Instance(
            sop_class, uid, syntax, len(data), xxhash.xxh3_128_digest(data), "A", "B", "127.0.0.1", 1
        )
        view = memoryview(data)
        if len(data) <= part:
            self.send(partition, encode_header(Kind.INSTANCE, upload_id, 1, instance, [view]) + data)
        else:
            pieces = [view[at : at + part] for at in range(0, len(data), part)]
            for index, piece in enumerate(pieces):
                self.send(partition, encode_header(Kind.PART, upload_id, index, None, [piece]) + bytes(piece))
            self.send(partition, encode_header(Kind.END, upload_id, len(pieces), instance))
        self.published.append(Published(upload_id, uid, data))
        return upload_id

    def orphan(self, uid: str) -> None:
        """An upload without END."""
        self.sequence += 1
        upload_id = UploadId.of(7, 1, self.sequence)
        piece = memoryview(b"orphan")
        record = encode_header(Kind.PART, upload_id, 0, None, [piece]) + bytes(piece)
        self.send(partition_of(uid, self.settings.log.partitions), record)

    def flush(self) -> None:
        """All of it is acknowledged."""
        self.producer.flush(30)

    def close(self) -> None:
        """Let go of the client."""
        self.producer.close(5)


def expected_places(published: list[Published]) -> Counter[Place]:
    """Where they all end when every one of a UID is the same but for its bytes: stored, duplicate, conflict."""
    first: dict[str, bytes] = {}
    places: Counter[Place] = Counter()
    for upload in published:
        if upload.uid not in first:
            first[upload.uid] = upload.data
            places[Place.STORED] += 1
        else:
            places[Place.DUPLICATE if first[upload.uid] == upload.data else Place.CONFLICT] += 1
    return places
