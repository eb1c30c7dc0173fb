"""What every table of the settings file is made of: a frozen section, and the types of its values."""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from ingest.contract.identifiers import check_ae_title, check_uid
from ingest.contract.store_urls import check_endpoint, parse_store_url

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
PORT_MAX = 65535

# RFC 4514 is the form of a subject, as `openssl x509 -noout -subject -nameopt RFC2253` prints it.
_CERTIFICATE_NAME = re.compile(r"(sha256:[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}|(subject|san):.+)\Z")


def split_list(value: object) -> object:
    """In the environment a list is one string with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def one_or_list(value: object) -> object:
    """A list, or one entry that may itself have commas."""
    return [value] if isinstance(value, str) else value


def _ae_title(value: str) -> str:
    """Leading and trailing spaces of an AE title are not significant (PS3.5 6.2)."""
    return check_ae_title(value.strip(" "))


def _store_url(value: str) -> str:
    parse_store_url(value)
    return value


def _endpoint(value: str) -> str:
    check_endpoint(value)
    return value


def _host_port(value: str) -> str:
    if value:
        host_and_port(value)
    return value


def host_and_port(value: str) -> tuple[str, int]:
    """HOST:PORT as host and port; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is not.
    """
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > PORT_MAX:
        raise ValueError(f"{value!r} is not HOST:PORT, as in 127.0.0.1:11112 or [::1]:11112")
    return host, int(port)


def _network(value: str) -> str:
    """A host's own address is a network of one; bits beyond the prefix are a slip that must not pass."""
    return str(ip_network(value))


def _certificate_name(value: str) -> str:
    if not _CERTIFICATE_NAME.match(value):
        raise ValueError("not a name of a certificate")
    kind, _, name = value.partition(":")
    return f"{kind}:{name.replace(':', '').lower()}" if kind == "sha256" else value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Uid = Annotated[str, AfterValidator(check_uid)]
StoreUrlText = Annotated[str, AfterValidator(_store_url)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
HostPort = Annotated[str, AfterValidator(_host_port)]
Network = Annotated[str, AfterValidator(_network)]
CertificateName = Annotated[str, AfterValidator(_certificate_name)]
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


# DICOM's own words (0000,0700), and how many times the share of one each has of what sources contend for.
Priority = Literal["low", "medium", "high"]
WEIGHTS: Final[Mapping[Priority, int]] = MappingProxyType({"low": 1, "medium": 4, "high": 16})


class Section(BaseModel):
    """A table of the settings file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """To Python true is 1: a limit of one association, or of none."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and not {int, float}.isdisjoint({kind, *get_args(kind)}):
            raise ValueError("a truth value where a number belongs")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _text_is_utf_8(cls, value: object) -> object:
        """What environment or command line have in another encoding could be neither printed nor written as JSON."""
        if isinstance(value, str | Path):
            str(value).encode()
        return value
