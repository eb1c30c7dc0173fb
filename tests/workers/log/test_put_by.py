"""An upload that waits for the world is put by, out of memory; what cannot be put by leaves nothing on the disk."""

import asyncio
import errno
from collections.abc import Iterable
from pathlib import Path

import pytest

from ingest.contract.checkpoint import Checkpoint
from ingest.contract.identifiers import UploadId
from ingest.contract.records import Kind, decode, encode_header
from workers.dataset.payload import MemoryPayload
from workers.log.checkpoint import Progress
from workers.log.entries import DamagedRecord, LogRecord
from workers.log.reassembly import Reassembler
from workers.log.scratch import ScratchFolder
from workers.log.upload import Upload, unknown

DATA = b"the data set"
UPLOAD = Upload(UploadId.of(1, 1, 1), 0, unknown(len(DATA)), MemoryPayload([DATA]), 0, 1)


class FillingFolder(ScratchFolder):
    """Its disk is full after four bytes."""

    async def write(self, name: str, offset: int, pieces: Iterable[bytes | memoryview]) -> None:
        await super().write(name, offset, [b"".join(pieces)[:4]])
        raise OSError(errno.ENOSPC, "no space")


def test_it_is_read_back_until_it_is_placed(tmp_path: Path) -> None:
    """Its bytes are in a file, which goes when it is released."""

    async def scenario() -> None:
        folder = ScratchFolder(tmp_path, [0])
        reassembler = Reassembler({}, folder, 1024)
        upload = await reassembler.put_by(UPLOAD)
        assert (upload.held, bytes(upload.payload.read(0, len(DATA)))) == (0, DATA)
        assert len(list(folder.of(0).iterdir())) == 1
        await reassembler.release(upload)
        assert not list(folder.of(0).iterdir())

    asyncio.run(scenario())


def test_a_disk_that_fills_meanwhile_gets_its_room_back(tmp_path: Path) -> None:
    """The upload stays in memory and knows of no file, so nobody else would remove it."""

    async def scenario() -> None:
        folder = FillingFolder(tmp_path, [0])
        with pytest.raises(OSError, match="no space"):
            await Reassembler({}, folder, 1024).put_by(UPLOAD)
        assert not list(folder.of(0).iterdir())

    asyncio.run(scenario())


def test_a_folder_that_could_not_be_made_is_made_when_there_is_room(tmp_path: Path) -> None:
    """A partition may come to a worker whose disk is full, and nobody else makes its folder later."""

    async def scenario() -> None:
        folder = ScratchFolder(tmp_path, [])
        upload = await Reassembler({}, folder, 1024).put_by(UPLOAD)
        assert bytes(upload.payload.read(0, len(DATA))) == DATA
        assert len(list(folder.of(0).iterdir())) == 1

    asyncio.run(scenario())


def test_what_damage_named_wrongly_has_a_file_of_its_own(tmp_path: Path) -> None:
    """A part that lies in a file under another's upload id, and that other one, put by: neither has the other's bytes."""
    other, memory = UploadId.of(1, 1, 2), 6

    def part(upload_id: UploadId) -> bytes:
        return encode_header(Kind.PART, upload_id, 0, None, [memoryview(b"part")]) + b"part"

    sound = encode_header(Kind.INSTANCE, UPLOAD.upload_id, 1, UPLOAD.instance, [memoryview(DATA)]) + DATA

    async def scenario() -> None:
        progress = Progress(Checkpoint(partition=0))
        reassembler = Reassembler({0: progress}, ScratchFolder(tmp_path, [0]), memory)
        await reassembler.add(DamagedRecord(0, 1, 0, memoryview(part(UPLOAD.upload_id))))
        await reassembler.add(LogRecord(1, 2, 0, decode(part(other))))
        stray, upload = await reassembler.add(LogRecord(2, 3, 0, decode(sound)))
        upload = await reassembler.put_by(upload)
        assert b"".join(stray.payload.blocks()) == b"part"
        await reassembler.release(stray)
        assert b"".join(upload.payload.blocks()) == DATA

    asyncio.run(scenario())
