"""Where peers reach us, and what a known peer may do: the tables ``listeners.NAME`` and ``sources.NAME``."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ingest.contract.settings_base import (
    AeTitle,
    CertificateName,
    Network,
    Priority,
    Section,
    Uid,
    one_or_list,
    split_list,
)


class ListenerSettings(Section):
    """A further address to listen on, with TLS by the BCP 195 profile (PS3.15 B.12) or, inside, without."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback until told otherwise.")
    port: int = Field(2762, ge=0, le=65535, description="TCP port; 2762 is IANA's for DICOM over TLS.")
    certificate_file: str = Field(
        "", description="PEM file of our certificate and those between it and its authority; empty: no TLS."
    )
    key_file: str = Field("", description="PEM file of its private key, without password.")
    client_certificate: Literal["required", "optional", "none"] = Field(
        "required", description="Of peers, with TLS; what is presented must be signed by client_ca_file."
    )
    client_ca_file: str = Field("", description="PEM file of the authorities that sign peers.")
    client_crl_file: str = Field(
        "", description="PEM file of their revocation lists, one of each authority; empty: not looked at."
    )


class SourceAdmission(Section):
    """Of a source: from where it may come, as whom, and with how much."""

    ae_titles: Annotated[tuple[AeTitle, ...], BeforeValidator(split_list), Field(min_length=1)] = Field(
        description="All its calling AE titles; what one of them stored, another may ask commitment for."
    )
    addresses: Annotated[tuple[Network, ...], BeforeValidator(split_list)] = Field(
        (), description="Networks that it comes from, as 10.1.0.0/16 or 10.1.2.3; empty: any."
    )
    certificates: Annotated[tuple[CertificateName, ...], BeforeValidator(one_or_list)] = Field(
        (),
        description="Certificates of which it must present one, over TLS: sha256:HEX, subject:RFC4514 or san:NAME; empty: any or none.",
    )
    called_ae_titles: Annotated[tuple[AeTitle, ...], BeforeValidator(split_list)] = Field(
        (), description="AE titles that it may call; empty: as any other."
    )
    sop_classes: Annotated[tuple[Uid, ...], BeforeValidator(split_list)] = Field(
        (), description="SOP Class UIDs that it may store; empty: all."
    )
    priority: Priority = Field(
        "medium",
        description="Its share while several sources send: high has four times that of medium, which has four times that of low.",
    )
    maximum_associations: int = Field(
        0, ge=0, description="Open at a time in one receiver; more are rejected; 0: no limit of its own."
    )
    maximum_instance_size: int = Field(
        0,
        ge=0,
        json_schema_extra={"unit": "bytes"},
        description="Larger instances get A700H; 0: as receiver.maximum_instance_size.",
    )
    maximum_rate: int = Field(
        0,
        ge=0,
        json_schema_extra={"unit": "bytes/s"},
        description="All its associations with one receiver together; beyond, their sockets are not read; 0: no limit.",
    )
    tls: bool = Field(default=False, description="Reports of storage commitment go over TLS.")
    tls_ca_file: str = Field("", description="PEM file of the authorities that sign it; empty: the system's.")
    tls_certificate_file: str = Field(
        "", description="PEM file of our certificate when reporting, where it asks for one."
    )
    tls_key_file: str = Field("", description="PEM file of its private key, without password.")
