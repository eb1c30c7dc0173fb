"""The folder of one log: names of its files, and what is written once when it is made."""

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ingest.contract.spool.disk import Disk, read_file, replace_file
from ingest.contract.spool.errors import SpoolMismatch, SpoolMissing

FORMAT: Final = 1
_DIGITS: Final = 16


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """``meta.json``: what a log is, from its making on."""

    format: int = FORMAT
    log_id: int  # random, 64 bits, in every header: bytes from elsewhere never pass for this log's
    receiver_id: int  # random, 32 bits: the first part of upload ids
    segment_size: int  # bytes
    partitions: int


def new_meta(segment_size: int, partitions: int) -> Meta:
    """The meta of a log that is being made."""
    return Meta(
        log_id=secrets.randbits(64),
        # The top half is left to ids that are no receiver's, such as those of damage.
        receiver_id=secrets.randbits(31),
        segment_size=segment_size,
        partitions=partitions,
    )


@dataclass(frozen=True)
class Layout:
    """Paths within a log's folder."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Held by the one writer."""
        return self.folder / "lock"

    @property
    def meta(self) -> Path:
        """See `Meta`."""
        return self.folder / "meta.json"

    @property
    def epoch(self) -> Path:
        """Slot: the receiver's last start."""
        return self.folder / "epoch"

    @property
    def durable_end(self) -> Path:
        """Counter: readers go no further."""
        return self.folder / "durable-end"

    @property
    def cut(self) -> Path:
        """Slot: which segment's sync failed, and where the durable end was then; empty when none did."""
        return self.folder / "cut"

    @property
    def segments(self) -> Path:
        """Folder of the segments, each named by its number in 16 hex digits."""
        return self.folder / "segments"

    @property
    def retired(self) -> Path:
        """Folder of segments whose sync failed, ``<number>-<end position>``."""
        return self.folder / "retired"

    @property
    def torn(self) -> Path:
        """Folder of groups that a crash left incomplete, ``<position>``."""
        return self.folder / "torn"

    @property
    def wake(self) -> Path:
        """Folder of the FIFOs that tell a partition's reader of new records."""
        return self.folder / "wake"

    @property
    def locks(self) -> Path:
        """Folder of the locks that the partitions' readers hold."""
        return self.folder / "locks"

    def segment(self, number: int) -> Path:
        """A segment's file."""
        return self.segments / f"{number:0{_DIGITS}x}"

    def retired_segment(self, number: int, end: int) -> Path:
        """A retired segment's file; nothing at or after ``end`` is valid in it."""
        return self.retired / f"{number:0{_DIGITS}x}-{end:0{_DIGITS}x}"

    def segment_numbers(self, disk: Disk) -> set[int]:
        """The segments that are there, retired ones left out."""
        return {int(name, 16) for name in disk.names(self.segments) if _is_number(name)}

    def retired_ends(self, disk: Disk) -> dict[int, int]:
        """The retired segments that are there: number, and where each ends."""
        parts = (name.split("-") for name in disk.names(self.retired))
        pairs = (pair for pair in parts if len(pair) == 2 and all(map(_is_number, pair)))  # noqa: PLR2004 - see the name
        return {int(number, 16): int(end, 16) for number, end in pairs}


def _is_number(name: str) -> bool:
    if len(name) != _DIGITS:
        return False
    with contextlib.suppress(ValueError):
        return f"{int(name, 16):0{_DIGITS}x}" == name
    return False


def read_meta(disk: Disk, layout: Layout) -> Meta:
    """What the log is.

    Raises:
        SpoolMissing: it was never made.
        SpoolMismatch: another release made it, or the file is damaged.
    """
    data = read_file(disk, layout.meta)
    if data is None:
        raise SpoolMissing(f"no log in {layout.folder}")
    try:
        meta = msgspec.json.decode(data, type=Meta)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SpoolMismatch(f"{layout.meta}: {error}") from None
    if meta.format != FORMAT:
        raise SpoolMismatch(f"{layout.meta}: format {meta.format}; this release reads {FORMAT}")
    return meta


def write_meta(disk: Disk, layout: Layout, meta: Meta) -> None:
    """Write it, durably."""
    replace_file(disk, layout.meta, msgspec.json.format(msgspec.json.encode(meta)) + b"\n")
