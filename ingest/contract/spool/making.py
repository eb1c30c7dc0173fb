"""A log's folder on its first start."""

from ingest.contract.spool.disk import Disk
from ingest.contract.spool.errors import SpoolMissing
from ingest.contract.spool.layout import Layout, Meta, new_meta, read_meta, write_meta
from ingest.contract.spool.pool import PoolLimits, chosen_segment_size
from ingest.contract.spool.slots import write_slot


def make_log(disk: Disk, layout: Layout, partitions: int, limits: PoolLimits) -> Meta:
    """The log in a folder, made if there is none; the caller holds its lock. One that is there stays as it is.

    Raises:
        SpoolMismatch: it was made by another release.
        OSError: the disk's.
    """
    try:
        meta = read_meta(disk, layout)
    except SpoolMissing:
        for folder in (layout.segments, layout.retired, layout.torn):
            disk.make_folder(folder)
        write_slot(disk, layout.cut)
        disk.counter(layout.durable_end, write=True).close()
        size = chosen_segment_size(
            disk, layout.folder, limits.segment_size, limits.maximum_size, limits.reserve
        )
        meta = new_meta(size, partitions)
        write_meta(disk, layout, meta)  # last: with it the log exists
        disk.sync_folder(layout.folder.parent)
    return meta
