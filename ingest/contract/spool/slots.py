"""Small numbers that must be written when the disk is full or failing: fixed files, overwritten in place."""

from pathlib import Path
from typing import Final

from crc32c import crc32c

from ingest.contract.spool.disk import Disk, read_file, write_all

_SIZE: Final = 128  # bytes: within one sector, so a write happens whole or not at all


def read_slot(disk: Disk, path: Path) -> tuple[int, ...] | None:
    """The numbers in a slot; None when nothing valid is there.

    Raises:
        OSError: the disk's.
    """
    data = read_file(disk, path)
    if data is None:
        return None
    numbers, _, crc = data.rstrip().rpartition(b" ")
    if crc != b"%08x" % crc32c(numbers):
        return None
    return tuple(int(number) for number in numbers.split())


def write_slot(disk: Disk, path: Path, *numbers: int) -> None:
    """Set a slot's numbers; durable when this returns. Only the first time does it need new space.

    Raises:
        OSError: the disk's.
    """
    text = b" ".join(b"%d" % number for number in numbers)
    data = (text + b" %08x" % crc32c(text)).ljust(_SIZE - 1) + b"\n"
    made = path.name not in disk.names(path.parent)
    fd = disk.open(path, write=True, create=True)
    try:
        write_all(disk, fd, [data], 0)
        disk.fdatasync(fd)
    finally:
        disk.close(fd)
    if made:
        disk.sync_folder(path.parent)
