"""List, inspect and resolve other content that came under a known SOP Instance UID."""

import asyncio
import re

import click

from ingest.contract.audit.codes import CONFLICT_RESOLVE
from ingest.contract.audit.message import Action
from ingest.contract.command_folder import refuse_other_user
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.settings import Settings
from workers.cli.decisions import audit_decision
from workers.cli.entry_tables import all_entries, print_entry, print_lane
from workers.cli.opened import checked_text, checked_uid, opened_stores, print_json, warn_acknowledged
from workers.storage.damage import Damaged, find_object
from workers.storage.entries import Entry
from workers.storage.layout import Area, object_key
from workers.storage.manifest import Manifest
from workers.storage.resolution import CannotResolve, Resolution, resolve
from workers.storage.stores import Stores

_DIGEST = re.compile(r"[0-9a-f]{8,64}\Z")


def _digest(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _DIGEST.match(value):
        raise click.BadParameter("the first 8 to 64 lowercase hex digits of a source digest")
    return value


_uid_argument = click.argument("uid", callback=checked_uid)


@click.group()
def conflicts() -> None:
    """List, inspect and resolve other content that came under a known SOP Instance UID.

    The first content stays current until one of the others is preferred.
    """


@conflicts.command("list")
@data_settings
@json_option
def list_conflicts(settings: Settings, *, as_json: bool) -> None:
    """List the contents that are kept and not current."""
    print_lane(settings, Area.CONFLICTS, as_json=as_json)


@conflicts.command()
@_uid_argument
@data_settings
@json_option
def show(settings: Settings, *, uid: str, as_json: bool) -> None:
    """Show the current content of UID and the others, and what differs."""
    with opened_stores(settings) as stores:
        current, others = asyncio.run(_of(stores, uid))
    if as_json:
        print_json({"current": current, "others": others})
        return
    if current is None and not others:
        raise click.ClickException(f"nothing is stored under {uid}, and nothing is in conflict with it")
    click.echo(f"current: {current.source_digest if current else 'none'}")
    for entry in others:
        click.echo("")
        print_entry(entry, as_json=False)


@conflicts.command("resolve")
@_uid_argument
@click.option("--prefer", required=True, metavar="DIGEST", callback=_digest, help="Its source digest.")
@click.option(
    "--reason",
    required=True,
    metavar="TEXT",
    callback=checked_text,
    help="Kept with the record of the decision.",
)
@data_settings
@json_option
def resolve_conflict(settings: Settings, *, uid: str, prefer: str, reason: str, as_json: bool) -> None:
    """Make the content of source digest DIGEST current under UID; what was current is kept in the lane.

    May be interrupted at any time: the same command, or the next start of a worker, ends it.
    """
    refuse_other_user(settings)
    with opened_stores(settings) as stores:
        try:
            resolution, preferred = asyncio.run(_resolve(stores, uid, prefer, reason))
        except CannotResolve as error:
            raise click.ClickException(str(error)) from None
    audit_decision(settings, CONFLICT_RESOLVE, Action.UPDATE, preferred, reason=reason)
    if as_json:
        print_json(resolution)
    else:
        click.echo(f"{uid}: {resolution.prefer[:12]} is current, {resolution.first[:12] or 'nothing'} was")


async def _of(stores: Stores, uid: str) -> tuple[Manifest | None, list[Entry]]:
    key = object_key(uid)
    try:
        found = await find_object(stores.of(key), key)
    except Damaged as damage:
        click.echo(f"warning: the current content is damaged: {damage}", err=True)
        found = None
    others = await all_entries(stores, Area.CONFLICTS, uid)
    return found.manifest if found else None, others


async def _resolve(stores: Stores, uid: str, prefix: str, reason: str) -> tuple[Resolution, Manifest | None]:
    current, others = await _of(stores, uid)
    manifests = [current, *(entry.manifest for entry in others)]
    for manifest in manifests:
        warn_acknowledged(manifest, uid)
    fitting = {entry.source_digest for entry in others if entry.source_digest.startswith(prefix)}
    if current is not None and current.source_digest.startswith(prefix):
        fitting.add(current.source_digest)  # an interrupted one, or none is needed
    if len(fitting) != 1:
        raise CannotResolve(f"{len(fitting)} contents of that UID have a digest that begins so")
    digest = fitting.pop()
    preferred = next((one for one in manifests if one is not None and one.source_digest == digest), None)
    return await resolve(stores, uid, digest, reason), preferred
