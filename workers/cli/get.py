"""Fetch one stored instance as a PS3.10 file, its bytes proved."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ingest.contract.command_options import data_settings
from ingest.contract.identifiers import InvalidIdentifier, check_uid
from ingest.contract.settings import Settings
from workers.cli.opened import opened_stores
from workers.dataset.payload import FilePayload, SlicePayload
from workers.dataset.transfer_syntax import EXPLICIT_VR_LITTLE_ENDIAN
from workers.pixels.codec import Codec
from workers.stages.decompress import CannotDecompress, decompress, prove
from workers.stages.deduplicate import examine_stored
from workers.storage.damage import Damaged, Found, check_data_set, find_object
from workers.storage.layout import object_key
from workers.storage.part10 import encode_plain_head
from workers.storage.stores import Stores


def _uid(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return check_uid(value)
    except InvalidIdentifier as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--sop", "uid", required=True, callback=_uid, metavar="UID", help="SOP Instance UID.")
@click.argument("dest", type=click.Path(path_type=Path))
@click.option(
    "--decompress", "native", is_flag=True, help="As Explicit VR Little Endian, compared with the original."
)
@data_settings
def get(settings: Settings, *, uid: str, dest: Path, native: bool) -> None:
    """Fetch one stored instance as a PS3.10 file, its bytes proved.

    DEST is a file, or a folder in which the file is named by its UID. Exit code 1 where the instance is not
    stored, is damaged, or cannot be decompressed with proof; DEST is not written then.
    """
    target = dest / f"{uid}.dcm" if dest.is_dir() else dest
    with opened_stores(settings) as stores, _partial(target) as partial:
        try:
            found = asyncio.run(_fetch(stores, uid, partial))
            if native:
                with _partial(target) as other:
                    asyncio.run(_decompress(settings, partial, found, other))
                    other.replace(partial)
            partial.replace(target)
        except (Damaged, CannotDecompress) as error:
            raise click.ClickException(f"{uid}: {error}") from None
    click.echo(str(target))


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A file beside ``target`` that goes away unless it is renamed."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


async def _fetch(stores: Stores, uid: str, path: Path) -> Found:
    """Copy a stored object to ``path``, proved.

    Raises:
        click.ClickException: it is not there.
        Damaged: it is not what was stored.
    """
    key = object_key(uid)
    store = stores.of(key)
    found = await find_object(store, key)
    payload = None if found is None else await store.open(key)
    if found is None or payload is None:
        raise click.ClickException(f"{uid} is not stored")
    with payload, path.open("wb") as file:
        for block in payload.blocks():
            await asyncio.to_thread(file.write, block)
    with FilePayload(path) as copy:  # what is proved is what is handed out
        await asyncio.to_thread(check_data_set, copy, found)
    return found


async def _decompress(settings: Settings, path: Path, found: Found, target: Path) -> None:
    """Decompress the object at ``path`` to ``target``, with proof.

    Raises:
        CannotDecompress: there is no proof.
    """
    manifest, worker = found.manifest, settings.worker
    head = encode_plain_head(manifest, EXPLICIT_VR_LITTLE_ENDIAN)
    with FilePayload(path) as payload, tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
        data_set = SlicePayload(payload, found.head_size, manifest.size)
        original = await asyncio.to_thread(examine_stored, data_set, manifest, Path(scratch))
        async with Codec(memory=worker.codec_memory, timeout=worker.codec_timeout) as codec:
            with target.open("wb") as file:
                file.write(head)
                await decompress(original, codec, file.write)
            with FilePayload(target, offset=len(head)) as result:
                await prove(result, original, codec, Path(scratch))
