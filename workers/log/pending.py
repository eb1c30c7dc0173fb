"""An upload between its first record and its END: which parts are there, in memory or in a scratch file."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.contract.identifiers import UploadId
from workers.dataset.payload import JoinedPayload, MemoryPayload, Payload, SlicePayload


class Moment(NamedTuple):
    """A moment by two clocks, neither of which is ever set."""

    log: int  # milliseconds, see `LogClock.elapsed`
    own: float  # seconds of this process's monotonic clock


_NEVER = Moment(0, 0.0)


@dataclass
class PendingUpload:
    """Parts are known by their index; each has one copy, a sound one rather than a damaged one."""

    upload_id: UploadId
    partition: int
    first_position: int
    doubtful: bool = False  # begun by a damaged record, so that its upload id may be wrong
    suspect: bool = False  # its END may be among damage that names no upload
    held: dict[int, memoryview] = field(default_factory=dict)  # part index -> bytes
    written: dict[int, tuple[int, int]] = field(default_factory=dict)  # part index -> offset, size in scratch
    unsound: set[int] = field(default_factory=set)  # indexes of parts from damaged records
    held_size: int = 0  # bytes
    size: int = 0  # bytes of all parts
    scratch_size: int = 0  # bytes of the scratch file
    touched: Moment = _NEVER  # when its last record came
    appended_at: int = 0  # and when that was appended, as its broker says: milliseconds since 1970

    @property
    def scratch(self) -> str:
        """The name of its scratch file, which the upload that a doubtful one is named after may need as well."""
        name = scratch_name(self.partition, self.upload_id)
        return f"{name}-{self.first_position}" if self.doubtful else name

    def has(self, index: int, *, sound: bool) -> bool:
        """Whether a part is there under this index: with ``sound`` one from a sound record, else any."""
        return (index in self.held or index in self.written) and not (sound and index in self.unsound)

    def hold(self, index: int, payload: memoryview, *, sound: bool) -> int:
        """Take a part; return by how many bytes that changes what is held."""
        before = self.held_size
        self.discard(index)
        if not sound:
            self.unsound.add(index)
        self.held[index] = payload
        self.held_size += len(payload)
        self.size += len(payload)
        return self.held_size - before

    def discard(self, index: int) -> None:
        """Forget a part, if there is one."""
        freed = len(self.held.pop(index, ()))
        self.held_size -= freed
        self.size -= freed + self.written.pop(index, (0, 0))[1]
        self.unsound.discard(index)

    def pieces(self) -> list[memoryview]:
        """What is held, to be written at the end of the scratch file."""
        return [self.held[index] for index in sorted(self.held)]

    def moved(self) -> None:
        """Those pieces are in the scratch file now."""
        for index in sorted(self.held):
            size = len(self.held[index])
            self.written[index] = (self.scratch_size, size)
            self.scratch_size += size
        self.held.clear()
        self.held_size = 0

    def missing(self, size: int, count: int) -> str:
        """What the parts lack of the ``size`` bytes in ``count`` parts that END seals; empty when nothing."""
        indexes = (self.held.keys() | self.written.keys()) - {
            index for index in self.unsound if index >= count
        }
        beyond = sum(index >= count for index in indexes)
        if len(indexes) != count or beyond:
            return f"{len(indexes) - beyond} of {count} parts are there, and {beyond} beyond"
        found = sum(
            len(self.held[index]) if index in self.held else self.written[index][1] for index in indexes
        )
        return "" if found == size else f"{found} of {size} bytes are there"

    def payload(self, file: Payload | None) -> Payload:
        """All parts in the order of their indexes, which are all held or, with ``file``, all in that."""
        if file is None:
            return MemoryPayload(self.pieces())
        extents = _merged(self.written[index] for index in sorted(self.written))
        if extents == [(0, file.size)]:
            return file
        return JoinedPayload([SlicePayload(file, offset, size) for offset, size in extents])


def scratch_name(partition: int, upload_id: UploadId) -> str:
    """The name of an upload's scratch file."""
    return f"{partition}-{upload_id.hex()}"


def _merged(extents: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Extents (offset, size) in the order given, neighbours joined."""
    merged: list[tuple[int, int]] = []
    for offset, size in extents:
        if merged and sum(merged[-1]) == offset:
            merged[-1] = (merged[-1][0], merged[-1][1] + size)
        else:
            merged.append((offset, size))
    return merged
