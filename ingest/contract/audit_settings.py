"""Settings of the audit trail (PS3.15 A.5 and A.6)."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from ingest.contract.settings_base import HostPort, MiB, Section


class AuditSettings(Section):
    """Who sent what, who decided what, who was not let in: for auditors, in the messages of PS3.15 A.5."""

    destination: Literal["none", "file", "syslog"] = Field(
        "none",
        description="A file trail stays in DATA/audit; a syslog trail waits there until the repository has it.",
    )
    repository: HostPort = Field(
        "",
        description="HOST:PORT of the audit repository, by syslog over TLS (RFC 5425, PS3.15 A.6); 6514 is IANA's port.",
    )
    ca_file: str = Field(
        "", description="PEM file of the authorities that sign the repository; empty: the system's."
    )
    certificate_file: str = Field(
        "", description="PEM file of our certificate, where the repository asks for it."
    )
    key_file: str = Field("", description="PEM file of its private key, without a password.")
    source_id: str = Field(
        "", max_length=64, description="AuditSourceID of every message; empty: the name of the host."
    )
    enterprise_site: str = Field(
        "", max_length=64, description="AuditEnterpriseSiteID; empty: none. Tells several hospitals apart."
    )
    patient_id: bool = Field(
        default=False,
        description="Name the Patient ID with the study, as PS3.15 asks; off, since a trail with it must be kept as images are.",
    )
    quiet_time: float = Field(
        30.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="Instances of a study from one peer are one message, once none has come for so long.",
    )
    longest_time: float = Field(
        600.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="A study that goes on coming is told of at least so often.",
    )
    maximum_size: int = Field(
        1024 * MiB,
        ge=1 * MiB,
        json_schema_extra={"unit": "bytes"},
        description="Of DATA/audit; beyond, the oldest messages go, counted and logged. The disk is the images' first.",
    )
    retry: float = Field(
        10.0,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="Between two tries to reach the repository.",
    )
    timeout: float = Field(
        10.0, gt=0, json_schema_extra={"unit": "s"}, description="Of connecting and of each sending."
    )


def audit_problems(audit: AuditSettings) -> Iterator[str]:
    """What single settings cannot say of themselves: one line for each."""
    if audit.destination == "syslog" and not audit.repository:
        yield "audit.repository: given nothing; allowed: HOST:PORT with audit.destination = syslog"
    if bool(audit.certificate_file) != bool(audit.key_file):
        yield "audit.key_file: given without the other; allowed: with audit.certificate_file"
