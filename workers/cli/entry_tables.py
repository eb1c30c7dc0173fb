"""Entries of a lane on the terminal, and for scripts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from textwrap import indent
from typing import Final

import click
import msgspec

from ingest.contract.checkpoint import has_placed
from ingest.contract.command_columns import aligned
from ingest.contract.command_failures import clear_failures
from ingest.contract.command_folder import warn_of_no_data
from ingest.contract.settings import Settings
from workers.cli.opened import has_stores, opened_stores, print_json, time_text
from workers.storage.entries import Entry, entries
from workers.storage.layout import Area
from workers.storage.stores import Stores

_NONE: Final = "no entries"
_HEAD: Final = ("SOP Instance UID", "source digest", "reason", "uploads", "received", "from")
_PAGE: Final = 1000  # rows that share their columns


def print_lane(settings: Settings, area: Area, *, as_json: bool) -> None:
    """Print the entries of a lane; of one where no worker has ever worked, that there are none.

    Raises:
        click.ClickException: the stores cannot be used.
    """
    warn_of_no_data(settings)
    if not has_stores(settings) and not _has_placed(settings):
        click.echo("[]" if as_json else _NONE)
        return
    with opened_stores(settings) as stores:
        found = entries(stores, area)
        asyncio.run(_print_array(found) if as_json else _print_table(found))


def _has_placed(settings: Settings) -> bool:
    with clear_failures(settings):
        return has_placed(settings.data)


async def all_entries(stores: Stores, area: Area, folder: str = "") -> list[Entry]:
    """See `entries`."""
    return [entry async for entry in entries(stores, area, folder)]


async def _print_array(found: AsyncIterator[Entry]) -> None:
    """As `print_json` would, but one by one: a lane may have more than memory."""
    before = "["
    async for entry in found:
        text = msgspec.json.format(msgspec.json.encode(_without_manifest(entry)), indent=2).decode()
        click.echo(before + indent("\n" + text, "  "), nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


async def _print_table(found: AsyncIterator[Entry]) -> None:
    rows: list[tuple[str, ...]] = []
    some = False
    async for entry in found:
        some = True
        rows.append(_row(entry))
        if len(rows) == _PAGE:
            _print_rows(rows)
            rows = []
    if rows:
        _print_rows(rows)
    if not some:
        click.echo(_NONE)


def _print_rows(rows: Sequence[tuple[str, ...]]) -> None:
    # Not a table that fits the terminal: a UID must come out whole, to be copied.
    click.echo("\n".join(aligned([_HEAD, *rows])))


def _row(entry: Entry) -> tuple[str, ...]:
    manifest = entry.manifest
    reason = ", ".join(entry.classes) or entry.reason
    return (
        entry.sop_instance_uid or "-",
        entry.source_digest[:12] or "-",
        f"{reason} -> {entry.moved_to}" if entry.moved_to else reason,
        str(entry.repeats + 1),
        time_text(manifest.received_at) if manifest else "-",
        manifest.calling_ae_title if manifest else "-",
    )


def print_entry(entry: Entry, *, as_json: bool) -> None:
    """Print all of one entry."""
    if as_json:
        print_json(entry)
        return
    facts = _without_manifest(entry)
    if entry.manifest is not None:
        facts |= msgspec.to_builtins(entry.manifest)
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        shown = value
        if name in {"received_at", "placed_at"} and isinstance(value, int):
            shown = time_text(value)
        text = ", ".join(map(str, shown)) if isinstance(shown, list | tuple) else str(shown)
        click.echo(f"{name:<{width}}  {text}")


def _without_manifest(entry: Entry) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(entry)
    facts.pop("manifest")
    return facts
