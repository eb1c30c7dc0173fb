"""The spool: a log in files, for one machine. This page is its format, and how it is written and read.

A log is one stream of bytes that grows for ever. A position in it (u64) is an offset: it never stands for
other bytes later. The stream is kept in segments, files of one size that get their blocks when they are made
and are overwritten when everybody is past them; segment ``n`` holds the positions from ``n * size`` on, and a
file's offset is the position modulo that size. Partitions are logical: each record names its own. All
integers are little-endian; CRC is CRC-32C.

    DIR/spool/, DIR/outcomes/<partition>/
    meta.json          format, log id (random), receiver id (random), segment size, partitions
    lock               flock of the one writer
    segments/<n>       segment n, 16 hex digits; ``new`` is one being made
    durable-end        u64, mapped: readers go no further; stored after the sync, so never too high
    epoch              slot: the receiver's last start
    cut                slot: segment and durable end of a failed sync, empty when recovered
    retired/<n>-<end>  a segment whose sync failed: read up to ``end``, never written, removed when settled
    torn/<position>    groups that a crash left incomplete, cut off and kept for inspection, the last 16
    wake/<partition>   FIFO: a byte when records of the partition have come
    locks/<partition>  flock of the partition's reader

A slot is 128 bytes overwritten in place, so that it can be set on a full disk: decimal numbers, their CRC in
hex, spaces, a line feed.

Group: the records of one sync. It starts on a page (4096), is padded with zeros to a page, never crosses a
segment, and the first group of a segment is at its start.

    offset  size  field
    0       8     magic and format version, ``DICMGRP1``
    8       4     CRC of bytes 12 to 63
    12      4     number of records
    16      8     log id: bytes that a peer made up never pass for a group
    24      8     position of this group: bytes of an earlier use of the segment never pass
    32      8     length, from this header to the end of the last record
    40      8     previous: where the group before this one ended; what lies between is left out, as the tail
                  of a segment that was too short, or a segment that was retired
    48      8     synced: the durable end when this group was written. A group that fails below the ``synced``
                  of a later one is damage; beyond, it was never acknowledged, and is torn
    56      8     when written, nanoseconds since 1970-01-01 UTC
    64            frames, each at a multiple of 8

Frame: a record in a group.

    offset  size  field
    0       4     magic, ``DRec``
    4       4     n, the record's length
    8       2     partition
    10      2     0
    12      4     CRC of: log id (8), position of this frame (8), bytes 0 to 11, bytes 0 to 31 of the record
    16      n     record, see ``ingest.contract.records``, with a CRC of its own over its content

The frame's CRC covers the record's head, and so the record's CRC: a torn write that left the frame new and
the record old is seen. A record is skipped by reading its frame and head only.

Writing (`SegmentLog`, `open_log`): append, sync, then publish the durable end. A large group is written in
pieces while its records come (`GroupWriter`), its header last, and the disk is given each piece at once; durable
it is by the sync alone. A segment is synced before the next one is written. A group that the disk refused is
blanked, and that is synced before another segment is begun. After a failed sync the log is broken: position and
segment go to ``cut``, and only `open_log` of a new process goes on.

Recovery (`recovery`): the log is surely synced up to the highest of: durable end, ``synced`` of any group,
``cut``, ends of retired segments. What is below and not readable is reported as damaged. Groups beyond are
kept as far as they are whole and follow each other; they are written again and synced, since the page cache
lies after a failed sync, and only then shown. The first that is not, and all behind it, is torn: kept in
``torn/``, and its header is overwritten. New records start at the end, or behind every committed position.

Reading (`SegmentFiles`, `GroupWalk`, `FrameWalk`): from group to group up to the durable end. Where no valid
group is, the next one of the segment is sought page by page, and within what is damaged the records that are
still whole by their frames; what remains is `Damage`.

``format``       groups and frames as bytes              ``layout``       the folder's files, ``slots`` among them
``making``       a log's first start                     ``pool``         segments made and used again
``group_writer`` one group on its way to the disk        ``segment_log``  the writing end
``recovery``     what a crash left, made a log again     ``files``        the segments as one stream
``walk``         from group to group, record to record   ``wake``         from the writer to its readers
``disk``         the system calls below all of it        ``errors``       what can stop a log
"""

from ingest.contract.spool.disk import Counter, Disk, OsDisk, Space
from ingest.contract.spool.errors import (
    SpoolError,
    SpoolFull,
    SpoolLocked,
    SpoolMismatch,
    SpoolMissing,
    SyncFailed,
    WriteFailed,
)
from ingest.contract.spool.files import SegmentFiles, SegmentGone
from ingest.contract.spool.format import PAGE, Appended, Frame, GroupHeader
from ingest.contract.spool.layout import Layout, Meta, read_meta, write_meta
from ingest.contract.spool.making import make_log
from ingest.contract.spool.pool import NO_SPACE, PoolLimits, SegmentPool, effective_reserve
from ingest.contract.spool.recovery import Recovered, open_log
from ingest.contract.spool.segment_log import SegmentLog
from ingest.contract.spool.slots import read_slot, write_slot
from ingest.contract.spool.wake import Sleeper, WakeUps
from ingest.contract.spool.walk import Damage, FrameWalk, GroupWalk

__all__ = [
    "NO_SPACE",
    "PAGE",
    "Appended",
    "Counter",
    "Damage",
    "Disk",
    "Frame",
    "FrameWalk",
    "GroupHeader",
    "GroupWalk",
    "Layout",
    "Meta",
    "OsDisk",
    "PoolLimits",
    "Recovered",
    "SegmentFiles",
    "SegmentGone",
    "SegmentLog",
    "SegmentPool",
    "Sleeper",
    "Space",
    "SpoolError",
    "SpoolFull",
    "SpoolLocked",
    "SpoolMismatch",
    "SpoolMissing",
    "SyncFailed",
    "WakeUps",
    "WriteFailed",
    "effective_reserve",
    "make_log",
    "open_log",
    "read_meta",
    "read_slot",
    "write_meta",
    "write_slot",
]
