"""Settings: one TOML file, overridden by environment variables, overridden by flags; frozen and typed.

Both sides read the same file, so its shape is part of the contract. Each setting names its unit and its
reason; `dicom-ingest config show` prints them with the source of each value.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ingest.contract.admin_settings import AdminSettings
from ingest.contract.audit_settings import AuditSettings
from ingest.contract.kafka_settings import KafkaSettings
from ingest.contract.ledger_settings import LedgerSettings
from ingest.contract.peer_settings import ListenerSettings, SourceAdmission
from ingest.contract.receiver_settings import ReceiverSettings
from ingest.contract.settings_base import (
    Endpoint,
    GiB,
    KiB,
    MiB,
    Section,
    SourceName,
    StoreUrlText,
    split_list,
)
from ingest.contract.store_urls import StoreUrl, parse_store_url

__all__ = [
    "CommitmentSettings",
    "GiB",
    "KafkaSettings",
    "KiB",
    "LogSettings",
    "MiB",
    "ReceiverSettings",
    "Settings",
    "SourceSettings",
    "StoreSettings",
    "TelemetrySettings",
    "TranscodeSettings",
    "WorkerSettings",
]


class LogSettings(Section):
    """The log between receiver and workers."""

    kind: Literal["spool", "kafka"] = Field(
        "spool", description="The spool is for one machine; kafka for more, see the table kafka."
    )
    allow_single_copy: bool = Field(
        default=False,
        description="Let Kafka keep fewer than three replicas, or acknowledge with fewer than two in sync.",
    )
    partitions: int = Field(
        16, ge=1, le=1024, description="Written once; workers share them. With Kafka, those of its topics."
    )
    segment_size: int = Field(
        32 * MiB,
        ge=2 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="One recycled file of the spool.",
    )
    maximum_size: int = Field(
        16 * GiB, ge=8 * MiB, json_schema_extra={"unit": "bytes"}, description="All segments; then A700H."
    )
    reserve: int = Field(
        1 * GiB,
        ge=0,
        json_schema_extra={"unit": "bytes"},
        description="Free space kept for store, checkpoints and quarantine; at most a tenth of the file system.",
    )


class WorkerSettings(Section):
    """What a worker process may use."""

    processes: int = Field(0, ge=0, description="Worker processes of `serve`; 0 means one a core.")
    memory_limit: int = Field(
        64 * MiB,
        ge=1 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="An instance above it is reassembled in a scratch file. At most the worker's share of log.reserve.",
    )
    checkpoint_interval: float = Field(
        1.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="At most this much work is checked again after a crash; without work, a tenth of it.",
    )
    attempts: int = Field(
        3, ge=1, description="Tries before an instance that kills its codec goes on without it."
    )
    stop_timeout: float = Field(
        30.0, gt=0, json_schema_extra={"unit": "s"}, description="SIGTERM to kill, for the instance in work."
    )
    waiting_uploads: int = Field(
        8192,
        ge=1,
        json_schema_extra={"unit": "instances"},
        description="Beyond so many that wait for a store, 8 kB of memory each, their bytes in scratch, all wait.",
    )
    codec_memory: int = Field(
        2 * GiB,
        ge=256 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Address space of a codec process.",
    )
    codec_frames: int = Field(
        5000,
        ge=1,
        json_schema_extra={"unit": "frames"},
        description="Then a codec process is replaced, in 0.2 s: its encoder leaks 448 bytes a frame.",
    )
    codec_timeout: float = Field(
        120.0, gt=0, json_schema_extra={"unit": "s"}, description="One frame, encode and proof together."
    )
    proofs: int = Field(
        4,
        ge=1,
        le=64,
        json_schema_extra={"unit": "objects"},
        description="Read back at a time for storage commitment, 4 MiB of each in memory; fewer delay reports only.",
    )


class TranscodeSettings(Section):
    """What becomes JPEG 2000 Lossless."""

    enabled: bool = Field(default=True, description="Off: every instance is stored as received.")
    decode_lossless: Annotated[tuple[Literal["rle", "jpeg-lossless"], ...], BeforeValidator(split_list)] = (
        Field((), description="Losslessly compressed sources to decode and re-encode; others pass through.")
    )


class StoreSettings(Section):
    """Where objects go."""

    directories: Annotated[tuple[Path, ...], BeforeValidator(split_list)] = Field(
        (), description="Store directories. DATA/store if no store is named. Shards spread over all stores."
    )
    urls: Annotated[tuple[StoreUrlText, ...], BeforeValidator(split_list)] = Field(
        (),
        description="Further stores: file:///folder, s3://bucket/prefix, gs://bucket, az://account/container. "
        "An s3 URL may end in ?endpoint=, region= and profile=, joined by &.",
    )
    endpoint: Endpoint = Field(
        "",
        description="Of s3 URLs that name none; empty means AWS_ENDPOINT_URL of the environment, else AWS.",
    )
    region: str = Field("", description="Of s3 URLs that name none; empty means AWS_REGION, else us-east-1.")
    request_timeout: float = Field(
        10.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="One request to a bucket, body and all; single_put_limit must get through in it. A copy within it may take longer, by its size.",
    )
    retry_timeout: float = Field(
        20.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="No request to a bucket is repeated after this; then its shards wait, and the others go on.",
    )
    lease: float = Field(
        30.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="A killed process's lock in a bucket holds others back this long; at least 3 request_timeout.",
    )
    requests: int = Field(16, ge=1, le=256, description="At a time, to one bucket: threads and connections.")
    bytes_in_flight: int = Field(
        128 * MiB,
        ge=16 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="On their way to one bucket; a slow one holds no more than this.",
    )
    single_put_limit: int = Field(
        16 * MiB,
        ge=64 * KiB,
        le=1 * GiB,
        json_schema_extra={"unit": "bytes"},
        description="Larger objects are staged in parts, and get their name by a conditional copy.",
    )
    part_size: int = Field(
        16 * MiB,
        ge=5 * MiB,
        le=256 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Of staged objects. S3 takes 10,000 parts of at least 5 MiB.",
    )
    checksum: Literal["sha256", "crc64nvme", "none"] = Field(
        "sha256", description="Sent with what is written to s3 URLs; none is for stores that refuse it."
    )


class CommitmentSettings(Section):
    """Storage commitment (PS3.4 Annex J): what is promised, and how patiently."""

    enabled: bool = Field(
        default=False, description="Serve storage commitment. With one store and no second copy, think first."
    )
    proof: Literal["read", "checksum", "manifest"] = Field(
        "read", description="What counts as proof of a stored object; a source may have another."
    )
    without_address: Literal["refuse", "same-association"] = Field(
        "refuse", description="A request from a source whose return address is not set."
    )
    absent_grace: float = Field(
        300.0,
        ge=0,
        json_schema_extra={"unit": "s"},
        description="Until an absent instance has failed; consoles ask while images wait in their retry queue.",
    )
    wait_limit: float = Field(
        3600.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="Until what could not be found out has failed, or a question without an answer is asked again, thrice in all.",
    )
    hold: float = Field(
        10.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="A report on the association of the request is tried so long; then on a new one.",
    )
    association_lease: float = Field(
        3900.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="An association whose report is to come on it is kept so long, idle or not: wait_limit and some.",
    )
    retry_first: float = Field(
        10.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="After the first report that was not taken; doubled each time.",
    )
    retry_longest: float = Field(
        3600.0, gt=0, json_schema_extra={"unit": "s"}, description="Between two tries of a report."
    )
    retry_limit: float = Field(
        7 * 86400.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="After which a report waits for `commitments retry` or `expire`.",
    )
    answer_timeout: float = Field(
        30.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="For each answer of a peer that gets a report.",
    )
    maximum_references: int = Field(50_000, ge=1, description="Instances of one request; more get 0213H.")
    maximum_request: int = Field(
        16 * MiB,
        ge=64 * KiB,
        json_schema_extra={"unit": "bytes"},
        description="Data set of one request; larger ones get 0213H.",
    )
    maximum_open: int = Field(20_000, ge=1, description="Transactions not yet reported; more get 0213H.")
    remember: int = Field(
        100_000,
        ge=1000,  # see `LEAST_REMEMBERED` in ingest/commitment/rules.py
        description="Closed transactions whose UIDs are refused when they come again (0131H).",
    )
    retrieve_ae_title: str = Field(
        "", description="Retrieve AE Title (0008,0054) of reports; empty: none, since nothing is served here."
    )


class SourceSettings(SourceAdmission):
    """One sender: a modality or facility, under all AE titles that it uses."""

    host: str = Field("", description="Where reports of storage commitment go; empty: no return address.")
    port: int = Field(104, ge=1, le=65535, description="TCP port there; 104 is DICOM's.")
    called_ae_title: str = Field(
        "", description="Called AE title of reports; empty: the one that asked for commitment."
    )
    calling_ae_title: str = Field(
        "", description="Calling AE title of reports; empty: the one that was called with the request."
    )
    same_association: bool = Field(
        default=False, description="Report on the association of the request while it is open and idle."
    )
    propose_role: bool = Field(
        default=True,
        description="Propose the SCP role when reporting (PS3.7 D.3.3.4); some old peers reject it.",
    )
    proof: Literal["", "read", "checksum", "manifest"] = Field(
        "", description="What counts as proof; empty: as commitment.proof."
    )
    absent_grace: float | None = Field(
        None, ge=0, json_schema_extra={"unit": "s"}, description="As commitment.absent_grace."
    )
    wait_limit: float | None = Field(
        None, gt=0, json_schema_extra={"unit": "s"}, description="As commitment.wait_limit."
    )
    report_limit: int = Field(
        0, ge=0, description="Instances in one report, where the peer takes no more; 0: all in one."
    )
    issuer: str = Field(
        "",
        max_length=64,
        description="Of its Patient IDs that name none (0010,0021), and of Accession Numbers.",
    )
    expected: Literal["", "daily", "weekdays"] = Field(
        "", description="When it sends: `report` calls it silent on such a day without one instance."
    )


class TelemetrySettings(Section):
    """What the processes say about themselves, on standard error."""

    format: Literal["auto", "console", "json"] = Field(
        "auto", description="Console for people, JSON lines for collectors; auto: console on a terminal."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that is written."
    )


class Settings(Section):
    """The whole file."""

    data: Path = Field(
        Path("data"), description="Spool, checkpoints, outcomes, scratch and the default store."
    )
    receiver: ReceiverSettings = ReceiverSettings()
    log: LogSettings = LogSettings()
    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSettings = WorkerSettings()
    transcode: TranscodeSettings = TranscodeSettings()
    store: StoreSettings = StoreSettings()
    commitment: CommitmentSettings = CommitmentSettings()
    listeners: dict[SourceName, ListenerSettings] = Field(
        {}, description="Further addresses to listen on, each a table listeners.NAME."
    )
    sources: dict[SourceName, SourceSettings] = Field(
        {}, description="Senders by a name of their own, each a table sources.NAME."
    )
    telemetry: TelemetrySettings = TelemetrySettings()
    admin: AdminSettings = AdminSettings()
    audit: AuditSettings = AuditSettings()
    ledger: LedgerSettings = LedgerSettings()

    def source_of_ae_title(self, ae_title: str) -> tuple[str, SourceSettings] | None:
        """The configured source that has a calling AE title, and its name; without one, the title is a source alone."""
        found = (item for item in self.sources.items() if ae_title.strip(" ") in item[1].ae_titles)
        return next(found, None)

    @property
    def commitment_note(self) -> str:
        """What is to be said wherever storage commitment is shown to be served; empty where nothing is."""
        if not self.commitment.enabled:
            return ""
        return (
            "storage commitment is served, and this pipeline keeps one copy of each instance: what is committed is "
            "as safe as the one store that has it"
        )

    @property
    def store_locations(self) -> tuple[Path | StoreUrl, ...]:
        """The stores in effect: folders and buckets."""
        named = (*self.store.directories, *map(parse_store_url, self.store.urls))
        return named or (self.data / "store",)
