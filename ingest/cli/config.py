"""Check the settings, or show each effective value with its source and unit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import click
from pydantic.fields import FieldInfo

from ingest.contract.command_options import (
    ServeFlags,
    config_option,
    json_option,
    serve_flags,
    serve_options,
    settings_or_exit,
)
from ingest.contract.settings import Settings
from ingest.contract.settings_keys import (
    NAME,
    allowed_values,
    any_name,
    has_default,
    holds_secrets,
    settings_fields,
    unit_of,
)
from ingest.contract.settings_sources import LoadedSettings, effective, variable_of


@click.group()
def config() -> None:
    """Check the settings, or show each effective value with its source and unit."""


@config.command()
@config_option
@serve_options
def check(config: Path | None, **flags: Unpack[ServeFlags]) -> None:
    """Read the settings as `serve` would; exit with 2 and a line for each wrong key."""
    loaded = settings_or_exit(config, serve_flags(flags))
    click.echo(f"settings are valid ({loaded.file or 'no settings file'})")


@config.command()
@config_option
@serve_options
@json_option
@click.option("--markdown", is_flag=True, help="Print all settings and their defaults as the README's table.")
def show(config: Path | None, *, as_json: bool, markdown: bool, **flags: Unpack[ServeFlags]) -> None:
    """Print every effective setting as a TOML file, with its meaning, limits, unit and source."""
    if markdown:
        click.echo("\n".join(markdown_table()))
        return
    loaded = settings_or_exit(config, serve_flags(flags))
    if as_json:
        click.echo(json.dumps([_entry(loaded, *row) for row in effective(loaded)], indent=2))
    else:
        click.echo("\n".join(_toml(loaded)))


def markdown_table() -> Iterator[str]:
    """All settings with their defaults, as lines of the README's table."""
    yield "| key | default | allowed | meaning |"
    yield "|---|---|---|---|"
    for key, field in settings_fields(any_name()).items():
        yield f"| `{key}` | {_default(key, field)} | {_allowed(field)} | {field.description} |"


def _default(key: str, field: FieldInfo) -> str:
    if not has_default(field):
        return "none"
    if NAME in key.split("."):
        value = field.get_default()  # plain: text, a number, or nothing
    else:
        value = _plain(LoadedSettings(Settings(), {}, None), key)
    return f"`{json.dumps(value)}`"


def _entry(loaded: LoadedSettings, key: str, source: str, field: FieldInfo) -> dict[str, object]:
    return {
        "setting": key,
        "value": _plain(loaded, key),
        "unit": unit_of(field),
        "source": source,
        "allowed": allowed_values(field),
        "environment": variable_of(key) if key in settings_fields() else None,
        "description": field.description,
    }


def _toml(loaded: LoadedSettings) -> Iterator[str]:
    table = ""
    for key, source, field in effective(loaded):
        section, _, name = key.rpartition(".")
        if section != table:
            table = section
            yield f"\n[{table}]"
        yield f"# {field.description} ({_allowed(field)}; {source})"
        value = _plain(loaded, key)
        # TOML has no null, and what stands for a secret would be taken for it.
        unset = "# " if value is None or (value and holds_secrets(field)) else ""
        yield f"{unset}{name} = {json.dumps(value, ensure_ascii=False)}"


def _allowed(field: FieldInfo) -> str:
    unit = unit_of(field)
    return allowed_values(field) + (f", {unit}" if unit else "")


def _plain(loaded: LoadedSettings, key: str) -> object:
    """The value as JSON and TOML have it: a path is text, a tuple a list."""
    value: object = loaded.settings.model_dump(mode="json")
    for name in key.split("."):
        assert isinstance(value, dict)
        value = value[name]
    return value
