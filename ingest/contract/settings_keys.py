"""The settings by dotted key, and each one's type, limits and unit in words.

`config show`, the README's table and the messages about wrong settings are all made from these, so none can
say what the code does not do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ingest.contract.settings import AeTitle, Settings, Uid

_WORDS: Final[dict[object, str]] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Path: "a path",
    Uid: "a UID",
    AeTitle: "an AE title of 1 to 16 printable ASCII characters without backslash",
}


def settings_fields() -> dict[str, FieldInfo]:
    """Every setting by its dotted key, in the order of the file."""
    fields: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        section = _section(field)
        if section is None:
            fields[name] = field
        else:
            fields.update({f"{name}.{key}": below for key, below in section.model_fields.items()})
    return fields


def find_field(names: Sequence[str]) -> FieldInfo | None:
    """The setting or table at this path of names; None when there is none."""
    section: type[BaseModel] | None = Settings
    field = None
    for name in names:
        field = section.model_fields.get(name) if section is not None else None
        if field is None:
            return None
        section = _section(field)
    return field


def table_keys(names: Sequence[str]) -> list[str]:
    """The keys that a table of the settings file may hold; the empty path is the file itself."""
    field = find_field(names)
    section = _section(field) if field is not None else Settings
    return [] if section is None else list(section.model_fields)


def allowed_values(field: FieldInfo) -> str:
    """What a setting may be, as a phrase: an integer from 1 to 1024, one of console, json."""
    section = _section(field)
    if section is not None:
        return "a table with " + ", ".join(section.model_fields)
    return _words(field.annotation, field.metadata) + _limits(field.metadata)


def unit_of(field: FieldInfo) -> str:
    """The unit of a setting's value; empty for a plain count or text."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _words(kind: object, metadata: Sequence[object] = ()) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list, each " + _words(get_args(kind)[0])
    for annotated in (Uid, AeTitle):
        if metadata and list(get_args(annotated)[1:]) == list(metadata):
            return _WORDS[annotated]
    return _WORDS[kind]


def _limits(metadata: Sequence[object]) -> str:
    low = next((f"from {item.ge}" for item in metadata if isinstance(item, Ge)), "")
    above = next((f"above {item.gt}" for item in metadata if isinstance(item, Gt)), "")
    high = next((f"to {item.le}" for item in metadata if isinstance(item, Le)), "")
    words = " ".join(part for part in (low or above, high or ("up" if low else "")) if part)
    return f" {words}" if words else ""
