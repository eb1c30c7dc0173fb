"""Check the settings, or show each effective value with its source and unit."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ingest.contract.command_options import config_option, json_option, settings_or_exit
from ingest.contract.settings_keys import unit_of
from ingest.contract.settings_sources import LoadedSettings, effective


@click.group()
def config() -> None:
    """Check the settings, or show each effective value with its source and unit."""


@config.command()
@config_option
def check(config: Path | None) -> None:
    """Read file and environment; exit with 2 and a line for each wrong key."""
    loaded = settings_or_exit(config, {})
    click.echo(f"settings are valid ({loaded.file or 'no file'})")


@config.command()
@config_option
@json_option
def show(config: Path | None, *, as_json: bool) -> None:
    """Every setting: its effective value, unit, source (default, file, environment), and meaning."""
    loaded = settings_or_exit(config, {})
    if as_json:
        click.echo(json.dumps(_rows(loaded), indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("setting", "value", "unit", "source", "meaning"):
        table.add_column(heading, overflow="fold")
    for row in _rows(loaded):
        table.add_row(*(str(row[name]) for name in ("setting", "value", "unit", "source", "meaning")))
    Console().print(table)


def _rows(loaded: LoadedSettings) -> list[dict[str, object]]:
    plain = loaded.settings.model_dump(mode="json")
    return [
        {
            "setting": key,
            "value": _value(plain, key),
            "unit": unit_of(field),
            "source": source,
            "meaning": field.description,
        }
        for key, _, source, field in effective(loaded)
    ]


def _value(tree: dict[str, object], key: str) -> object:
    found: object = tree
    for name in key.split("."):
        assert isinstance(found, dict)
        found = found[name]
    return found
