"""Settings of the receiver: who listens, what is accepted, and what one peer may cost."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ingest.contract.settings_base import AeTitle, GiB, KiB, MiB, Priority, Section, Uid, split_list


class ReceiverSettings(Section):
    """Who listens, and what one peer may cost."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on without TLS; loopback until told otherwise; empty: only on listeners.NAME.",
    )
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
    maximum_associate_length: int = Field(
        1 * MiB,
        ge=4 * KiB,
        le=16 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Of an A-ASSOCIATE PDU, which is kept until it is whole; 128 contexts of 64 syntaxes need half of it.",
    )
    associate_budget: int = Field(
        16 * MiB,
        ge=1 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Of all connections that have no association yet; beyond it, the one that has sent most is closed.",
    )
    maximum_command_length: int = Field(
        64 * KiB,
        ge=1 * KiB,
        le=1 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Of a command set (PS3.7 6.3.1), which is kept until it is whole; real ones have a few hundred bytes.",
    )
    maximum_associations: int = Field(
        1000, ge=1, description="Open associations; more are rejected as local-limit-exceeded (PS3.8 9.3.4)."
    )
    maximum_connections: int = Field(
        4096,
        ge=1,
        description="TCP connections, at most what RLIMIT_NOFILE leaves; beyond, one that for a second has had no association gives way, or the new one.",
    )
    maximum_connections_per_address: int = Field(
        0, ge=0, description="Of these, from one address; 0: no limit, since a facility may come from one."
    )
    maximum_handshakes: int = Field(
        256,
        ge=1,
        description="TLS handshakes at a time; beyond, one that lasts over a second gives way, or the new one.",
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
    fair_window: int = Field(
        2 * MiB,
        ge=1 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Of them, what sources share by priority while several send: one waits for little more of the others.",
    )
    fair_memory: float = Field(
        10.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="How long after a source's last instance the others keep to their shares; alone, one has all.",
    )
    association_reserve: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Part of maximum_associations that is kept for sources with less than their share of it, by priority.",
    )
    artim_timeout: float = Field(
        30.0, gt=0, json_schema_extra={"unit": "s"}, description="PS3.8 9.1.2; pynetdicom and DCMTK use 30."
    )
    handshake_timeout: float = Field(
        10.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="Of TLS, before the association's own timers.",
    )
    shutdown_timeout: float = Field(
        5.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="For a peer's close_notify when we end a TLS connection.",
    )
    certificate_interval: float = Field(
        10.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="Between looks whether certificate files have changed, and the most that a session of TLS 1.2 lives; SIGHUP looks at once.",
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
        3600.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="One instance, without what it waits for room in buffer_budget; a longer one pins the log.",
    )
    maximum_instance_size: int = Field(
        8 * GiB,
        ge=0,
        json_schema_extra={"unit": "bytes"},
        description="Larger instances get A700H; 0: no limit. The default is half of the spool's; with s3 stores it is the most, 5000000000.",
    )
    maximum_association_size: int = Field(
        0,
        ge=0,
        json_schema_extra={"unit": "bytes"},
        description="Of all instances of one association; then A700H; 0: no limit, since some stay open for days.",
    )
    unknown_sources: Literal["accept", "quarantine", "refuse"] = Field(
        "accept",
        description="Associations of AE titles that no table sources.NAME has; quarantine: what they send is kept there.",
    )
    unknown_priority: Priority = Field(
        "low", description="Of all unknown sources, which share as one; see sources.NAME.priority."
    )
    unknown_associations: int = Field(
        0,
        ge=0,
        description="Open at a time, of all unknown sources together; more are rejected; 0: no limit of their own.",
    )
    unknown_bytes: int = Field(
        1 * GiB,
        ge=1,
        json_schema_extra={"unit": "bytes"},
        description="With quarantine: of unknown sources within unknown_period; then A700H. One study, and no full disk.",
    )
    unknown_instances: int = Field(
        10_000,
        ge=1,
        json_schema_extra={"unit": "instances"},
        description="With quarantine: as unknown_bytes; each is an object in a store, and somebody's decision.",
    )
    unknown_period: float = Field(
        86400.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="Then the two are counted anew: a day, so that there is one for an administrator to decide in.",
    )
    drain_timeout: float = Field(
        30.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="SIGTERM to abort, for instances in progress.",
    )
    drain_idle: float = Field(
        0.0,
        ge=0,
        json_schema_extra={"unit": "s"},
        description=(
            "After SIGTERM, until drain_timeout, associations go on whose peer is silent for no longer between two messages; "
            "0: each ends with the instance in progress."
        ),
    )
    transfer_syntax_preference: Annotated[tuple[Uid, ...], BeforeValidator(split_list)] = Field(
        (), description="UIDs, most wanted first; empty means the built-in order (native first)."
    )
    private_storage_classes: Annotated[tuple[Uid, ...], BeforeValidator(split_list)] = Field(
        (), description="Further SOP Class UIDs to accept as storage."
    )
