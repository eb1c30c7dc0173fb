"""The settings by dotted key, and each one's type, limits and unit in words.

`config show`, the README's table and the messages about wrong settings are all made from these, so none can
say what the code does not do.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from ingest.contract.ledger_settings import LEAST_KEY, Database, Key, TimeZone
from ingest.contract.settings import Settings
from ingest.contract.settings_base import (
    AeTitle,
    CertificateName,
    Endpoint,
    HostPort,
    Network,
    SourceName,
    StoreUrlText,
    TopicName,
    Uid,
)

NAME: Final = "NAME"  # stands in a key for what the user calls a table

_WORDS: Final[dict[object, str]] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Path: "a path, in UTF-8",
    SecretStr: "text, which is never shown",
    SourceName: "a name of 1 to 64 letters, digits, underscores and dashes",
    TopicName: "a topic's name of 1 to 249 letters, digits, dots, underscores and dashes",
    Uid: "a UID",
    StoreUrlText: "a URL: file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://account/container/prefix",
    HostPort: "HOST:PORT, or nothing",
    Endpoint: "http://HOST or https://HOST, or nothing",
    Database: "postgresql://USER@HOST/DATABASE, or nothing",
    Key: f"text of at least {LEAST_KEY} characters, which is never shown, or nothing",
    TimeZone: "a time zone of IANA's, as Europe/Berlin, or nothing",
    Network: "a network as 10.1.0.0/16 or an address",
    CertificateName: "a certificate as sha256: and 64 hex digits, subject: and its RFC 4514 form, or san: and a name",
    AeTitle: "an AE title of 1 to 16 printable ASCII characters without backslash",
}


def settings_fields(names: Mapping[str, Iterable[str]] | None = None) -> dict[str, FieldInfo]:
    """Every setting by its dotted key, in the order of the file.

    Of a table of tables, those of the tables that ``names`` has for it.
    """
    fields: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        section, inner = _section(field), _named_section(field)
        if inner is not None:
            for named in (names or {}).get(name, ()):
                fields.update({f"{name}.{named}.{key}": below for key, below in inner.model_fields.items()})
        elif section is not None:
            fields.update({f"{name}.{key}": below for key, below in section.model_fields.items()})
        else:
            fields[name] = field
    return fields


def find_field(names: Sequence[str]) -> FieldInfo | None:
    """The setting or table at this path of names; None when there is none."""
    section: type[BaseModel] | None = Settings
    inner: type[BaseModel] | None = None  # of a table of tables, whose next name is the user's
    field = None
    for name in names:
        if inner is not None:
            section, inner, field = inner, None, FieldInfo(annotation=inner)
            continue
        field = section.model_fields.get(name) if section is not None else None
        if field is None:
            return None
        section, inner = _section(field), _named_section(field)
    return field


def table_keys(names: Sequence[str]) -> list[str]:
    """The keys that a table of the settings file may hold; the empty path is the file itself."""
    field = find_field(names)
    section = _section(field) if field is not None else Settings
    return [] if section is None else list(section.model_fields)


def has_default(field: FieldInfo) -> bool:
    """Whether a setting may be left out; only those of a named table may not."""
    return not field.is_required()


def allowed_values(field: FieldInfo) -> str:
    """What a setting may be, as a phrase: an integer from 1 to 1024, one of console, json."""
    section = _section(field)
    if section is not None:
        return "a table with " + ", ".join(section.model_fields)
    inner = _named_section(field)
    if inner is not None:
        return f"tables, each with {_WORDS[SourceName]}, and in it " + ", ".join(inner.model_fields)
    return _words(field.annotation, field.metadata) + _limits(field.metadata)


def name_words() -> str:
    """What the user may call a table of a table of tables, as a phrase."""
    return _WORDS[SourceName]


def holds_secrets(field: FieldInfo) -> bool:
    """Whether a setting is a secret, or a table holds one."""
    section = _section(field)
    fields = [field] if section is None else section.model_fields.values()
    return any(below.annotation is SecretStr for below in fields)


def unit_of(field: FieldInfo) -> str:
    """The unit of a setting's value; empty for a plain count or text."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _named_section(field: FieldInfo) -> type[BaseModel] | None:
    """The table that a table of tables has under each of its names."""
    if get_origin(field.annotation) is not dict:
        return None
    section: type[BaseModel] = get_args(field.annotation)[1]
    return section


def _words(kind: object, metadata: Sequence[object] = ()) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(value) or "nothing" for value in get_args(kind))
    if get_origin(kind) is UnionType:  # None: as another setting says
        return _words(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return "a list, each " + _words(get_args(kind)[0])
    for annotated in (
        Uid,
        AeTitle,
        Network,
        CertificateName,
        TopicName,
        HostPort,
        Endpoint,
        Database,
        Key,
        TimeZone,
    ):
        if metadata and list(get_args(annotated)[1:]) == list(metadata):
            return _WORDS[annotated]
    return _WORDS[kind]


def _limits(metadata: Sequence[object]) -> str:
    low = next((f"from {item.ge}" for item in metadata if isinstance(item, Ge)), "")
    above = next((f"above {item.gt}" for item in metadata if isinstance(item, Gt)), "")
    high = next((f"to {item.le}" for item in metadata if isinstance(item, Le)), "")
    words = " ".join(part for part in (low or above, high or ("up" if low else "")) if part)
    return f" {words}" if words else ""


def names_of(settings: Settings) -> dict[str, tuple[str, ...]]:
    """What the user calls the tables of each table of tables, for `settings_fields`."""
    return {
        name: tuple(getattr(settings, name))
        for name, field in Settings.model_fields.items()
        if _named_section(field) is not None
    }


def any_name() -> dict[str, tuple[str, ...]]:
    """`NAME` for each table of tables."""
    return {
        name: (NAME,) for name, field in Settings.model_fields.items() if _named_section(field) is not None
    }
