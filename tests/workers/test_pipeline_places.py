"""The pipeline over real stores and a real codec: every upload has the one place that the rules give it."""

import asyncio
import contextlib
import os
import signal
import threading
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xxhash

from ingest.contract.identifiers import UploadId
from ingest.contract.records import Instance, Place
from ingest.contract.settings import Settings
from tests.support.bad_place import BadPlace
from tests.support.scu import CT, EXPLICIT, ct_data_set
from workers import pipeline
from workers.dataset.payload import MemoryPayload
from workers.dataset.transfer_syntax import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
from workers.errors import Spoiled, Unavailable
from workers.log.scratch import ScratchPayload
from workers.log.upload import Upload
from workers.pipeline import Pipeline, UncountedTries, Work
from workers.pixels.codec import Codec
from workers.stages.validate import Examination, validate
from workers.storage.directory_store import DirectoryStore
from workers.storage.layout import object_key
from workers.storage.part10 import HEAD, Head, decode_head
from workers.storage.stores import Stores, open_stores

UID = "1.2.826.7"
DATA = ct_data_set(UID, 40_000)


def upload(
    sequence: int, data: bytes = DATA, *, uid: str = UID, syntax: str = EXPLICIT, damage: str = ""
) -> Upload:
    instance = Instance(
        CT, uid, syntax, len(data), xxhash.xxh3_128_digest(data), "MODALITY", "INGEST", "127.0.0.1", 1
    )
    return Upload(UploadId.of(1, 1, sequence), 0, instance, MemoryPayload([data]), 0, sequence + 1, damage)


class Line:
    """A pipeline and what it works with."""

    def __init__(self, stores: Stores, codec: Codec, pipeline: Pipeline) -> None:
        self.stores = stores
        self.codec = codec
        self.pipeline = pipeline

    async def place(self, one: Upload, tries: UncountedTries | None = None) -> tuple[Place, str]:
        outcome = await self.pipeline.place(one, tries or UncountedTries())
        assert outcome.end_position == one.end_position
        return outcome.place, outcome.reason

    async def head(self, uid: str = UID) -> Head:
        key = object_key(uid)
        start = await self.stores.of(key).start(key, HEAD)
        assert start is not None
        return decode_head(start.data)


def run(
    folder: Path, scenario: Callable[[Line], Awaitable[None]], *, encode: bool = True, **worker: float
) -> None:
    """Run a scenario with a pipeline in ``folder``."""
    settings = Settings.model_validate({"data": folder, "worker": worker, "transcode": {"enabled": encode}})
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)

    async def main() -> None:
        memory, timeout = settings.worker.codec_memory, settings.worker.codec_timeout
        with open_stores(settings.store_locations) as stores:
            async with Codec(memory=memory, timeout=timeout) as codec:
                await scenario(Line(stores, codec, Pipeline(stores, codec, settings, scratch)))

    asyncio.run(main())


def test_copies_conflicts_and_replays_have_their_places(tmp_path: Path) -> None:
    """The first is stored, its replay too; the same bytes are a duplicate, other content is a conflict."""

    async def scenario(line: Line) -> None:
        other_pixel = DATA[:-1] + b"\x01"
        other_name = DATA.replace(b"Doe^Jane", b"Roe^Jane")
        assert await line.place(upload(1)) == (Place.STORED, "")
        assert (await line.head()).manifest.transfer_syntax_uid == "1.2.840.10008.1.2.4.90"
        assert await line.place(upload(1)) == (Place.STORED, "")
        assert await line.place(upload(2)) == (Place.DUPLICATE, "")
        for _ in range(2):
            assert await line.place(upload(3, other_pixel)) == (Place.CONFLICT, "pixels")
            assert await line.place(upload(4, other_name)) == (Place.CONFLICT, "identity")
            assert await line.place(upload(5, other_pixel)) == (Place.CONFLICT, "pixels")
        assert (await line.head()).manifest.upload == UploadId.of(1, 1, 1)

    run(tmp_path, scenario)


@pytest.mark.parametrize(("syntax", "here"), [(EXPLICIT, True), (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, False)])
def test_a_short_data_set_is_examined_without_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, *, here: bool
) -> None:
    """But for one that is deflated: what it inflates to may be a thousand times as long."""
    threads: list[threading.Thread] = []

    def watched(*arguments: Any) -> Examination:
        threads.append(threading.current_thread())
        return validate(*arguments)

    async def scenario(line: Line) -> None:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = DATA if here else deflater.compress(DATA) + deflater.flush()
        data += bytes(len(data) % 2)
        assert await line.place(upload(1, data, syntax=syntax)) == (Place.STORED, "disabled")

    monkeypatch.setattr(pipeline, "validate", watched)
    run(tmp_path, scenario, encode=False)
    assert [thread is threading.main_thread() for thread in threads] == [here]


def test_what_cannot_be_read_is_kept_with_its_reason(tmp_path: Path) -> None:
    """Rejected uploads go to quarantine, and a good copy of the same UID is stored afterwards."""

    async def scenario(line: Line) -> None:
        cut = upload(1, DATA[:200])
        unidentified = upload(2, DATA.replace(b"1.2.3.4\0", b"1.2.3.x\0"))
        broken_seal = upload(3)
        broken_seal = Upload(
            broken_seal.upload_id, 0, broken_seal.instance, MemoryPayload([DATA[:-1] + b"\x55"]), 0, 4
        )
        lost = upload(4, damage="2 of 3 parts are there, and 0 beyond")
        nameless = upload(5, b"", uid="", damage="its record fails its check sum")
        for one, reason in (
            (cut, "truncated"),
            (unidentified, "identity"),
            (broken_seal, "seal"),
            (lost, "damaged-in-log"),
            (nameless, "damaged-in-log"),
        ):
            for _ in range(2):  # a replay
                assert await line.place(one) == (Place.QUARANTINED, reason)
        assert await line.place(upload(6)) == (Place.STORED, "")

    run(tmp_path, scenario)


@pytest.mark.parametrize("damage", ["", "2 of 3 parts are there, and 0 beyond"])
def test_scratch_that_cannot_be_read_is_tried_again(tmp_path: Path, damage: str) -> None:
    """Whether an upload is to be stored or goes to quarantine: the disk's error is no fact about it, and ends nothing."""

    async def scenario(line: Line) -> None:
        file = tmp_path / "scratch" / "0-1"
        waiting = replace(upload(1, damage=damage), payload=ScratchPayload(file.name, file, len(DATA)))
        with pytest.raises(Unavailable, match="scratch"):
            await line.place(waiting)
        file.write_bytes(DATA)
        assert (await line.place(waiting))[0] is (Place.QUARANTINED if damage else Place.STORED)

    run(tmp_path, scenario)


def in_scratch(folder: Path, sequence: int = 1) -> Upload:
    """An upload whose bytes are in a scratch file."""
    path = folder / "scratch" / f"0-{sequence}"
    path.write_bytes(DATA)
    file = ScratchPayload(path.name, path, len(DATA))
    return replace(upload(sequence), payload=file, file=file)


def flip(path: Path) -> None:
    """As a disk does that rots: a bit of the last pixel."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def test_rot_of_a_scratch_file_is_taken_for_the_logs_only_when_it_comes_again(tmp_path: Path) -> None:
    """The log may have the right bytes: it is read once more before the instance is set apart."""

    async def scenario(line: Line) -> None:
        one, tries = in_scratch(tmp_path), UncountedTries()
        flip(tmp_path / "scratch" / "0-1")
        with pytest.raises(Spoiled, match="scratch"):
            await line.place(one, tries)
        tries.failed()
        assert await line.place(one, tries) == (Place.QUARANTINED, "seal")

    run(tmp_path, scenario)


def test_a_bad_place_of_the_scratch_disk_is_left_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried again where it lies, the upload would wait until somebody starts the worker anew: the log is read again."""

    async def scenario(line: Line) -> None:
        one, tries = in_scratch(tmp_path), UncountedTries()
        BadPlace(tmp_path / "scratch" / "0-1", 0, monkeypatch)
        with pytest.raises(Spoiled, match=r"scratch: Input/output error"):
            await line.place(one, tries)
        tries.failed()
        with pytest.raises(Unavailable, match="scratch"):  # the next process, where the whole disk is bad
            await line.place(one, tries)
        (tmp_path / "scratch" / "0-1").rename(tmp_path / "bad")
        assert await line.place(in_scratch(tmp_path), tries) == (Place.STORED, "")

    run(tmp_path, scenario)


@pytest.mark.parametrize("behind", ["_seal", "_validate", "_transcode"])
@pytest.mark.parametrize("encode", [True, False])
def test_nothing_is_made_of_scratch_that_rots_once_its_seal_was_checked(
    tmp_path: Path, behind: str, encode: bool
) -> None:
    """Whatever was made of it by then, a sound copy is stored, and only that."""

    async def scenario(line: Line) -> None:
        sound = line.pipeline.stages
        file = tmp_path / "scratch" / "0-1"

        async def rot(_: Work) -> None:
            flip(file)

        at = [stage.__name__ for stage in sound].index(behind) + 1
        line.pipeline.stages = (*sound[:at], rot, *sound[at:])
        with pytest.raises(Spoiled, match="scratch"):
            await line.place(in_scratch(tmp_path))
        key = object_key(UID)
        assert await line.stores.of(key).start(key, HEAD) is None
        line.pipeline.stages = sound
        assert await line.place(in_scratch(tmp_path)) == (Place.STORED, "" if encode else "disabled")

    run(tmp_path, scenario, encode=encode)


def test_an_upload_that_has_had_its_tries_goes_on_without_the_codec(tmp_path: Path) -> None:
    """After the configured tries it is stored as received; after twice as many it is not even read."""

    async def scenario(line: Line) -> None:
        tries = UncountedTries()
        tries.count = 3
        assert await line.place(upload(1), tries) == (Place.STORED, "crashed")
        head = await line.head()
        assert head.manifest.transfer_syntax_uid == EXPLICIT
        assert head.manifest.digest == head.manifest.source_digest
        assert not line.codec.pids
        tries.count = 6
        assert await line.place(upload(2, ct_data_set("1.2.9"), uid="1.2.9"), tries) == (
            Place.QUARANTINED,
            "attempts",
        )

    run(tmp_path, scenario)


def has_a_frame(pid: int) -> bool:
    """Whether a codec process has started and been given something to work on, in the memory it shares."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        links = Path(f"/proc/{pid}/fd").iterdir()
        return any("memfd:codec" in str(link.readlink()) and link.stat().st_size for link in links)
    return False


@pytest.mark.real
def test_a_codec_that_dies_costs_an_upload_its_tries_and_no_more(tmp_path: Path) -> None:
    """A codec killed again and again ends in the received bytes, with the tries counted; the next is transcoded."""

    async def scenario(line: Line) -> None:
        tries = UncountedTries()
        data = ct_data_set(UID, 8_000_000)
        placing = asyncio.create_task(line.place(upload(1, data), tries))
        while not placing.done():
            for pid in line.codec.pids:
                if has_a_frame(pid):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0)
        assert await placing == (Place.STORED, "crashed")
        assert tries.count == 2
        other = ct_data_set("1.2.9", 8_000)
        assert await line.place(upload(2, other, uid="1.2.9")) == (Place.STORED, "")

    run(tmp_path, scenario, attempts=2)


def test_a_scratch_folder_without_room_is_nobodys_fault(tmp_path: Path) -> None:
    """Trouble with the scratch folder holds the upload; with the folder back it is stored."""

    async def scenario(line: Line) -> None:
        large = upload(1, ct_data_set(UID, 3_000_000))
        (tmp_path / "scratch").rmdir()
        with pytest.raises(Unavailable):
            await line.place(large)
        (tmp_path / "scratch").mkdir()
        assert await line.place(large) == (Place.STORED, "")

    run(tmp_path, scenario, memory_limit=1024 * 1024)


def test_nothing_is_read_for_a_store_that_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands may wait and try again every minute: their bytes are not hashed each time."""

    def refuse(_: DirectoryStore) -> None:
        raise Unavailable("left alone", 1.0)

    async def scenario(line: Line) -> None:
        one = upload(1)
        unreadable = replace(one, payload=MemoryPayload([]))
        monkeypatch.setattr(DirectoryStore, "refuse_at_rest", refuse)
        with pytest.raises(Unavailable, match="left alone"):
            await line.pipeline.place(unreadable, UncountedTries())
        monkeypatch.undo()
        assert await line.place(one) == (Place.STORED, "")

    run(tmp_path, scenario)
