"""Entries of a lane on the terminal, and for scripts."""

from collections.abc import Sequence

import click
import msgspec
from rich.console import Console
from rich.table import Table

from workers.cli.opened import print_json, time_text
from workers.storage.entries import Entry


def print_entries(found: Sequence[Entry], *, as_json: bool) -> None:
    """Print a list of entries: an array, or a table."""
    if as_json:
        print_json([_without_manifest(entry) for entry in found])
        return
    if not found:
        click.echo("no entries")
        return
    table = Table("SOP Instance UID", "source digest", "reason", "uploads", "received", "from", box=None)
    for entry in found:
        manifest = entry.manifest
        table.add_row(
            entry.sop_instance_uid or "-",
            entry.source_digest[:12] or "-",
            ", ".join(entry.classes) or entry.reason + (f" -> {entry.moved_to}" if entry.moved_to else ""),
            str(entry.repeats + 1),
            time_text(manifest.received_at) if manifest else "-",
            manifest.calling_ae_title if manifest else "-",
        )
    Console(soft_wrap=True).print(table)


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
