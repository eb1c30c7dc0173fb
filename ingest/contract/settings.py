"""Settings: one TOML file, overridden by environment variables, overridden by flags; frozen and typed.

Both sides read the same file, so its shape is part of the contract. Each setting names its unit and its
reason; `dicom-ingest config show` prints them with the source of each value.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ingest.contract.identifiers import check_ae_title, check_uid

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB


def _split(value: object) -> object:
    """In the environment a list is one string with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _ae_title(value: str) -> str:
    """Leading and trailing spaces of an AE title are not significant (PS3.5 6.2)."""
    return check_ae_title(value.strip(" "))


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Uid = Annotated[str, AfterValidator(check_uid)]


class Section(BaseModel):
    """A table of the settings file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ReceiverSettings(Section):
    """Who listens, and what one peer may cost."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback until told otherwise.")
    port: int = Field(11112, ge=0, le=65535, description="TCP port; 11112 is IANA's unprivileged DICOM port.")
    ae_title: AeTitle = Field("DICOM-INGEST", description="Called AE title that this receiver answers to.")
    accept_any_called_ae: bool = Field(
        default=False, description="Accept associations that call another AE title than ours."
    )
    maximum_pdu_length: int = Field(
        256 * KiB,
        ge=4 * KiB,
        le=1 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Announced in the A-ASSOCIATE-AC (PS3.8 D.1); larger PDUs mean fewer headers a megabyte.",
    )
    maximum_associations: int = Field(
        1000, ge=1, description="Open associations; more are rejected as local-limit-exceeded (PS3.8 9.3.4)."
    )
    maximum_connections: int = Field(
        4096, ge=1, description="TCP connections, at most what RLIMIT_NOFILE leaves; more are closed at once."
    )
    backlog: int = Field(
        512, ge=1, description="Connections the kernel holds before they are accepted (listen(2))."
    )
    buffer_budget: int = Field(
        64 * MiB,
        ge=4 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Instance bytes in memory, all associations together; at the budget reading stops.",
    )
    artim_timeout: float = Field(
        30.0, gt=0, json_schema_extra={"unit": "s"}, description="PS3.8 9.1.2; pynetdicom and DCMTK use 30."
    )
    idle_timeout: float = Field(
        300.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="Between messages. Modalities hold associations open during an acquisition.",
    )
    stall_timeout: float = Field(
        60.0, gt=0, json_schema_extra={"unit": "s"}, description="Within a message, without one byte."
    )
    minimum_rate: int = Field(
        1 * KiB,
        ge=0,
        json_schema_extra={"unit": "bytes/s"},
        description="Within a message, averaged over stall_timeout; slower peers pin the log.",
    )
    maximum_upload_duration: float = Field(
        3600.0, gt=0, json_schema_extra={"unit": "s"}, description="One instance; a longer one pins the log."
    )
    drain_timeout: float = Field(
        30.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="SIGTERM to abort, for instances in progress.",
    )
    transfer_syntax_preference: Annotated[tuple[Uid, ...], BeforeValidator(_split)] = Field(
        (), description="UIDs, most wanted first; empty means the built-in order (native first)."
    )
    private_storage_classes: Annotated[tuple[Uid, ...], BeforeValidator(_split)] = Field(
        (), description="Further SOP Class UIDs to accept as storage."
    )


class LogSettings(Section):
    """The log between receiver and workers."""

    partitions: int = Field(16, ge=1, le=1024, description="Written once; workers share them.")
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
        description="At most this much work is checked again after a crash.",
    )
    attempts: int = Field(
        3, ge=1, description="Tries before an instance that kills its codec goes on without it."
    )
    stop_timeout: float = Field(
        30.0, gt=0, json_schema_extra={"unit": "s"}, description="SIGTERM to kill, for the instance in work."
    )
    codec_memory: int = Field(
        2 * GiB,
        ge=256 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Address space of a codec process.",
    )
    codec_timeout: float = Field(
        120.0, gt=0, json_schema_extra={"unit": "s"}, description="One frame, encode and proof together."
    )


class TranscodeSettings(Section):
    """What becomes JPEG 2000 Lossless."""

    enabled: bool = Field(default=True, description="Off: every instance is stored as received.")
    decode_lossless: Annotated[tuple[Literal["rle", "jpeg-lossless"], ...], BeforeValidator(_split)] = Field(
        (), description="Losslessly compressed sources to decode and re-encode; others pass through."
    )


class StoreSettings(Section):
    """Where objects go."""

    directories: Annotated[tuple[Path, ...], BeforeValidator(_split)] = Field(
        (), description="Store directories; empty means DATA/store. Shards spread over all of them."
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
    worker: WorkerSettings = WorkerSettings()
    transcode: TranscodeSettings = TranscodeSettings()
    store: StoreSettings = StoreSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def store_directories(self) -> tuple[Path, ...]:
        """The store directories in effect."""
        return self.store.directories or (self.data / "store",)
