"""List, inspect, replay and discard what could not be read or identified."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from ingest.contract.audit.codes import QUARANTINE_DISCARD, QUARANTINE_REPLAY
from ingest.contract.audit.message import Action
from ingest.contract.command_folder import refuse_other_user
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Outcome, Place
from ingest.contract.settings import Settings
from workers.cli.decisions import audit_decision
from workers.cli.entry_tables import print_entry, print_lane
from workers.cli.opened import checked_text, opened_stores, print_json, warn_acknowledged
from workers.dataset.payload import Payload
from workers.errors import Reason
from workers.log.upload import Upload
from workers.pipeline import Pipeline, UncountedTries
from workers.pixels.codec import Codec
from workers.storage.entries import Entry, entries, find_entry
from workers.storage.layout import Area
from workers.storage.quarantine import CannotReplay, Placing, discard, replay
from workers.storage.stores import Stores


class ReplayedUpload(msgspec.Struct, frozen=True):
    """What `replay --json` prints for each upload of an entry; keys stay, new ones may come."""

    key: str
    upload_id: str  # 32 hex digits; empty where the entry was not touched
    place: Place
    reason: str


class DiscardedEntry(msgspec.Struct, frozen=True):
    """What `discard --json` prints for each entry; keys stay, new ones may come."""

    key: str
    sop_instance_uid: str
    uploads: int


class _Choice(NamedTuple):
    """Entries by name; without any, all but what unknown sources sent, or all that one of those sent."""

    named: tuple[str, ...]
    unknown: str | None = None

    def has(self, entry: Entry) -> bool:
        is_unknown = entry.reason == Reason.UNKNOWN_SOURCE
        if self.unknown is None:
            return not is_unknown
        return is_unknown and entry.manifest is not None and self.unknown == entry.manifest.calling_ae_title


@click.group()
def quarantine() -> None:
    """List, inspect, replay and discard what could not be read or identified.

    ENTRY is an entry's path, key, SOP Instance UID, or the first 8 or more digits of its source digest.
    """


@quarantine.command("list")
@data_settings
@json_option
def list_entries(settings: Settings, *, as_json: bool) -> None:
    """List the entries."""
    print_lane(settings, Area.QUARANTINE, as_json=as_json)


@quarantine.command()
@click.argument("entry")
@data_settings
@json_option
def show(settings: Settings, *, entry: str, as_json: bool) -> None:
    """Show why an entry is there, and all that is known of it."""
    with opened_stores(settings) as stores:
        print_entry(asyncio.run(find_entry(stores, Area.QUARANTINE, entry)), as_json=as_json)


@quarantine.command("replay")
@click.argument("entry", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every entry but those of unknown sources.")
@click.option("--unknown", metavar="AE", help="All that AE sent while it was of no source in the settings.")
@data_settings
@json_option
def replay_entries(
    settings: Settings, *, entry: tuple[str, ...], everything: bool, unknown: str | None, as_json: bool
) -> None:
    """Let entries pass through the pipeline again, as after an upgrade that reads more.

    Source, receive time and upload id stay. An entry goes only once its instance is durable elsewhere; one
    that is rejected again stays. Exit code 1 if any stays. What an unknown source sent is let in by this, so it must be
    named: as an entry, or by its calling AE title with --unknown.
    """
    if [bool(entry), everything, unknown is not None].count(True) != 1:
        raise click.UsageError("name entries, or give --all, or --unknown AE")
    refuse_other_user(settings)
    with opened_stores(settings, replaying=True) as stores:
        replayed = asyncio.run(_replay(stores, settings, _Choice(entry, unknown), tell=not as_json))
    if as_json:
        print_json(replayed)
    if any(one.place == Place.QUARANTINED for one in replayed):
        raise click.exceptions.Exit(1)


@quarantine.command("discard")
@click.argument("entry", nargs=-1)
@click.option("--unknown", metavar="AE", help="All that AE sent while it was of no source in the settings.")
@click.option("--reason", required=True, callback=checked_text, help="Kept with the record of the discard.")
@data_settings
@json_option
def discard_entries(
    settings: Settings, *, entry: tuple[str, ...], unknown: str | None, reason: str, as_json: bool
) -> None:
    """Delete entries for good; a record stays."""
    if bool(entry) == (unknown is not None):
        raise click.UsageError("name entries, or give --unknown AE")
    refuse_other_user(settings)
    with opened_stores(settings) as stores:
        choice = _Choice(entry, unknown)
        discarded = asyncio.run(_discard(stores, settings, choice, reason, tell=not as_json))
    if as_json:
        print_json(discarded)


async def _chosen(stores: Stores, choice: _Choice) -> AsyncIterator[Entry]:
    """Those named, once all of them are found; else one by one: a lane may have more than memory."""
    for entry in [await find_entry(stores, Area.QUARANTINE, one) for one in choice.named]:
        yield entry
    if not choice.named:
        async for entry in entries(stores, Area.QUARANTINE):
            if choice.has(entry):
                yield entry


async def _replay(stores: Stores, settings: Settings, choice: _Choice, *, tell: bool) -> list[ReplayedUpload]:
    """``tell``: print each as soon as it is done."""
    done: list[ReplayedUpload] = []
    async with _placing(stores, settings) as placing:
        async for entry in _chosen(stores, choice):
            warn_acknowledged(entry.manifest, entry.sop_instance_uid)
            try:
                replayed = await replay(stores, entry.name, placing)
                uploads = [
                    ReplayedUpload(entry.key, one.upload_id.hex(), one.place, one.reason) for one in replayed
                ]
            except CannotReplay as error:
                uploads = [ReplayedUpload(entry.key, "", Place.QUARANTINED, f"stays: {error}")]
            done += uploads
            outcome = ", ".join(f"{one.place} {one.reason}".strip() for one in uploads)
            audit_decision(
                settings, QUARANTINE_REPLAY, Action.UPDATE, entry.manifest, reason="", outcome=outcome
            )
            for one in uploads if tell else ():
                why = (
                    f"{one.reason}: {entry.detail}"
                    if one.reason == entry.reason and entry.detail
                    else one.reason
                )
                click.echo(f"{one.key}: {one.place}{f' ({why})' if why else ''}")
    return done


@asynccontextmanager
async def _placing(stores: Stores, settings: Settings) -> AsyncIterator[Placing]:
    """The workers' pipeline, for one upload at a time."""
    worker = settings.worker
    settings.data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="replay-", dir=settings.data) as scratch:
        async with Codec(
            memory=worker.codec_memory, timeout=worker.codec_timeout, frames=worker.codec_frames
        ) as codec:
            pipeline = Pipeline(stores, codec, settings, Path(scratch))

            async def place(upload_id: UploadId, instance: Instance, payload: Payload) -> Outcome:
                return await pipeline.place(Upload(upload_id, 0, instance, payload, 0, 0), UncountedTries())

            yield place


async def _discard(
    stores: Stores, settings: Settings, choice: _Choice, reason: str, *, tell: bool
) -> list[DiscardedEntry]:
    """``tell``: print each as soon as it is done."""
    done = []
    async for entry in _chosen(stores, choice):
        warn_acknowledged(entry.manifest, entry.sop_instance_uid)
        uploads = await discard(stores, entry.name, reason)
        audit_decision(settings, QUARANTINE_DISCARD, Action.DELETE, entry.manifest, reason=reason)
        done.append(DiscardedEntry(entry.key, entry.sop_instance_uid, uploads))
        if tell:
            click.echo(f"{entry.key}: discarded, {uploads} upload{'s' if uploads != 1 else ''}")
    return done
