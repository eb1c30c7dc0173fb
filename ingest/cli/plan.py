"""Work out brokers, disks, workers and buckets for what a site's modalities send."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from ingest.cli.capacity import Assumptions, Line, Modality
from ingest.cli.capacity import plan as planned
from ingest.contract.command_options import EXIT_USAGE, json_option

_MAXIMUM_FILE: Final = 1024 * 1024  # bytes
_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Modality))
_WHOLE: Final = ("machines", "replicas", "brokers")
_SHARES: Final = ("busiest_hour", "use", "retention_limit")
_MAY_BE_NOTHING: Final = ("brokers", "slack")
_LEAST: Final = 1e-6  # of all other numbers
_MOST: Final = 1e9
_ROUND: Final = 100  # from here on, whole numbers are shown


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    metavar="NAME,MACHINES,STUDIES,INSTANCES,MB",
    help="What the machines of one sort send: studies a machine and day, instances a study, MB an instance. May be repeated.",
)
@json_option
def plan(file: Path | None, modalities: tuple[str, ...], *, as_json: bool) -> None:
    """Work out brokers, disks, workers and buckets for what a site's modalities send.

    FILE is TOML: a table [[modality]] each, with name, machines, studies, instances and megabytes; and, where the site knows
    better, [assumptions] with busiest_hour, use, replicas, retention, retention_limit, slack, brokers and years.

    The measured figures behind it are printed as part of each formula; they are of one small machine.
    """
    try:
        tree = {} if file is None else _read(file)
        described = [_modality(item) for item in _tables(tree.get("modality", []))]
        assumptions = _assumptions(tree.get("assumptions", {}))
        lines = planned([*described, *map(_from_option, modalities)], assumptions)
    except ValueError as error:
        click.echo(f"dicom-ingest: {error}", err=True)
        raise click.exceptions.Exit(EXIT_USAGE) from None
    click.echo(json.dumps([line._asdict() for line in lines], indent=2) if as_json else _text(lines))


def _read(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        text = file.read(_MAXIMUM_FILE + 1)
    if len(text) > _MAXIMUM_FILE:
        raise ValueError(f"{path}: longer than {_MAXIMUM_FILE} bytes")
    try:
        tree = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}; allowed: TOML in UTF-8") from None
    if unknown := set(tree) - {"modality", "assumptions"}:
        raise ValueError(f"{path}: {min(unknown)} is unknown; allowed: modality, assumptions")
    return tree


def _tables(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("modality is not a list of tables; allowed: [[modality]]")
    return value


def _from_option(text: str) -> Modality:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(_FIELDS):
        raise ValueError(f"--modality {text!r}; allowed: {','.join(_FIELDS)}")
    return _modality({"name": parts[0], **dict(zip(_FIELDS[1:], map(_number, parts[1:]), strict=True))})


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    return int(value) if value.is_integer() else value


def _modality(table: Mapping[str, object]) -> Modality:
    _check(table, _FIELDS, "modality")
    if missing := set(_FIELDS) - set(table):
        raise ValueError(f"modality: {min(missing)} is missing; allowed: {', '.join(_FIELDS)}")
    return msgspec.convert(table, Modality)


def _assumptions(table: object) -> Assumptions:
    if not isinstance(table, dict):
        raise ValueError("assumptions is no table; allowed: [assumptions]")  # noqa: TRY004 - the file is wrong, not the code
    _check(table, [field.name for field in dataclasses.fields(Assumptions)], "assumptions")
    if wrong := [name for name in _SHARES if table.get(name, 0) > 1]:
        raise ValueError(f"assumptions.{wrong[0]} is {table[wrong[0]]}; allowed: above 0 to 1")
    return msgspec.convert(table, Assumptions)


def _check(table: Mapping[str, object], allowed: Sequence[str], name: str) -> None:
    """Known keys, and numbers that can be multiplied: finite, above 0, and whole where things are counted.

    Raises:
        ValueError: they are not; it names the first.
    """
    for key, value in table.items():
        if key not in allowed:
            raise ValueError(f"{name}.{key} is unknown; allowed: {', '.join(allowed)}")
        if key == "name":
            if not isinstance(value, str):
                raise ValueError(f"{name}.name is {value!r}; allowed: text")
        elif (
            isinstance(value, bool) or not isinstance(value, int | float) or not _least(key) <= value <= _MOST
        ):
            raise ValueError(
                f"{name}.{key} is {value!r}; allowed: a number from {_least(key):g} to {_MOST:g}"
            )
        elif key in _WHOLE and value != int(value):
            raise ValueError(f"{name}.{key} is {value}; allowed: a whole number")


def _least(key: str) -> float:
    if key in _MAY_BE_NOTHING:
        return 0.0
    return 1.0 if key in _WHOLE else _LEAST


def _text(lines: list[Line]) -> str:
    values = [f"{line.value:,.3g}" if line.value < _ROUND else f"{line.value:,.0f}" for line in lines]
    name_width = max(len(line.name) for line in lines)
    value_width = max(map(len, values))
    return "\n".join(
        f"{line.name:<{name_width}}  {value:>{value_width}} {line.unit:<9}  {line.formula}"
        for line, value in zip(lines, values, strict=True)
    )
