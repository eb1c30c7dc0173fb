"""Show which store has which shards, add a store, and spread the shards evenly."""

import asyncio
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ingest.contract.command_folder import refuse_other_user
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.settings import Settings
from workers.cli.opened import clear_store_failures, print_json
from workers.storage.rebalance import Progress as Moved
from workers.storage.rebalance import add_store, newest_map, rebalance, shard_counts
from workers.storage.roots import place_of, roots_of
from workers.storage.shard_map import read_identity, read_map


@click.group()
def shards() -> None:
    """Show which store has which shards, add a store, and spread the shards evenly.

    There are 4096 shards; one is the first 3 hex digits of the SHA-256 of the SOP Instance UID.
    """


@shards.command()
@data_settings
@json_option
def show(settings: Settings, *, as_json: bool) -> None:
    """Show the stores of the shard map, and how many shards each has."""
    with clear_store_failures():
        roots = roots_of(settings.store_locations, settings.store)
        newest = newest_map(roots)
        found = {
            identity.name: root
            for root in roots
            if (identity := read_identity(root)) is not None and identity.stores == newest.set_id
        }
        agreed = all(read_map(root) == newest for root in found.values()) and len(found) == len(roots)
    rows = [
        {"store": name, "directory": str(found.get(name, "")), "shards": count}
        for name, count in shard_counts(newest).items()
    ]
    if as_json:
        report = {"version": newest.version, "agreed": agreed, "stores": rows, "emptying": newest.emptying}
        print_json(report)
        return
    click.echo(f"shard map version {newest.version}")
    for row in rows:
        click.echo(f"{row['store']:<12} {row['shards']:>5} shards  {row['directory'] or 'not configured'}")
    if not agreed:
        click.echo("the stores do not agree: `dicom-ingest shards rebalance` ends an interrupted change")


@shards.command()
@click.argument("store")
@data_settings
def add(settings: Settings, *, store: str) -> None:
    """Make STORE, a directory or URL, a store, without moving anything; no worker may run.

    Then name it in store.directories or store.urls, and `shards rebalance` when it suits.
    """
    try:
        place = place_of(store)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    refuse_other_user(settings)
    with clear_store_failures():
        name = add_store(settings.store_locations, place, settings.store)
    setting = "store.directories" if isinstance(place, Path) else "store.urls"
    click.echo(f"{place} is {name}; name it in the setting {setting}")


@shards.command("rebalance")
@data_settings
def rebalance_shards(settings: Settings) -> None:
    """Move shards until all stores have equally many; no worker may run.

    May be interrupted at any time; the same command goes on.
    """
    refuse_other_user(settings)
    columns = TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with clear_store_failures():
        newest_map(roots_of(settings.store_locations, settings.store))
    with clear_store_failures(), Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("shards", total=None)

        def show_progress(moved: Moved) -> None:
            bar.update(task, completed=moved.done, total=moved.planned)

        count = asyncio.run(rebalance(settings.store_locations, settings.store, progress=show_progress))
        bar.update(task, completed=count, total=count)
    click.echo(f"{count} shards moved")
