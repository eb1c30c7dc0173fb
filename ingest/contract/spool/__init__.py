"""The spool: a log in files, for one machine."""

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
from ingest.contract.spool.pool import PoolLimits, SegmentPool
from ingest.contract.spool.recovery import Recovered, open_log
from ingest.contract.spool.segment_log import SegmentLog
from ingest.contract.spool.slots import read_slot, write_slot
from ingest.contract.spool.wake import Sleeper, WakeUps
from ingest.contract.spool.walk import Damage, FrameWalk, GroupWalk

__all__ = [
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
    "make_log",
    "open_log",
    "read_meta",
    "read_slot",
    "write_meta",
    "write_slot",
]
