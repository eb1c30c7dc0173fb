"""Read every object back: manifest, length, digests, pixels."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ingest.contract.command_folder import refuse_other_user
from ingest.contract.command_options import data_settings, json_option
from ingest.contract.settings import Settings
from workers.cli.opened import opened_stores, print_json
from workers.dataset.digest import ContentDigests
from workers.dataset.payload import SlicePayload
from workers.errors import Unavailable
from workers.pixels.codec import Codec
from workers.pixels.digest import PixelDigest, matches
from workers.pixels.form import CodecFailed
from workers.pixels.frames import PixelData
from workers.stages.deduplicate import digest_of, examine_stored
from workers.stages.transcode import pixel_data_of
from workers.storage.damage import (
    Damaged,
    check_data_set,
    find_object,
    is_damaged,
    set_aside_if_damaged,
)
from workers.storage.lanes import is_reference
from workers.storage.layout import Area, Key, counted_as, is_entry, is_object, uid_of
from workers.storage.manifest import Manifest
from workers.storage.object_store import Listed, ObjectStore
from workers.storage.stores import Stores

_TRIES = 2  # of the codec, which may have been short of memory


class Problem(msgspec.Struct, frozen=True):
    """An object that is not proved."""

    sop_instance_uid: str
    path: str
    store: str
    key: str
    problem: str
    damaged: bool  # False: not proved, and not shown to be damaged either
    set_aside: str = ""  # its key in quarantine


class Report(msgspec.Struct):
    """What `verify --json` prints; keys stay, new ones may come."""

    objects: int = 0  # under UIDs
    entries: int = 0  # in the lanes
    bytes: int = 0
    set_aside_before: int = 0  # damaged ones that wait in quarantine
    problems: list[Problem] = []


class _Undecided(Exception):  # noqa: N818 - states what was found
    """Neither proved nor shown to be damaged."""


@click.command()
@click.option(
    "--set-aside/--report-only", "setting_aside", default=True,
    help="Move damaged objects to quarantine, so that the next resend repairs them, or only report.  "
    "[default: set aside]",
)  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), help="Codec processes.  [default: one a core]")
@data_settings
@json_option
def verify(settings: Settings, *, setting_aside: bool, processes: int | None, as_json: bool) -> None:
    """Read every object back: manifest, length, digests, pixels.

    Names what is damaged and sets it aside: it is moved whole to quarantine, and the next resend of the
    instance is stored in its place. The exit code is 1 then, and where anything could not be read. May run beside the
    workers.
    """
    if setting_aside:
        refuse_other_user(settings)
    with opened_stores(settings) as stores:
        check = _Check(stores, settings, processes or os.cpu_count() or 1, setting_aside=setting_aside)
        report = asyncio.run(check.run())
    if as_json:
        print_json(report)
    else:
        _print(report)
    if check.silence is not None:
        raise click.ClickException(f"{check.silence}; not all was read")
    if report.problems:
        raise click.exceptions.Exit(1)


def _print(report: Report) -> None:
    for problem in report.problems:
        aside = f"; set aside as {problem.set_aside}" if problem.set_aside else ""
        word = "damaged" if problem.damaged else "not proved"
        click.echo(f"{word}: {problem.path}: {problem.problem}{aside}")
    click.echo(
        f"{report.objects} objects and {report.entries} entries of the lanes, {report.bytes / 1e6:.1f} MB, "
        f"{len(report.problems)} not proved"
    )
    if report.set_aside_before:
        click.echo(f"{report.set_aside_before} damaged objects wait in quarantine")


class _Task(NamedTuple):
    store: ObjectStore
    listed: Listed


class _Check:
    """One run: several objects at once, each proved on its own."""

    def __init__(self, stores: Stores, settings: Settings, processes: int, *, setting_aside: bool) -> None:
        self._stores = stores
        self._settings = settings
        self._processes = processes
        self._setting_aside = setting_aside
        self._report = Report(problems=[])
        self.silence: Unavailable | None = None  # what ended it before all was read

    async def run(self) -> Report:
        """Check all; raises `Unavailable` where nothing could be listed."""
        worker = self._settings.worker
        codec = Codec(processes=self._processes, memory=worker.codec_memory, timeout=worker.codec_timeout)
        columns = (
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with (
            tempfile.TemporaryDirectory(prefix="verify-", dir=_writable(self._settings.data)) as scratch,
            Progress(*columns, console=Console(stderr=True)) as bar,
        ):
            task = bar.add_task("verify", total=sum([one.listed.size async for one in self._all()]))
            async with codec:
                await self._run(codec, Path(scratch), bar, task)
        self._report.problems.sort(key=lambda problem: problem.path)
        return self._report

    async def _run(self, codec: Codec, scratch: Path, bar: Progress, task: TaskID) -> None:
        queue: asyncio.Queue[_Task | None] = asyncio.Queue(2 * self._processes)

        async def work() -> None:
            while (one := await queue.get()) is not None:
                await self._one(one, codec, scratch)
                bar.advance(task, one.listed.size)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._processes + 1):  # one more, so that the disk is read while all codecs work
                group.create_task(work())
            try:
                async for one in self._all():
                    await queue.put(one)
            except Unavailable as silence:
                self.silence = silence
            for _ in range(self._processes + 1):
                await queue.put(None)

    async def _all(self) -> AsyncIterator[_Task]:
        for area in (Area.OBJECTS, Area.CONFLICTS, Area.QUARANTINE):
            async for listed in self._stores.find(area):
                if not is_reference(listed.key):
                    yield _Task(self._stores.of(listed.key), listed)

    async def _one(self, one: _Task, codec: Codec, scratch: Path) -> None:
        key, report = one.listed.key, self._report
        if is_damaged(key):
            report.set_aside_before += 1
            return
        report.bytes += one.listed.size
        if key.area is Area.OBJECTS:
            report.objects += 1
        else:
            report.entries += 1
        try:
            manifest = await self._prove(one, codec, scratch)
        except Damaged as damage:
            report.problems.append(await self._set_aside(one, str(damage)))
        except (_Undecided, Unavailable) as undecided:
            report.problems.append(_problem(one, str(undecided), "", damaged=False))
        else:
            # None: an administrator or a repair has taken it away since it was listed.
            report.bytes -= one.listed.size if manifest is None else 0

    async def _prove(self, one: _Task, codec: Codec, scratch: Path) -> Manifest | None:
        """Prove an object.

        Raises:
            Damaged: it is not what was stored.
            _Undecided: the codec failed to tell.
        """
        key = one.listed.key
        if not _is_ours(key):
            raise _Undecided("not an object of ours; it does not belong here")
        found = await find_object(one.store, key)
        payload = None if found is None else await one.store.open(key)
        if found is None or payload is None:
            return None
        with payload:
            data_set = await asyncio.to_thread(check_data_set, payload, found)
            if key.area is Area.OBJECTS:
                await _prove_content(data_set, found.manifest, codec, scratch)
        return found.manifest

    async def _set_aside(self, one: _Task, why: str) -> Problem:
        """Set aside what is still damaged under the lock, if that is wanted."""
        key, moved = one.listed.key, None
        if self._setting_aside:
            try:
                moved = await set_aside_if_damaged(one.store, key, counted_as(key), why)
            except Unavailable as error:
                why = f"{why}; it could not be set aside: {error}"
        return _problem(one, why, str(moved or ""), damaged=True)


async def _prove_content(data_set: SlicePayload, manifest: Manifest, codec: Codec, scratch: Path) -> None:
    """Compare content digest c1, its pixels too, with what the manifest says.

    Raises:
        Damaged: they differ.
        _Undecided: the codec failed to tell.
    """
    examination = await asyncio.to_thread(examine_stored, data_set, manifest, scratch)
    said = ContentDigests(manifest.identity_digest, manifest.elements_digest)
    if manifest.elements_digest and examination.digests != said:
        raise Damaged("the elements have not the digest that the manifest says")
    if manifest.pixels is not None:
        await _prove_pixels(pixel_data_of(examination), digest_of(manifest.pixels), codec)


async def _prove_pixels(pixels: PixelData | None, expected: PixelDigest | None, codec: Codec) -> None:
    """Compare the decoded pixels with their digest; either is None where there are none.

    Raises:
        Damaged: they differ.
        _Undecided: the codec failed to tell.
    """
    if pixels is None and expected is None:
        return
    if pixels is None or expected is None:
        raise Damaged("pixels are there where the manifest has none, or the reverse")
    for attempt in range(_TRIES):
        try:
            if not await matches(pixels, expected, codec):
                raise Damaged("the decoded pixels have not the digest that the manifest says")
        except CodecFailed as failure:
            if attempt + 1 == _TRIES:
                raise _Undecided(f"the pixels could not be decoded: {failure}") from None
        else:
            return


def _writable(folder: Path) -> Path | None:
    """The folder; None, for the system's own, where it is on a disk that is mounted read-only, or another's."""
    return folder if os.access(folder, os.W_OK) else None


def _is_ours(key: Key) -> bool:
    return is_object(key) if key.area is Area.OBJECTS else is_entry(key)


def _problem(one: _Task, text: str, moved: str, *, damaged: bool) -> Problem:
    key = one.listed.key
    uid = uid_of(key) if _is_ours(key) else ""
    path, name = _printable(one.store.locate(key)), _printable(str(key))
    return Problem(uid, path, one.store.name, name, text, damaged, moved)


def _printable(name: str) -> str:
    """A file's name, which may be no text to us."""
    return os.fsencode(name).decode(errors="backslashreplace")
