"""A log of two segments, whose bytes are anything: as a failing disk, or another program, may leave them."""

from pathlib import Path
from typing import Final

from ingest.contract.spool import Appended, Layout, PoolLimits
from ingest.contract.spool.files import SegmentFiles
from ingest.contract.spool.format import PAGE
from ingest.contract.spool.layout import Meta, read_meta, write_meta
from ingest.contract.spool.recovery import open_log
from ingest.contract.spool.slots import write_slot
from ingest.contract.spool.walk import Damage, FrameWalk, GroupWalk
from tests.log.simulated_disk import SimulatedDisk

_HEAD: Final = (
    1024  # bytes of each page that are fed: the groups are shorter, and what lies behind is of no use
)
_META: Final = Meta(log_id=7, receiver_id=1, segment_size=4 * PAGE, partitions=1)
_LIMITS: Final = PoolLimits(_META.segment_size, 1 << 20, 0)
_LAYOUT: Final = Layout(Path("/log"))


def written(header: bytes, payload: bytes) -> bytes:
    """Two segments with the same record seven times, in five groups."""
    disk = _folder()
    log, _, _ = open_log(disk, _LAYOUT, _META, _LIMITS, low_water_mark=lambda: 0, committed=0)
    record = Appended(0, header, (memoryview(payload),))
    for count in (1, 2, 1, 1, 2):  # a page each
        log.append([record] * count)
        log.sync()
    log.close()
    content = b"".join(_content(disk, number) for number in (0, 1))
    return b"".join(content[at : at + _HEAD] for at in range(0, len(content), PAGE))


def read(data: bytes) -> bool:
    """Open the log as a receiver does after a crash, and read it from its start, as a worker does: whether all was whole."""
    disk = _folder()
    size = _META.segment_size
    pages = [data[at : at + _HEAD].ljust(PAGE, b"\0") for at in range(0, len(data), _HEAD)]
    content = b"".join(pages).ljust(2 * size, b"\0")
    for number in (0, 1):
        fd = disk.open(_LAYOUT.segment(number), write=True, create=True)
        disk.pwritev(fd, [content[number * size : (number + 1) * size]], 0)
        disk.close(fd)
    counter = disk.counter(_LAYOUT.durable_end, write=True)
    counter.store(PAGE)
    counter.close()
    log, _, recovered = open_log(disk, _LAYOUT, _META, _LIMITS, low_water_mark=lambda: 0, committed=0)
    files = SegmentFiles(disk, _LAYOUT, read_meta(disk, _LAYOUT))
    walk = GroupWalk(files, 0, log.durable_end)
    whole = not recovered.damaged and not recovered.torn
    before = -1
    while (group := walk.next(log.durable_end)) is not None:
        assert walk.position > before, "no step forward"
        before = walk.position
        for frame in FrameWalk(files, group):
            whole &= not isinstance(frame, Damage)
    files.close()
    log.close()
    return whole


def _folder() -> SimulatedDisk:
    disk = SimulatedDisk(0)
    for folder in (_LAYOUT.folder, _LAYOUT.segments, _LAYOUT.retired, _LAYOUT.torn):
        disk.make_folder(folder)
    write_slot(disk, _LAYOUT.cut)
    disk.counter(_LAYOUT.durable_end, write=True).close()
    write_meta(disk, _LAYOUT, _META)
    return disk


def _content(disk: SimulatedDisk, number: int) -> bytes:
    fd = disk.open(_LAYOUT.segment(number))
    try:
        return disk.pread(fd, _META.segment_size, 0)
    finally:
        disk.close(fd)
