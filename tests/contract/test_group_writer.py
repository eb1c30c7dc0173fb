"""A group is written in pieces while its records come, and nobody can tell afterwards."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.contract.spool import PAGE, Appended, GroupHeader, OsDisk
from ingest.contract.spool.disk import cut
from ingest.contract.spool.group_writer import GroupWriter
from ingest.contract.spool.layout import Meta
from ingest.contract.spool.segment_log import PIECE

META = Meta(log_id=7, receiver_id=1, segment_size=64 * PAGE, partitions=1)
POSITION = META.segment_size + 5 * PAGE
ROOM = 59 * PAGE
HEADER = GroupHeader(0, 0, 0, previous=3 * PAGE, synced=2 * PAGE, written_at=1)
HEAD = bytes(range(32))


class Recorder(OsDisk):
    """Keeps what it is asked for, in order."""

    def __init__(self) -> None:
        self.written: list[range] = []
        self.hinted: list[range] = []
        self.calls: list[str] = []

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], position: int) -> int:
        size = super().pwritev(fd, buffers, position)
        self.written.append(range(position // PAGE, -(-(position + size) // PAGE)))
        self.calls.append("write")
        return size

    def start_writeback(self, fd: int, length: int, position: int) -> None:
        super().start_writeback(fd, length, position)
        self.hinted.append(range(position // PAGE, (position + length) // PAGE))
        self.calls.append("hint")


def record(size: int, pieces: int = 1) -> Appended:
    return Appended(3, HEAD, [memoryview(os.urandom(size)) for _ in range(pieces)])


def written(path: Path, records: Sequence[Appended], piece: int) -> tuple[Recorder, bytes]:
    """What the disk was asked for, and what is in the file behind the group's place."""
    disk = Recorder()
    fd = disk.open(path, write=True, create=True)
    group = GroupWriter(disk, fd, META, POSITION, room=ROOM, piece=piece)
    for item in records:
        assert group.fits(item)
        group.add(item)
    size = group.finish(HEADER)
    data = disk.pread(fd, META.segment_size, 5 * PAGE)
    disk.close(fd)
    assert len(data) == size
    return disk, data


@pytest.mark.parametrize("piece", [2 * PAGE, 3 * PAGE, 20 * PAGE])
@pytest.mark.parametrize(
    "sizes", [[0], [PAGE - 150], [3 * PAGE] * 5, [10, 9 * PAGE + 1, 7, 7, PAGE, 5 * PAGE]]
)
def test_pieces_make_the_same_bytes(tmp_path: Path, sizes: list[int], piece: int) -> None:
    """Each page is written once, the first with the header last, and the disk begins with none that is to be written."""
    records = [record(size, pieces=2) for size in sizes]
    _, whole = written(tmp_path / "whole", records, 1 << 30)
    disk, data = written(tmp_path / "pieces", records, piece)
    assert data == whole
    pages = [page for pages in disk.written for page in pages]
    assert sorted(pages) == [*range(5, 5 + len(whole) // PAGE)]
    assert 5 in disk.written[-1]
    hinted = [page for pages in disk.hinted for page in pages]
    assert hinted == pages[: len(hinted)]
    assert 5 not in hinted


def test_the_disk_begins_before_the_last_record_is_there(tmp_path: Path) -> None:
    """That is what pieces are for."""
    disk, _ = written(tmp_path / "segment", [record(4 * PAGE)] * 2, 4 * PAGE)
    assert disk.calls == ["write", "hint", "write", "hint", "write", "write"]


def test_a_group_of_less_than_a_piece_is_one_write(tmp_path: Path) -> None:
    """One sender of small images waits for no call that gains it nothing."""
    disk, _ = written(tmp_path / "segment", [record(40), record(9 * PAGE)], PIECE)
    assert disk.calls == ["write"]


def test_only_what_has_room_fits() -> None:
    """To the last byte; and a group of many pieces goes in one write, but for the first record's."""
    group = GroupWriter(OsDisk(), -1, META, POSITION, room=2 * PAGE, piece=PIECE)
    room = 2 * PAGE - 64 - 16 - len(HEAD)
    assert group.fits(record(room))
    assert not group.fits(record(room + 1))
    group = GroupWriter(OsDisk(), -1, META, POSITION, room=ROOM, piece=PIECE)
    assert group.fits(record(1, pieces=2000))
    group.add(record(1, pieces=2000))
    assert not group.fits(record(1))


def test_a_hint_is_never_an_error(tmp_path: Path) -> None:
    """Neither on a file system in memory nor on what is no file: correctness rests on the sync alone."""
    disk = OsDisk()
    for folder in (tmp_path, Path("/dev/shm")):
        path = folder / f"hint-{os.getpid()}"
        fd = disk.open(path, write=True, create=True)
        try:
            disk.start_writeback(fd, PAGE, 0)
        finally:
            disk.close(fd)
            path.unlink()
    with socket.socket() as no_file:
        disk.start_writeback(no_file.fileno(), PAGE, 0)
    disk.start_writeback(-1, PAGE, 0)


@pytest.mark.parametrize("size", range(11))
def test_cut_takes_so_many_bytes(size: int) -> None:
    """The rest stays, and no buffer that is empty stays before it."""
    buffers: list[bytes | memoryview] = [b"abc", b"", memoryview(b"defg"), b"hij", b""]
    taken = cut(buffers, size)
    assert b"".join(taken) == b"abcdefghij"[:size]
    assert b"".join(buffers) == b"abcdefghij"[size:]
    assert not buffers or len(buffers[0]) > 0
