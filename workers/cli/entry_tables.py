"""Entries of a lane on the terminal, and for scripts."""

from collections.abc import Sequence

import click
import msgspec

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
    rows: list[tuple[str, ...]] = [
        ("SOP Instance UID", "source digest", "reason", "uploads", "received", "from")
    ]
    rows += [_row(entry) for entry in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        # Not a table that fits the terminal: a UID must come out whole, to be copied.
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


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
