"""Fetch stored instances as PS3.10 files, their bytes proved: one, or those of a study."""

import asyncio
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ingest.contract.command_folder import warn_of_no_data
from ingest.contract.command_options import EXIT_FAILURE, data_settings
from ingest.contract.identifiers import check_uid
from ingest.contract.records import Place
from ingest.contract.settings import Settings
from workers.cli.ledger_book import clear_ledger_failures, opened_ledger
from workers.cli.opened import checked_uid, opened_stores
from workers.dataset.payload import FilePayload, SlicePayload
from workers.dataset.transfer_syntax import EXPLICIT_VR_LITTLE_ENDIAN
from workers.ledger.questions import of_study
from workers.pixels.codec import Codec
from workers.stages.decompress import CannotDecompress, decompress, prove
from workers.stages.deduplicate import examine_stored
from workers.storage.damage import Damaged, Found, check_data_set, find_object
from workers.storage.layout import object_key
from workers.storage.object_store import StoredBytes
from workers.storage.part10 import encode_plain_head
from workers.storage.stores import Stores

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@click.command()
@click.option("--sop", "uid", callback=checked_uid, metavar="UID", help="SOP Instance UID.")
@click.option(
    "--study", callback=checked_uid, metavar="UID", help="Study Instance UID: all of it that is stored."
)
@click.argument("dest", type=click.Path(path_type=Path))
@click.option(
    "--decompress", "native", is_flag=True, help="As Explicit VR Little Endian, compared with the original."
)
@data_settings
def get(settings: Settings, *, uid: str | None, study: str | None, dest: Path, native: bool) -> None:
    """Fetch stored instances as PS3.10 files, their bytes proved: one, or those of a study.

    DEST is a file, or a folder in which each file is named by its SOP Instance UID; of a study a folder, made if need
    be. Exit code 1 where an instance is not stored, is damaged, or cannot be decompressed with proof; its file is not
    written then.
    """
    if (uid is None) == (study is None):
        raise click.UsageError("one of --sop and --study")
    if study is not None:
        _get_study(settings, study, dest, native=native)
        return
    assert uid is not None
    with opened_stores(settings) as stores:
        try:
            click.echo(str(_get(settings, stores, uid, dest, native=native)))
        except (Damaged, CannotDecompress) as error:
            raise click.ClickException(f"{uid}: {error}") from None


def _get_study(settings: Settings, study: str, folder: Path, *, native: bool) -> None:
    if warn_of_no_data(settings):  # a ledger is not begun for a question
        raise click.exceptions.Exit(EXIT_FAILURE)
    with clear_ledger_failures(settings), opened_ledger(settings) as ledger:
        rows = of_study(ledger, study)
    stored = sorted({row.sop_instance_uid for row in rows if row.place == Place.STORED})
    if not stored:
        raise click.ClickException(f"nothing is stored of study {study}; see `find --study`")
    failed = 0
    with opened_stores(settings) as stores:
        folder.mkdir(exist_ok=True)
        for uid in stored:
            try:
                click.echo(str(_get(settings, stores, uid, folder, native=native)))
            except (Damaged, CannotDecompress, click.ClickException) as error:
                message = error.message if isinstance(error, click.ClickException) else str(error)
                click.echo(f"{uid}: {message}", err=True)
                failed += 1
    apart = sum(row.place in {Place.CONFLICT, Place.QUARANTINED} for row in rows)
    if apart:
        click.echo(f"{apart} more are set apart: see `find --study {study}`", err=True)
    if failed:
        raise click.ClickException(f"{failed} of {len(stored)} instances were not fetched")


def _get(settings: Settings, stores: Stores, uid: str, dest: Path, *, native: bool) -> Path:
    """Fetch one instance; returns its file.

    Raises:
        click.ClickException: it is not stored.
        Damaged: it is not what was stored.
        CannotDecompress: there is no proof.
    """
    target = dest / f"{check_uid(uid)}.dcm" if dest.is_dir() else dest
    with _partial(target) as partial:
        found = asyncio.run(_fetch(stores, uid, partial))
        if native:
            with _partial(target) as other:
                asyncio.run(_decompress(settings, partial, found, other))
                other.replace(partial)
        partial.replace(target)
    return target


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A file beside ``target`` that goes away unless it is renamed."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
    os.close(descriptor)
    try:
        yield Path(name)
    except OSError as error:
        if error.errno in _NO_SPACE:  # which nothing that is only read can say: it is not the store's
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise
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
        for block in _blocks(payload):
            await asyncio.to_thread(file.write, block)
    with FilePayload(path) as copy:  # what is proved is what is handed out
        await asyncio.to_thread(check_data_set, copy, found)
    return found


def _blocks(payload: StoredBytes) -> Iterator[memoryview]:
    """All bytes in order.

    Raises:
        Damaged: they cannot be read.
    """
    try:
        yield from payload.blocks()
    except OSError as error:
        raise Damaged(f"cannot be read: {error.strerror}") from None


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
