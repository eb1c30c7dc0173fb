"""The number of a receiver's start: it grows with each, also when the clock jumps back or the spool is new."""

from ingest.contract.spool import Disk, Layout, read_slot, write_slot


def next_epoch(disk: Disk, layout: Layout, now: int) -> int:
    """Note a new start, durably, and return its number; ``now`` is in nanoseconds since 1970.

    The clock keeps it growing when the folder is lost, the stored number when the clock is wrong.

    Raises:
        OSError: the disk's.
    """
    last = read_slot(disk, layout.epoch) or (0,)
    epoch = max(last[0] + 1, now // 1_000_000)
    write_slot(disk, layout.epoch, epoch)
    return epoch
